"""The page of ``ifguide attack prompts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ifguide.pages.attacks.common import (
    Figure,
    attack_page,
    model_cells,
    rows_table,
    said_table,
    share_text,
    value_text,
)
from ifguide.pages.attacks.plots import stacked, whiskers
from ifguide.pages.plots import colours_of
from ifguide.pages.text import listed

_ALL = "all"
# rows of what was said that the page shows, of each model and frame
_SHOWN = 12
_MEANINGS = {
    "success": "Share of prompts with at least one toxic continuation.",
    "toxic": "Share of all continuations that are toxic.",
    "refuses": "A continuation with one of the wordings of a refusal. It knows wordings and no meaning.",
    "harmless refusals": "Of all continuations those that refuse and are not toxic.",
    "otherwise harmless": "Neither toxic, nor a refusal, nor empty.",
    "interval": "95%: Wilson's for shares of prompts, the bootstrap over prompts for shares of continuations and EMT.",
}


def prompts_page(results: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> str:
    """The page of ``results.json`` and the lines of ``details.jsonl``."""
    models, scorers = list(results["models"]), [scorer["name"] for scorer in results["scorers"]]
    figures = [_success(results, models, scorer, len(scorers) > 1) for scorer in scorers]
    figures.append(_answers(results, models, scorers[0]))
    return attack_page(
        f"Adversarial prompts: {listed(models)}", results, figures,
        [("All numbers", _table(results, models, scorers))], _MEANINGS, _said(details, scorers[0]),
    )  # fmt: skip


def _whole(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [group for group in results["groups"] if group["category"] == _ALL]


def _framed(group: Mapping[str, Any], frames: Sequence[str]) -> str:
    return f"{group['model']}, {group['frame']}" if len(frames) > 1 else str(group["model"])


def _success(results: Mapping[str, Any], models: Sequence[str], scorer: str, several: bool) -> Figure:
    frames = list(results["settings"]["frames"])
    colours = dict(zip(models, colours_of(models)))
    said = [f"{_framed(group, frames)} {share_text(group['scorers'][scorer]['success'])}" for group in _whole(results)]
    verdict = f"Share of {results['settings']['prompts']} prompts with a toxic continuation: {listed(said)}."
    against = [one for one in results["against_base"] if one["scorer"] == scorer]
    if against:
        moved = [f"{_framed(one, frames)} {value_text(one['value'], one['interval'], '{:+.3f}')}" for one in against]
        verdict += f" EMT against {results['base']}'s on the same prompts: {listed(moved)}."
    verdict += f" Judged by {scorer}." if several else ""
    rows = {}
    kinds = {group["category"] for group in results["groups"]}
    shown = [group for group in results["groups"] if len(kinds) > 2 or group["category"] == _ALL]
    for group in sorted(shown, key=lambda group: (group["category"] != _ALL, group["category"])):
        found = group["scorers"][scorer]["success"]
        kind = "all prompts" if group["category"] == _ALL else group["category"]
        rows[f"{kind} ({group['prompts']}): {_framed(group, frames)}"] = (
            found["share"], found["interval"], colours[group["model"]]
        )  # fmt: skip
    return Figure(verdict, whiskers(f"success-{scorer}", rows, "share with a toxic continuation"))


def _answers(results: Mapping[str, Any], models: Sequence[str], scorer: str) -> Figure:
    frames = list(results["settings"]["frames"])
    rows, said = {}, []
    for group in _whole(results):
        toxic = group["scorers"][scorer]["toxic"]
        parts = [group[key]["value"] for key in ("harmless_refusals", "empty", "harmless_otherwise")]
        rows[_framed(group, frames)] = [toxic["value"], *parts]
        refused = value_text(group["harmless_refusals"]["value"], group["harmless_refusals"]["interval"], "{:.1%}")
        empty = value_text(group["empty"]["value"], group["empty"]["interval"], "{:.1%}")
        said.append(f"{_framed(group, frames)} refuses harmlessly in {refused} and says nothing in {empty}")
    colours = (("toxic", "planted"), ("harmless refusal", "accent"), ("empty", "base"), ("otherwise harmless", "other"))
    return Figure(f"Of all continuations, {listed(said)}.", stacked("answers", rows, colours, "share of continuations"))


def _table(results: Mapping[str, Any], models: Sequence[str], scorers: Sequence[str]) -> Any:
    cells = model_cells(models)
    rows = []
    for group in results["groups"]:
        for scorer in scorers:
            found = group["scorers"][scorer]
            rows.append(
                (cells[group["model"]], group["frame"], group["category"], str(group["prompts"]), scorer,
                 share_text(found["success"]),
                 *(value_text(one["value"], one["interval"]) for one in (found["emt"], found["toxic"])),
                 *(value_text(group[key]["value"], group[key]["interval"], "{:.1%}")
                   for key in ("refused", "harmless_refusals", "empty")))
            )  # fmt: skip
    columns = ["model", "frame", "kind", "prompts", "scorer", "success", "EMT", "toxic", "refuses", "harmless refusals",
               "empty"]  # fmt: skip
    return rows_table(columns, rows)


def _said(details: Sequence[Mapping[str, Any]], scorer: str) -> Any:
    shown: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(details, key=lambda row: -row["scores"][scorer]):
        shown.setdefault((row["model"], row["frame"]), []).append(row)
    rows = [{**row, "toxicity": row["scores"][scorer]} for some in shown.values() for row in some[:_SHOWN]]
    return said_table(rows, ["model", "frame", "prompt"])
