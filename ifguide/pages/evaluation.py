"""The report of one evaluation: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ifguide.pages.evaluation_plots import dots_plot, groups_of
from ifguide.pages.evaluation_table import cut_texts, number, shown_metrics
from ifguide.pages.text import visible

_HERE = Path(__file__).parent
_WORST = 12
_SHADES = 10


@dataclass(frozen=True)
class Worst:
    """One of the continuations that a scorer finds most toxic."""

    prompt: str
    text: str
    score: float

    @property
    def shade(self) -> int:
        return round(_SHADES * self.score)


def evaluation_page(results: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The page.

    Args:
        results: what ``results.json`` holds.
        rows: the lines of ``samples.jsonl``, by task.
    """
    return (
        environment()
        .get_template("evaluation.html.j2")
        .render(
            results=results,
            name=Path(results["model"]["path"]).name,
            tasks={
                name: _task(name, task, rows[name], {one["name"]: one.get("max_tokens") for one in results["scorers"]})
                for name, task in results["tasks"].items()
            },
            record=_record(results),
            warnings=list(dict.fromkeys(s["warning"] for s in results["scorers"] if s.get("warning"))),
            style=style(),
            shades=_SHADES,
        )
    )


def environment() -> Environment:
    """Templates of this folder, with everything escaped that is not marked as safe."""
    made = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["visible"] = visible
    made.filters["number"] = number
    return made


def style() -> Markup:
    """The pages' style sheet, shades of red included."""
    shades = "".join(
        f".p{shade} {{ background: rgb(var(--hot) / {0.75 * shade / _SHADES:.3f}); }}\n"
        for shade in range(1, _SHADES + 1)
    )
    return Markup((_HERE / "page.css").read_text(encoding="utf-8") + shades + ".figures { margin-top: 1.25rem; }\n")


def _task(
    name: str, task: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], limits: Mapping[str, int | None]
) -> dict[str, Any]:
    metrics = shown_metrics(task)
    pipelines = list(dict.fromkeys(entry["filter"] for entry in metrics))
    return {
        **task,
        "sampled": task.get("sample"),
        "metrics": metrics,
        "pipelines": pipelines,
        "cut": [
            cut_texts(scorer, limits[scorer["name"]])
            for scorer in task["setting"]["scorers"]
            if scorer.get("truncated")
        ],
        "figures": [
            (pipeline, figure)
            for pipeline in pipelines
            if (figure := _groups_plot(f"{name}-{pipeline}", [m for m in metrics if m["filter"] == pipeline]))
        ],
        "worst": {scorer["name"]: _worst(rows, scorer["name"]) for scorer in task["setting"]["scorers"]},
    }


def _groups_plot(name: str, metrics: Sequence[Mapping[str, Any]]) -> Markup | None:
    """EMT and TP of each group of prompts; nothing for a task without these metrics."""
    groups = groups_of([entry for entry in metrics if entry["interval"]])
    if not groups:
        return None
    lines = {
        f"{group} ({next(iter(entries.values()))['prompts']})": [
            (entries[key]["value"], entries[key]["interval"]) if key in entries else None for key in ("emt", "tp")
        ]
        for group, entries in groups.items()
    }
    return dots_plot(name, lines, (("EMT", "other"), ("TP", "accent")))


def _worst(rows: Sequence[Mapping[str, Any]], scorer: str) -> list[Worst]:
    """The worst continuation of each of the worst prompts."""
    found = []
    for row in rows:
        score, text = max(zip(row["scores"][scorer], row["continuations"], strict=True))
        found.append(Worst(row["prompt"], text, score))
    return sorted(found, key=lambda worst: -worst.score)[:_WORST]


def _record(results: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What was run with what, as small tables."""
    settings = {**results["settings"], **{key: results["model"][key] for key in ("dtype", "seed", "rad")}}
    tables = {
        "Model": {"folder": results["model"]["path"], "hash": results["model"]["identity"][:16]},
        "Settings": {key: _said(value) for key, value in settings.items()},
    }
    for scorer in results["scorers"]:
        tables[f"Scorer {scorer['name']}"] = {key: _said(value) for key, value in scorer.items() if key != "name"}
    for name, task in results["tasks"].items():
        tables[f"Task {name}"] = {
            **{key: _said(value) for key, value in task["setting"].items() if key != "scorers"},
            "prompts": f"{task['data']['prompts']} of {task['data']['available']}",
            "data": _said(task["data"]["source"]),
            "hash of the prompts": task["data"]["hash"][:16],
        }
    tables["Versions"] = dict(results["versions"])
    tables["Run"] = {
        "started": results["started"],
        "seconds": f"{results['seconds']:.1f}",
        "machine": f"{results['machine']['processor']}, {results['machine']['cores']} cores",
        "revision": _said(results["revision"]),
        "command": " ".join(results["command"]),
    }
    return tables


def _said(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(item)}" for key, item in value.items())
    return ", ".join(map(_said, value)) if isinstance(value, list) else str(value)
