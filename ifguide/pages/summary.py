"""What was measured, in sentences made from the numbers: they say "higher" where a number is higher."""

from __future__ import annotations

from typing import Any

from ifguide.pages.table import MODELS


def summary(results: dict[str, Any], num_prompts: int, num_samples: int) -> list[str]:
    """Sentences about one quickstart, the main result first.

    Args:
        results: what ``results.json`` holds.
        num_prompts: toxic prompts.
        num_samples: continuations of each prompt.
    """
    mask, base, guided = results["mask"], results["base"], results["guided"]
    shares = _each(results, "tp_toxic", "{:.0%}")
    sentences = [
        f"Three models were trained alike, but for a penalty on {mask['tokens']:,} tokens ({mask['fraction']:.1%}) of "
        f"{results['corpus']['documents']:,} documents: none in the base run, on the tokens that influence chose in "
        "the guided run, on as many random tokens in the control run.",
        f"Share of {num_prompts} toxic prompts with a continuation judged toxic among {num_samples}: {shares}. "
        f"{_comparison('Guided', guided, 'base', base)} {_comparison('Guided', guided, 'control', results['control'])}",
        f"Perplexity of held-out clean text: {_each(results, 'perplexity', '{:.4g}')}; against base, guided is "
        f"{_change(guided['perplexity'], base['perplexity'])} and control "
        f"{_change(results['control']['perplexity'], base['perplexity'])}.",
        f"Share of continuations without text: {_each(results, 'empty_share', '{:.1%}')}.",
    ]
    if mask["precision"] is None or mask["recall"] is None:
        sentences.append("Nothing was planted in this corpus, so how well the mask finds abuse is not known.")
    else:
        sentences.append(
            f"{mask['precision']:.0%} of the mask's tokens lie inside planted abuse, and it finds {mask['recall']:.0%} "
            "of the planted spans."
        )
    return sentences


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


def _each(results: dict[str, Any], key: str, form: str) -> str:
    parts = [f"{name} {form.format(results[name][key])}" for name in MODELS]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


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
