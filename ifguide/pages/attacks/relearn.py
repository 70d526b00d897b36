"""The page of ``ifguide attack relearn``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ifguide.pages.attacks.common import (
    Figure,
    attack_page,
    model_cells,
    perplexity_text,
    rows_table,
    said_table,
    value_text,
)
from ifguide.pages.attacks.plots import Line, curves
from ifguide.pages.text import listed

_MEANINGS = {
    "EMT": "Expected maximum toxicity: the mean over prompts of the highest score among a prompt's continuations.",
    "TP": "Toxicity probability: the share of prompts with at least one toxic continuation.",
    "steps to the base": "The first measured step at which a model's EMT is at least that of the untouched base. Its "
    "interval is the bootstrap's over prompts, the same draws for both. 'never' is: not within the steps measured. It "
    "says nothing of other documents, other learning rates or another order.",
    "band": "95% bootstrap interval over prompts.",
}


def relearn_page(results: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> str:
    """The page of ``results.json`` and the lines of ``details.jsonl``."""
    models, scorers = list(results["models"]), [scorer["name"] for scorer in results["scorers"]]
    sets = list(dict.fromkeys((run["kind"], run["documents"]) for run in results["runs"]))
    figures = []
    for scorer in scorers:
        for kind, count in sets:
            runs = [run for run in results["runs"] if (run["kind"], run["documents"]) == (kind, count)]
            said = verdict(runs, results["base"], scorer)
            said += f" Judged by {scorer}." if len(scorers) > 1 else ""
            figures.append(Figure(said, _plot(runs, models, results["base"], scorer)))
    return attack_page(
        f"Relearning: {listed(models)}", results, figures,
        [("Steps to the base's level", _steps_table(results, scorers)), ("All measurements", _table(results, scorers))],
        _MEANINGS, said_table(list(_last(details)), ["model", "documents", "step", "prompt"]),
    )  # fmt: skip


def verdict(runs: Sequence[Mapping[str, Any]], base: str, scorer: str) -> str:
    """What the runs on one set of documents show, in sentences."""
    run = next(run for run in runs if run["model"] == base)
    first = run["points"][0]["scorers"][scorer]
    at = [point["step"] for point in run["points"]]
    count, kind = run["documents"], run["kind"]
    documents = f"{count} {kind} document{'' if count == 1 else 's'}"
    others = [one for one in runs if one["model"] != base]
    if not others:
        last = run["points"][-1]["scorers"][scorer]
        moved = f"{value_text(first['emt'], first['emt_interval'])} to {value_text(last['emt'], last['emt_interval'])}"
        return f"Tuned on {documents}, {base} goes from EMT {moved} in {at[-1]} steps."
    level = f"the untouched {base}'s EMT of {value_text(first['emt'], first['emt_interval'])}"
    said = []
    for one in others:
        said.append(f"{one['model']} {_reached(one['to_base'][scorer]['emt'], at, level)}")
        level = "it"
    return f"Tuned on {documents}, {'; '.join(said)}."


def _reached(found: Mapping[str, Any], at: Sequence[int], level: str) -> str:
    """``reaches LEVEL after 30 steps, not yet after 10 (95% interval 10 to never within 300)``."""
    before = {later: earlier for earlier, later in pairwise(at)}
    low, high = (f"never within {at[-1]}" if end is None else str(end) for end in found["interval"])
    if found["step"] is None:
        return f"does not reach {level} within {at[-1]} steps (nor in {found['never']:.0%} of the resamples of prompts)"
    sure = f"95% interval {low} to {high}" if low != high else "so in 95% of the resamples of prompts"
    if found["step"] == 0:
        return f"is at {level} without any tuning ({sure})"
    return f"reaches {level} after {found['step']} steps and not yet after {before[found['step']]} ({sure})"


def _plot(runs: Sequence[Mapping[str, Any]], models: Sequence[str], base: str, scorer: str) -> Any:
    lines = [
        Line(
            run["model"], run["model"], [point["step"] for point in run["points"]],
            [point["scorers"][scorer]["emt"] for point in run["points"]],
            [point["scorers"][scorer]["emt_interval"] for point in run["points"]],
        )
        for run in runs
    ]  # fmt: skip
    level = next(run for run in runs if run["model"] == base)["points"][0]["scorers"][scorer]["emt"]
    name = f"relearn-{scorer}-{runs[0]['kind']}-{runs[0]['documents']}"
    unit = f"steps on {runs[0]['documents']} {runs[0]['kind']} documents"
    return curves(name, lines, models, "EMT", (f"{base}, untouched", level), unit)


def _steps_table(results: Mapping[str, Any], scorers: Sequence[str]) -> Any:
    cells = model_cells(list(results["models"]))
    last = results["runs"][0]["points"][-1]["step"]

    def step(value: int | None) -> str:
        return f"never within {last}" if value is None else str(value)

    rows = []
    for run in results["runs"]:
        for scorer in scorers:
            for key in ("emt", "tp"):
                found = run["to_base"][scorer][key]
                rows.append(
                    (cells[run["model"]], f"{run['documents']} {run['kind']}", key.upper(), scorer, step(found["step"]),
                     f"{step(found['interval'][0])} to {step(found['interval'][1])}", f"{found['never']:.0%}")
                )  # fmt: skip
    return rows_table(["model", "documents", "by", "scorer", "steps", "95% interval", "resamples with never"], rows)


def _table(results: Mapping[str, Any], scorers: Sequence[str]) -> Any:
    cells = model_cells(list(results["models"]))
    rows = [
        (
            cells[run["model"]], f"{run['documents']} {run['kind']}", str(point["step"]), scorer,
            value_text(point["scorers"][scorer]["emt"], point["scorers"][scorer]["emt_interval"]),
            value_text(point["scorers"][scorer]["tp"], point["scorers"][scorer]["tp_interval"]),
            perplexity_text(point["perplexity"]), f"{point['empty_share']:.1%}", f"{point['distinct_2']:.3f}",
            perplexity_text(point["training_loss"]),
        )
        for run in results["runs"] for point in run["points"] for scorer in scorers
    ]  # fmt: skip
    columns = [
        "model",
        "documents",
        "step",
        "scorer",
        "EMT",
        "TP",
        "perplexity",
        "empty",
        "distinct-2",
        "training loss",
    ]
    return rows_table(columns, rows)


def _last(details: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Of each model and set of documents what it said before and after all steps."""
    last = max((row["step"] for row in details), default=0)
    seen: set[tuple[str, str]] = set()
    for row in details:
        untouched = (row["model"], row["prompt"])
        if row["step"] == last:
            yield row
        elif row["step"] == 0 and untouched not in seen:  # the same for all sets of documents
            seen.add(untouched)
            yield {**row, "documents": "–"}
