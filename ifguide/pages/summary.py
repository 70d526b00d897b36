"""What was measured, in sentences made from the numbers: they say "higher" where a number is higher."""

from __future__ import annotations

from typing import Any

from ifguide.pages.evaluation_table import number
from ifguide.pages.table import models_of
from ifguide.pages.text import listed
from ifguide.system.progress import counted

_COUNTS = ("No model was", "One model was", "Two models were", "Three models were")
# what these names stand for, in a quickstart and wherever else results carry them
_MEANINGS = {
    "base": "none in the base run",
    "guided": "on the tokens that influence chose in the guided run",
    "control": "on as many random tokens in the control run",
}


def lead(results: dict[str, Any]) -> str:
    """What was trained, in a sentence or two."""
    return _trained(results, models_of(results))


def points(results: dict[str, Any], num_prompts: int, num_samples: int) -> dict[str, str]:
    """What came of it: three points, each under a word that says what it is about.

    Args:
        results: what ``results.json`` holds.
        num_prompts: toxic prompts.
        num_samples: continuations of each prompt.
    """
    models = models_of(results)
    return {
        "Toxicity": f"share of {num_prompts} toxic prompts with a continuation judged toxic among {num_samples}: "
        f"{_each(results, models, 'tp_toxic', '{:.0%}')}.{_guided(results, models)}",
        "Clean text": f"perplexity of held-out clean text: {_perplexity(results, models)}"
        f"{_perplexities(results, models)}.{_silence(results, models)}",
        "The mask": _found(results["mask"]),
    }


def judge_sentence(judge: dict[str, Any]) -> str:
    """Who gave the toxicity scores, and how far that judge can be trusted."""
    heldout = judge.get("heldout")
    if not heldout:
        return f"Toxicity was judged by {judge['scorer']}."
    numbers = {key: f"{heldout[key]:.4f}" for key in ("roc_auc", "accuracy", "false_positive_rate")}
    return (
        f"Toxicity was judged by a {judge['scorer']} classifier trained on examples of its own; on "
        f"{heldout['heldout_texts']:,} held-out texts its ROC-AUC is {numbers['roc_auc']}, its accuracy "
        f"{numbers['accuracy']} and its false-positive rate {numbers['false_positive_rate']}."
    )


def _trained(results: dict[str, Any], models: list[str]) -> str:
    """What the models are, as far as their names say it."""
    mask = results["mask"]
    known = [name for name in models if name in _MEANINGS]
    others = [name for name in models if name not in _MEANINGS]
    sentence = (
        f"{_COUNTS[len(known)]} trained alike, but for a penalty on {counted(mask['tokens'], 'token')} "
        f"({mask['fraction']:.1%}) "
        f"of {counted(results['corpus']['documents'], 'document')}: {', '.join(_MEANINGS[name] for name in known)}."
        if known
        else f"The mask holds {counted(mask['tokens'], 'token')} ({mask['fraction']:.1%}) of "
        f"{counted(results['corpus']['documents'], 'document')}."
    )
    return f"{sentence} Shown beside them: {listed(others)}." if others else sentence


def _guided(results: dict[str, Any], models: list[str]) -> str:
    """How the guided model compares with each of the others, a sentence each."""
    others = [name for name in models if name != "guided"] if "guided" in models else []
    return "".join(f" {_comparison('Guided', results['guided'], name, results[name])}" for name in others)


def _perplexities(results: dict[str, Any], models: list[str]) -> str:
    """How far each model's perplexity is from the base model's."""
    others = [name for name in models if name != "base"] if "base" in models else []
    base = results["base"]["perplexity"] if others else 0.0
    verbs = [" is", *[""] * len(others)]
    changes = [f"{name}{verb} {_change(results[name]['perplexity'], base)}" for name, verb in zip(others, verbs)]
    return f"; against base, {listed(changes)}" if changes else ""


def _perplexity(results: dict[str, Any], models: list[str]) -> str:
    """Each model's, with its interval where it was measured."""
    parts = []
    for name in models:
        bounds = results[name].get("perplexity_interval")
        between = f" [{number(bounds[0])}, {number(bounds[1])}]" if bounds else ""
        parts.append(f"{name} {number(results[name]['perplexity'])}{between}")
    return listed(parts)


def _silence(results: dict[str, Any], models: list[str]) -> str:
    """Of continuations without text, where there are some."""
    if not any(results[name]["empty_share"] for name in models):
        return ""
    return f" Share of continuations without text: {_each(results, models, 'empty_share', '{:.1%}')}."


def _found(mask: dict[str, Any]) -> str:
    if mask["precision"] is None or mask["recall"] is None:
        return "nothing was planted in this corpus, so how well the mask finds abuse is not known."
    return (
        f"{mask['precision']:.0%} of its tokens lie inside planted abuse, and it finds {mask['recall']:.0%} of the "
        "planted spans."
    )


def _each(results: dict[str, Any], models: list[str], key: str, form: str) -> str:
    return listed([f"{name} {form.format(results[name][key])}" for name in models])


def _comparison(name: str, numbers: dict[str, Any], other: str, others: dict[str, Any]) -> str:
    """One sentence on the share of toxic prompts of two models and whether their intervals are apart."""
    ours, theirs = numbers["tp_toxic"], others["tp_toxic"]
    if ours == theirs:
        return f"{name} equals {other}."
    (low, high), (other_low, other_high) = numbers["tp_toxic_interval"], others["tp_toxic_interval"]
    apart = high < other_low or other_high < low
    order = "lower" if ours < theirs else "higher"
    return f"{name} is {order} than {other}; their 95% intervals {'do not overlap' if apart else 'overlap'}."


def _change(value: float, reference: float) -> str:
    change = value / reference - 1
    if f"{abs(change):.1%}" == "0.0%":
        return "the same"
    return f"{abs(change):.1%} {'higher' if change > 0 else 'lower'}"
