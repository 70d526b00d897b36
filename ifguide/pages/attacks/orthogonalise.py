"""The page of ``ifguide attack orthogonalise``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ifguide.pages.attacks.plots import Line, curves, whiskers
from ifguide.pages.plots import colours_of
from ifguide.pages.text import listed

_RANDOM = "random"
_MEANINGS = {
    "own": "Mean state of toxic minus mean state of safe completions, in the model itself.",
    "base": "The same of the base.",
    "edit": "Mean state of the model minus that of the base, on toxic completions.",
    "edit-pc": "The first principal component of these differences.",
    "random": "The control: a random direction, taken out in the same ways.",
    "layers": "Each block's own direction is taken out of what the block gives.",
    "layer": "That of one block is taken out there.",
    "weights": "One block's direction is taken out of every matrix and embedding that writes to the residual stream.",
    "moved": "EMT without the direction minus EMT as it is, on the same prompts; its interval resamples prompts, the "
    "same for both.",
    "EMT": "Expected maximum toxicity: the mean over prompts of the highest score among a prompt's continuations.",
}


def orthogonalise_page(results: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> str:
    """The page of ``results.json`` and the lines of ``details.jsonl``."""
    models, scorers = list(results["models"]), [scorer["name"] for scorer in results["scorers"]]
    figures = []
    for scorer in scorers:
        for name in models:
            said = verdict(results, name, scorer) + (f" Judged by {scorer}." if len(scorers) > 1 else "")
            figures.append(Figure(said, _plot(results, models, name, scorer)))
    figures.append(_separation(results, models))
    return attack_page(
        f"Directions taken out: {listed(models)}", results, figures,
        [("All measurements", _table(results, models, scorers))], _MEANINGS,
        said_table(details, ["model", "way", "prompt"]),
    )  # fmt: skip


def verdict(results: Mapping[str, Any], model: str, scorer: str) -> str:
    """What taking directions out of one model does, in sentences."""
    runs = [run for run in results["runs"] if run["model"] == model]
    before = runs[0]["scorers"][scorer]
    changed = [run for run in runs[1:] if run["direction"] != _RANDOM]
    control = [run for run in runs[1:] if run["direction"] == _RANDOM]
    most = max(changed, key=lambda run: run["moved"][scorer]["value"])
    moved = most["moved"][scorer]
    low, high = moved["interval"]
    sure = "it rises" if low > 0 else "it falls even so" if high < 0 else "which is no sure change"
    same = [_moved(run["moved"][scorer]) for run in control if run["remove"] == most["remove"]]
    text = (
        f"{model}'s EMT is {value_text(before['emt'], before['emt_interval'])}. The most that taking a direction out "
        f"adds is {_moved(moved)} ('{most['direction']}', {most['remove']}): {sure}. A random direction there adds "
        f"{listed(same)}."
    )
    if model != results["base"]:
        first = next(run for run in results["runs"] if run["model"] == results["base"])["scorers"][scorer]
        text += f" The base's EMT is {value_text(first['emt'], first['emt_interval'])}."
    return text


def _moved(moved: Mapping[str, Any]) -> str:
    return value_text(moved["value"], moved["interval"], "{:+.3f}")


def _way(run: Mapping[str, Any]) -> str:
    return f"without {run['direction']} ({run['remove']})" if run["remove"] else "as it is"


def _plot(results: Mapping[str, Any], models: Sequence[str], name: str, scorer: str) -> Any:
    colour = dict(zip(models, colours_of(models)))[name]
    rows = {}
    for run in results["runs"]:
        if run["model"] == name:
            found = run["scorers"][scorer]
            rows[f"{name}, {_way(run)}"] = (found["emt"], found["emt_interval"], colour)
    level = next(run for run in results["runs"] if run["model"] == results["base"])["scorers"][scorer]["emt"]
    return whiskers(f"removed-{name}-{scorer}", rows, f"EMT (dotted: {results['base']} as it is)", line=level)


def _separation(results: Mapping[str, Any], models: Sequence[str]) -> Figure:
    lines = []
    best = []
    for name in models:
        values = results["models"][name]["separation"]
        lines.append(Line(name, name, range(1, len(values) + 1), values))
        best.append(f"{name} {max(values):.3g} behind block {values.index(max(values)) + 1}")
    chosen = results["models"][models[0]]["layer"]
    verdict = (
        "Toxic and safe states part most (squared distance of their means over their spread) in "
        f"{listed(best)}. Directions of one layer are those behind block {chosen}."
    )
    return Figure(verdict, curves("separation", lines, models, "separation", unit="block", top=None))


def _table(results: Mapping[str, Any], models: Sequence[str], scorers: Sequence[str]) -> Any:
    cells = model_cells(models)
    rows = []
    for run in results["runs"]:
        for scorer in scorers:
            found = run["scorers"][scorer]
            rows.append(
                (cells[run["model"]], run["direction"], run["remove"] or "–", scorer,
                 value_text(found["emt"], found["emt_interval"]), value_text(found["tp"], found["tp_interval"]),
                 "–" if run["moved"] is None else _moved(run["moved"][scorer]), perplexity_text(run["perplexity"]),
                 f"{run['empty_share']:.1%}", f"{run['distinct_2']:.3f}")
            )  # fmt: skip
    columns = [
        "model",
        "direction",
        "taken out of",
        "scorer",
        "EMT",
        "TP",
        "moved",
        "perplexity",
        "empty",
        "distinct-2",
    ]
    return rows_table(columns, rows)
