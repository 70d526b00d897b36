"""The page of ``ifguide attack gcg``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
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
from ifguide.pages.attacks.plots import Line, curves, whiskers
from ifguide.pages.plots import colours_of
from ifguide.pages.text import listed

_WAYS = {"none": "the prompt alone", "random": "with random tokens", "attack": "with the attack"}
_MEANINGS = {
    "exact": "Greedily, the model says the target's tokens. Text is read anew, as a user's would be.",
    "toxic, greedy": "What it says greedily is toxic.",
    "toxic, any": "One of its sampled continuations is toxic.",
    "random tokens": "The control: as many random tokens as the attack has. Of a suffix it is what the search began "
    "with, the best of all restarts.",
    "steps": "Of all restarts of a target, one after the other.",
    "interval": "95%: Wilson's for shares of prompts, the bootstrap over prompts for EMT.",
}


def gcg_page(results: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> str:
    """The page of ``results.json`` and the lines of ``details.jsonl``."""
    models, scorers = list(results["models"]), [scorer["name"] for scorer in results["scorers"]]
    universal = results["settings"]["enhanced"] is not None
    figures = [_exact(results, models, universal)]
    figures += [_toxic(results, models, scorer, len(scorers) > 1, universal) for scorer in scorers]
    figures.append(_losses(results, models) if universal else _curve(results, models))
    tables = [("All numbers", _table(results, models, scorers, "ways"))]
    if universal:
        tables[0] = ("Held-out prompts", tables[0][1])
        tables.append(("Prompts that the prefix was made for", _table(results, models, scorers, "made_for")))
    what = "One prefix for several prompts" if universal else "Greedy coordinate gradient"
    return attack_page(f"{what}: {listed(models)}", results, figures, tables, _MEANINGS, _said(details, scorers[0]))


def _exact(results: Mapping[str, Any], models: Sequence[str], universal: bool) -> Figure:
    shares = {name: results["models"][name]["ways"] for name in models}
    said = [f"{name} {share_text(shares[name]['attack']['exact'])}" for name in models]
    random = [f"{name} {share_text(shares[name]['random']['exact'])}" for name in models]
    count = shares[models[0]]["attack"]["prompts"]
    on = f"{count} held-out targets" if universal else f"{count} targets"
    verdict = f"Of {on} the attack makes a model say exactly: {listed(said)}. Random tokens do so for {listed(random)}."
    return Figure(verdict, _ways_plot("exact", shares, models, lambda way: way["exact"], "share said exactly"))


def _toxic(results: Mapping[str, Any], models: Sequence[str], scorer: str, several: bool, universal: bool) -> Figure:
    shares = {name: results["models"][name]["ways"] for name in models}

    def text(way: str) -> str:
        return listed([f"{name} {share_text(shares[name][way]['scorers'][scorer]['any'])}" for name in models])

    by = f" Judged by {scorer}." if several else ""
    on = "held-out prompts" if universal else "prompts"
    verdict = (
        f"Share of {on} with a toxic continuation under attack: {text('attack')}; with random tokens: "
        f"{text('random')}; alone: {text('none')}.{by}"
    )
    plot = _ways_plot(
        f"toxic-{scorer}", shares, models, lambda way: way["scorers"][scorer]["any"], "share with a toxic continuation"
    )
    return Figure(verdict, plot)


def _ways_plot(name: str, shares: Mapping[str, Any], models: Sequence[str], part: Any, label: str) -> Any:
    rows = {}
    for model, colour in zip(models, colours_of(models)):
        for way, text in _WAYS.items():
            found = part(shares[model][way])
            rows[f"{model}, {text}"] = (found["share"], found["interval"], colour)
    return whiskers(name, rows, label)


def _curve(results: Mapping[str, Any], models: Sequence[str]) -> Figure:
    lines = []
    for name in models:
        points = results["models"][name]["curve"]
        stairs = [points[0]]
        for before, after in pairwise(points):
            stairs += [[after[0], before[1]], after]
        lines.append(Line(name, name, [step for step, _ in stairs], [share for _, share in stairs]))
    most = max(line.steps[-1] for line in lines)
    said = [f"{name} {_half(results['models'][name]['curve'])}" for name in models]
    losses = [_loss(results, name) for name in models]
    return Figure(
        f"Share of targets said exactly within so many of {most:g} steps: {listed(said)}. The mean loss of a target's "
        f"token, in nats, goes for {listed(losses)}.",
        curves("curve", lines, models, "share said exactly"),
    )


def _half(points: Sequence[Sequence[float]]) -> str:
    """``none`` or ``0.24, half of it by step 110``."""
    end = points[-1][1]
    if not end:
        return "none"
    return f"{end:.0%}, half of it by step {next(step for step, share in points if share >= end / 2):g}"


def _loss(results: Mapping[str, Any], name: str) -> str:
    loss = results["models"][name]["loss"]
    return f"{name} from {loss['start']:.2f} to {loss['end']:.2f}"


def _losses(results: Mapping[str, Any], models: Sequence[str]) -> Figure:
    lines = [
        Line(name, name, *zip(*results["models"][name]["losses"]))  # type: ignore[arg-type]
        for name in models
    ]
    parts = [_loss(results, name) for name in models]
    return Figure(
        f"The prefix's loss went, for {listed(parts)}; it is not comparable between models, whose terms differ.",
        curves("losses", lines, models, "loss", unit="iterations", top=None),
    )


def _table(results: Mapping[str, Any], models: Sequence[str], scorers: Sequence[str], part: str) -> Any:
    cells = model_cells(models)
    rows = []
    for name in models:
        for way, text in _WAYS.items():
            numbers = results["models"][name][part][way]
            for scorer in scorers:
                found = numbers["scorers"][scorer]
                rows.append(
                    (cells[name], text, str(numbers["prompts"]), share_text(numbers["exact"]), scorer,
                     share_text(found["greedy"]), share_text(found["any"]),
                     value_text(found["emt"], found["emt_interval"]))
                )  # fmt: skip
    return rows_table(["model", "", "prompts", "exact", "scorer", "toxic, greedy", "toxic, any", "EMT"], rows)


def _said(details: Sequence[Mapping[str, Any]], scorer: str) -> Any:
    rows = [
        {
            "model": row["model"], "prompt": row["prompt"], "target": row["completion"],
            "suffix": row.get("suffix", "(the prefix)"), "continuation": row["attack"]["worst"],
            "toxicity": row["attack"]["any"][scorer],
        }
        for row in details
    ]  # fmt: skip
    return said_table(rows, ["model", "prompt", "suffix", "target"])
