"""A comparison in sentences, made from its numbers: who is better by how much, and what speaks against believing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ifguide.pages.evaluation_table import number, signed
from ifguide.pages.text import listed, said
from ifguide.system.progress import counted

_MOST_DETAILED = 4  # models; of more, the sentence leaves the numbers to the table, and names no more than these
_FEW_PROMPTS = 100
_ACRONYMS = ("emt", "tp")

Entry = Mapping[str, Any]


def metric_name(metric: str) -> str:
    """As people say it: ``emt_toxic`` is "EMT, toxic"."""
    name, _, group = metric.partition("_")
    if name in _ACRONYMS:
        return f"{name.upper()}, {group}" if group else name.upper()
    return metric.replace("_", " ")


def verdict(entry: Entry, labels: Sequence[str]) -> str:
    """One sentence on one metric of all models; "" where a model has no value.

    Args:
        entry: a metric of a task, as `ifguide.evaluation.compare.compare_runs` gives it.
        labels: of the models, in the order of its values.

    Raises:
        ValueError: two of them are no pair of the comparison.
    """
    values = list(entry["values"])
    if any(value is None for value in values):
        return ""
    name = metric_name(entry["metric"])
    if len(labels) == 2:
        return f"{name}: {_of_two(entry, labels)}"
    if len(set(values)) == 1:
        return f"{name}: all models have the same value, {number(values[0])}."
    best = (max if entry["higher_is_better"] else min)(range(len(labels)), key=values.__getitem__)
    beaten: list[str] = []
    unsure: list[str] = []
    for place, label in enumerate(labels):
        if place == best:
            continue
        difference, bounds, sure = _oriented(entry, labels[best], label)
        detail = f" ({signed(difference)}, {_between(bounds)})" if len(labels) <= _MOST_DETAILED else ""
        (beaten if sure else unsure).append(f"{label}{detail}")
    extreme = "highest" if entry["higher_is_better"] else "lowest"
    sentence = f"{name}: {labels[best]} has the {extreme} value, {number(values[best])}."
    if beaten:
        sentence += f" It is better than {_some(beaten, len(labels) - 1)}."
    if unsure:
        sentence += f" It cannot be told apart from {_some(unsure, len(labels) - 1)}."
    return sentence


def caveats(comparison: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before the numbers are believed, a sentence or two each.

    Args:
        comparison: as `ifguide.evaluation.compare.compare_runs` returns it.
    """
    tests = sum(len(entry["pairs"]) for metrics in comparison["tasks"].values() for entry in metrics)
    lines = [
        "An interval says what other prompts of the same kind might have given. It says nothing of how good the judge "
        "is: judge with two.",
        "A model is called better where the interval of the difference leaves out 0 and at least 6 prompts differ.",
    ]
    if tests > 1:
        lines.append(
            f"These are {tests} comparisons. Of {tests} true ties, about {number(tests / 20)} would fall outside their "
            "95% intervals by chance. Choose the metric before you look, and take the rest as a hint."
        )
    for task, metrics in comparison["tasks"].items():
        prompts = max((entry["prompts"] for entry in metrics), default=0)
        if 0 < prompts < _FEW_PROMPTS:
            lines.append(f"{task} has only {counted(prompts, 'prompt')}: its intervals are wide.")
    lines += _silence(comparison)
    lines += _unlike(comparison["models"])
    return lines


def _some(names: Sequence[str], others: int) -> str:
    """The names, or how many of the others they are where nobody would read them all."""
    return listed(names) if len(names) < _MOST_DETAILED else f"{len(names)} of the {others} other models"


def _of_two(entry: Entry, labels: Sequence[str]) -> str:
    (pair,), (one, other) = entry["pairs"], entry["values"]
    if pair["verdict"] == "unsure":
        return (
            f"{labels[0]} and {labels[1]} cannot be told apart: {number(one)} against {number(other)}, a difference of "
            f"{signed(pair['difference'])} ({_between(pair['interval'])}); {_prompts(pair['differing_prompts'])}."
        )
    better, worse = (labels[0], labels[1]) if pair["verdict"] == "first" else (labels[1], labels[0])
    difference, bounds, _ = _oriented(entry, better, worse)
    low, high = sorted(map(abs, bounds))
    return (
        f"{better} is better than {worse}: {number(entry['values'][labels.index(better)])} against "
        f"{number(entry['values'][labels.index(worse)])}, {number(abs(difference))} "
        f"{'higher' if difference > 0 else 'lower'} (95% interval {number(low)} to {number(high)})."
    )


def _oriented(entry: Entry, first: str, second: str) -> tuple[float, tuple[float, float], bool]:
    """The difference ``first`` - ``second`` with its interval, and whether it is sure."""
    for pair in entry["pairs"]:
        low, high = pair["interval"]
        if (pair["first"], pair["second"]) == (first, second):
            return pair["difference"], (low, high), pair["verdict"] != "unsure"
        if (pair["second"], pair["first"]) == (first, second):
            return -pair["difference"], (-high, -low), pair["verdict"] != "unsure"
    raise ValueError(f"{first} and {second} are no pair of this comparison")


def _between(bounds: Sequence[float]) -> str:
    return f"95% interval {signed(bounds[0])} to {signed(bounds[1])}"


def _prompts(count: int) -> str:
    return f"{count:,} prompt differs" if count == 1 else f"{count:,} prompts differ"


def _silence(comparison: Mapping[str, Any]) -> Iterator[str]:
    """That silence lowers toxicity, where a model says nothing to some prompts."""
    for task, texts in comparison.get("texts", {}).items():
        shares = [
            f"{model['label']} {one['empty_share']:.1%}"
            for model, one in zip(comparison["models"], texts)
            if one and one["empty_share"]
        ]
        if shares:
            yield f"Of the continuations of {task} some are empty, which lowers toxicity: {listed(shares)}."


def _unlike(models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What else is not the same in all models."""
    for key, what in (("dtype", "number format of the weights"), ("seed", "seed"), ("rad", "decoding (RAD)")):
        found = [said(model.get(key)) for model in models]
        if len(set(found)) > 1:
            each = [f"{model['label']} {one}" for model, one in zip(models, found)]
            yield f"Not all models have the same {what}: {listed(each)}."
