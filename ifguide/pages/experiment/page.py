"""The page of an experiment: one table, what each method costs, curves, and what the models say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ifguide.pages.environment import (
    Html,
    element,
    heads,
    join,
    page,
    pairs,
    plotted,
    said_cell,
    scrolling,
    warning,
)
from ifguide.pages.experiment.plots import curve_names, curve_plot, trade_plot
from ifguide.pages.experiment.text import COLUMNS, cell_text, duration

_PROMPT_CHARACTERS = 160
_MEANINGS = {
    "EMT": "mean over prompts of the highest toxicity among a prompt's continuations; lower is better",
    "TP": "share of prompts with at least one continuation of toxicity 0.5 or more; lower is better",
    "perplexity": "of held-out text; lower is better",
    "empty": "share of continuations without any text: silence is harmless, not good",
    "distinct-2": "different word pairs over all word pairs: it falls when a model repeats itself",
    "against base": "the mean over seeds of the difference from the base model of the same seed and prompts, of a "
    "perplexity the ratio; an interval that holds 0 (or 1) says that nothing is known",
}


def experiment_page(results: Mapping[str, Any], said: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        results: what ``results.json`` holds.
        said: a row a prompt: ``subset``, ``prompt``, and ``said``: method -> (continuation, toxicity).
    """
    methods = results["methods"]
    whole = {name: entry for name, entry in methods.items() if entry["mean"]}
    return page(
        f"IF-Guide experiment {results['plan']}",
        element(
            "main",
            element("h1", f"Experiment {results['plan']}"),
            warning(
                "Content warning.",
                "One section of this page quotes what the models say, insults included. It stays closed until you open "
                "it.",
            ),
            element("p", results["description"]) if results["description"] else None,
            [
                warning("No numbers.", f"{one['cell']}, seed {one['seed']}: {one['stage']}: {one['reason']}")
                for one in results["failed"]
            ],
            element("h2", "Results", id="results"),
            element("p", _judged_by(results)),
            scrolling(_table(whole), aria_labelledby="results"),
            _against_base(whole, results["judges"]),
            element(
                "details",
                element("summary", "What the numbers mean"),
                element("dl", [[element("dt", key), element("dd", text)] for key, text in _MEANINGS.items()]),
            ),
            _plots(whole),
            element("h2", "What it costs", id="costs"),
            element(
                "p",
                "Seconds of every stage behind the model, as if it alone were made, its evaluation not counted; the "
                "largest process among them.",
                class_="note",
            ),
            scrolling(_costs(whole), aria_labelledby="costs"),
            _further(whole),
            _said(said, list(whole)),
            element("h2", "Settings and record"),
            element("div", pairs("Plan", _settings(results)), class_="columns"),
        ),
        drawn=True,
    )


def _judged_by(results: Mapping[str, Any]) -> str:
    first, *more = results["judges"]
    seeds, drawn = results["seeds"], results["sampling"]
    over = "over prompts" if len(seeds) == 1 else f"over prompts and {len(seeds)} seeds"
    others = f" Further judges: {', '.join(more)}." if more else ""
    return (
        f"Judged by {first}, {drawn['samples']} continuations of {drawn['max_new_tokens']} tokens a prompt, the same "
        f"prompts for all. In brackets 95% intervals {over}.{others}"
    )


def _table(methods: Mapping[str, Mapping[str, Any]]) -> Html:
    rows = [
        element(
            "tr",
            element("th", name, scope="row", title=entry.get("describe")),
            [element("td", *_value(entry, metric, form)) for metric, _, form in COLUMNS],
            element("td", len(entry["seeds"])),
        )
        for name, entry in methods.items()
    ]
    return element("table", heads("method", *(label for _, label, _ in COLUMNS), "seeds"), element("tbody", rows))


def _value(entry: Mapping[str, Any], metric: str, form: str) -> list[Any]:
    value, _, bounds = cell_text(entry, metric, form).partition(" ")
    return [value, *([" ", element("small", bounds)] if bounds else [])]


def _against_base(methods: Mapping[str, Mapping[str, Any]], judges: Sequence[str]) -> Html | None:
    metrics = [metric for metric, *_ in COLUMNS] + [f"tp_toxic@{judge}" for judge in judges[1:]]
    known = {name: entry["against_base"]["metrics"] for name, entry in methods.items() if entry.get("against_base")}
    metrics = [metric for metric in metrics if any(metric in found for found in known.values())]
    if not metrics:
        return None
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            [element("td", *_change(found.get(metric))) for metric in metrics],
        )
        for name, found in known.items()
    ]
    head = heads("method", *(metric.replace("_", " ").replace("@", " by ") for metric in metrics))
    return join(
        element("h3", "Against the base of the same seed", id="against"),
        scrolling(element("table", head, element("tbody", rows)), aria_labelledby="against"),
    )


def _change(found: Mapping[str, Any] | None) -> list[Any]:
    if found is None:
        return ["–"]
    value = f"×{found['ratio']:.3f}" if "ratio" in found else f"{found['difference']:+.3f}"
    bounds = found["interval"]
    return [value, *([" ", element("small", f"[{bounds[0]:.3f}, {bounds[1]:.3f}]")] if bounds else [])]


def _plots(methods: Mapping[str, Mapping[str, Any]]) -> Html | None:
    plain = {name: entry for name, entry in methods.items() if not entry["curve"]}
    fluency = [m for m in next(iter(methods.values()), {"mean": {}})["mean"] if m.startswith("perplexity")]
    figures = [
        (
            f"Toxicity against {metric.replace('@', ' of ')}: one point a method and seed; down and left is better.",
            figure,
        )
        for metric in fluency
        if (figure := trade_plot(plain, "tp_toxic", metric)) is not None
    ]
    for curve in curve_names(methods):
        for metric in ("tp_toxic", "perplexity"):
            if (figure := curve_plot(methods, curve, metric)) is not None:
                figures.append((f"{metric.replace('_', ' ')} over {curve}, with 95% intervals.", figure))
    return join(element("h2", "Plots"), plotted(figures)) if figures else None


def _costs(methods: Mapping[str, Mapping[str, Any]]) -> Html:
    def memory(entry: Mapping[str, Any]) -> str:
        found = [one["memory"] for one in entry["seeds"].values() if one.get("memory")]
        return f"{max(found) / 2**30:.2f} GiB" if found else "–"

    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", duration(entry["mean"].get("seconds", 0.0))),
            element("td", f"{entry['mean'].get('trained_tokens', 0.0):,.0f}"),
            element("td", memory(entry)),
            element("td", "; ".join(entry["extra"]) or "nothing"),
        )
        for name, entry in methods.items()
    ]
    return element(
        "table", heads("method", "time", "trained tokens", "memory", "beside the text"), element("tbody", rows)
    )


def _further(methods: Mapping[str, Mapping[str, Any]]) -> Html | None:
    """What further judges, texts and tasks say."""
    first = next(iter(methods.values()), None)
    if first is None:
        return None
    metrics = [metric for metric in first["mean"] if "@" in metric or metric.startswith("lambada")]
    if not metrics:
        return None
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            [element("td", *_value(entry, metric, "{:.4g}")) for metric in metrics],
        )
        for name, entry in methods.items()
    ]
    head = heads("method", *(metric.replace("_", " ").replace("@", ", ") for metric in metrics))
    return join(
        element("h2", "Further judges, texts and tasks", id="further"),
        scrolling(element("table", head, element("tbody", rows)), aria_labelledby="further"),
    )


def _said(said: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Html | None:
    if not said:
        return None
    shown = [name for name in names if any(name in row["said"] for row in said)]
    rows = [
        element(
            "tr",
            element("th", _ending(row["prompt"]), scope="row", dir="auto"),
            [said_cell(*row["said"][name]) if name in row["said"] else element("td", "–") for name in shown],
        )
        for row in said
    ]
    return join(
        element("h2", "What the models say"),
        element(
            "p",
            f"For {len(said)} prompts, evenly spaced over all of them, the most toxic continuation of each method's "
            "first seed, with its toxicity.",
        ),
        element(
            "details",
            element("summary", "Show the continuations (abusive text)"),
            scrolling(
                element("table", heads("prompt", *shown), element("tbody", rows), class_="said"),
                aria_label="Continuations",
            ),
            class_="abuse",
        ),
    )


def _ending(prompt: str) -> str:
    return prompt if len(prompt) <= _PROMPT_CHARACTERS else "… " + prompt[-_PROMPT_CHARACTERS:]


def _settings(results: Mapping[str, Any]) -> dict[str, str]:
    stages = results.get("stages", {})
    return {
        "seeds": ", ".join(map(str, results["seeds"])),
        "judges": ", ".join(results["judges"]),
        **{key: str(value) for key, value in results["sampling"].items()},
        "stages": ", ".join(f"{count} {state}" for state, count in stages.items()),
        "seconds of all stages": f"{sum(results.get('seconds', {}).values()):.0f}",
    }
