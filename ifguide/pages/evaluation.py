"""The report of one evaluation: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifguide.pages.compared.verdicts import metric_name
from ifguide.pages.environment import Html, element, heads, join, page, pairs, plotted, said_cell, scrolling, warning
from ifguide.pages.evaluation_plots import dots_plot, groups_of
from ifguide.pages.evaluation_table import cut_texts, interval, number, shown_metrics
from ifguide.pages.text import said
from ifguide.system.progress import counted

_WORST = 12
_BETTER = {True: "higher", False: "lower", None: "–"}
_MEANINGS = {
    "EMT": "Expected maximum toxicity: the mean over prompts of the highest score among a prompt's continuations.",
    "TP": "Toxicity probability: the share of prompts with at least one continuation that scores 0.5 or more.",
    "κ": "Cohen's kappa: how far two judges call the same texts toxic (0.5 or more), beyond what chance gives two "
    "judges that call as many so. 1 is full agreement, 0 is chance. Where they part, the numbers of either rest on it.",
    "distinct-2": "Different word pairs over all word pairs of the continuations: it falls when a model repeats "
    "itself.",
    "95% interval": "Percentile bootstrap over prompts, 10,000 resamples (Wilson's for a share, such as TP): what "
    "other prompts of the same kind might have given. It says nothing of how good the scorer is.",
}


def evaluation_page(
    results: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]], run: str | None = None
) -> str:
    """The page.

    Args:
        results: what ``results.json`` holds.
        rows: the lines of ``samples.jsonl``, by task.
        run: what the page calls the evaluation; else the model's folder names it.
    """
    name = run or Path(results["model"]["path"]).name
    limits = {scorer["name"]: scorer.get("max_tokens") for scorer in results["scorers"]}
    warnings = list(dict.fromkeys(scorer["warning"] for scorer in results["scorers"] if scorer.get("warning")))
    return page(
        f"IF-Guide evaluation of {name}",
        element(
            "main",
            element("h1", f"Evaluation of {name}"),
            warning(
                "Content warning.",
                "Some sections of this page quote what the model says, insults included. They stay closed until you "
                "open them.",
            ),
            [warning("Not a measurement.", f"{line}.") for line in warnings],
            element("p", summary_line(results), class_="summary"),
            element("p", "Model: ", element("small", results["model"]["path"], class_="path"), class_="note"),
            element(
                "details",
                element("summary", "What the numbers mean"),
                element("dl", [[element("dt", key), element("dd", text)] for key, text in _MEANINGS.items()]),
                open="",
                class_="glossary",
            ),
            [
                _task(place, name, task, rows[name], limits)
                for place, (name, task) in enumerate(results["tasks"].items(), start=1)
            ],
            element("h2", "Settings and record"),
            element("div", [pairs(key, values) for key, values in _record(results).items()], class_="columns"),
        ),
        drawn=True,
    )


def summary_line(results: Mapping[str, Any]) -> str:
    """The main numbers of every task in one line: EMT and TP of all prompts by the first scorer that can be relied on,
    else the first metric."""
    parts = []
    doubtful = {scorer["name"] for scorer in results["scorers"] if scorer.get("warning")}
    for name, task in results["tasks"].items():
        metrics = shown_metrics(task)
        judges = [entry["filter"] for entry in metrics]
        judge = next((one for one in judges if one not in doubtful), judges[0] if judges else None)
        main = [entry for entry in metrics if entry["filter"] == judge and entry["metric"] in ("emt", "tp")]
        numbers = [
            f"{metric_name(entry['metric'])} {number(entry['value'])}"
            + (f" {interval(entry['interval'])}" if entry["interval"] else "")
            for entry in main or metrics[:1]
        ]
        if numbers:
            by = f" by {judge}" if task["setting"]["scorers"] else ""
            parts.append(f"{name}: {', '.join(numbers)}{by}")
    return "; ".join(parts) + "." if parts else "No metric has a value."


def _task(
    place: int,
    name: str,
    task: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    limits: Mapping[str, int | None],
) -> Html:
    """One task; ``limits``: the tokens that each scorer reads."""
    metrics = shown_metrics(task)
    pipelines = list(dict.fromkeys(entry["filter"] for entry in metrics))
    plots = [
        (pipeline, plot)
        for pipeline in pipelines
        if (plot := _groups_plot(f"{name}-{pipeline}", [m for m in metrics if m["filter"] == pipeline]))
    ]
    caption = "EMT and TP with 95% intervals{}; in brackets the number of prompts."
    figures = [(caption.format(f", {pipeline}" if len(plots) > 1 else ""), plot) for pipeline, plot in plots]
    return join(
        element("h2", name, id=f"task-{place}"),
        element("p", _sentences(task)),
        [
            element("p", cut_texts(scorer, limits[scorer["name"]]), class_="warning", role="note")
            for scorer in task["setting"]["scorers"]
            if scorer.get("truncated")
        ],
        scrolling(_metrics(task, metrics, len(pipelines) > 1), aria_labelledby=f"task-{place}"),
        plotted(figures) if figures else None,
        _agreement(place, name, task.get("agreement", ()), rows),
        [_worst(name, scorer["name"], rows) for scorer in task["setting"]["scorers"]],
    )


def _sentences(task: Mapping[str, Any]) -> str:
    """How many prompts, which of all, what came of them and who judged."""
    data, texts, setting = task["data"], task["texts"], task["setting"]
    line = f"{data['prompts']:,}" if data["prompts"] < data["available"] else counted(data["prompts"], "prompt")
    if data["prompts"] < data["available"]:
        line += f" of {counted(data['available'], 'prompt')}"
    if task.get("sample") is not None:
        line += f", drawn at random (seed {task['sample']['seed']})"
    if texts:
        empty = f"{texts['empty_share']:.1%} of the continuations are empty, " if texts["empty_share"] else ""
        line += f", {counted(setting['repeats'], 'continuation')} each; {empty}distinct-2 {texts['distinct_2']:.2f}"
    line += "."
    if setting["scorers"]:
        line += f" Judged by {' and '.join(scorer['name'] for scorer in setting['scorers'])}."
    return line


def _metrics(task: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], several: bool) -> Html:
    """One row a metric; ``several``: and who judged it."""
    judge = ("scorer" if task["setting"]["scorers"] else "filter") if several else None
    rows = [
        element(
            "tr",
            element("th", entry["metric"], scope="row"),
            element("td", entry["filter"], class_="spec") if several else None,
            element("td", element("strong", number(entry["value"]))),
            element("td", interval(entry["interval"]), class_="whole"),
            element("td", number(entry["stderr"])),
            element("td", entry["prompts"] or "–"),
            element("td", _BETTER[entry["higher_is_better"]]),
        )
        for entry in metrics
    ]
    columns = ["metric", *([judge] if judge else []), "value", "95% interval", "standard error", "prompts", "better"]
    return element("table", heads(*columns), element("tbody", rows))


def _groups_plot(name: str, metrics: Sequence[Mapping[str, Any]]) -> Html | None:
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


def _worst(name: str, scorer: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    """The worst continuation of each of the worst prompts, behind a click."""
    found = []
    for row in rows:
        score, text = max(zip(row["scores"][scorer], row["continuations"], strict=True))
        found.append((score, text, row["prompt"]))
    found.sort(key=lambda one: -one[0])
    body = [
        element("tr", element("th", prompt, scope="row", dir="auto"), said_cell(text, score))
        for score, text, prompt in found[:_WORST]
    ]
    return element(
        "details",
        element("summary", f"Show the continuations that {scorer} finds worst (abusive text)"),
        scrolling(
            element("table", heads("prompt", "continuation"), element("tbody", body), class_="said"),
            aria_label=f"Worst continuations of {name}",
        ),
        class_="abuse",
    )


def _agreement(
    place: int, name: str, pairs: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Html | None:
    """How far each two judges agree, and behind a click the texts that they part on; nothing for one judge."""
    if not pairs:
        return None
    body = [
        element(
            "tr",
            element("th", pair["first"], scope="row", class_="spec"),
            element("td", pair["second"], class_="spec"),
            element("td", element("strong", "–" if pair["kappa"] is None else f"{pair['kappa']:.2f}")),
            element("td", interval(pair["interval"]), class_="whole"),
            element("td", f"{pair['same']:.1%}"),
            *(element("td", f"{pair[key]:,}") for key in ("both", "first_only", "second_only", "neither")),
        )
        for pair in pairs
    ]
    columns = ["judge", "other judge", "κ", "95% interval", "same verdict", "both toxic", "only the first"]
    table = element("table", heads(*columns, "only the other", "neither"), element("tbody", body))
    told = {row["id"]: row for row in rows}
    return join(
        element("h3", "How far the judges agree", id=f"agreement-{place}"),
        scrolling(table, aria_labelledby=f"agreement-{place}"),
        [_disagreements(name, pair, told) for pair in pairs if pair["disagreements"]],
    )


def _disagreements(name: str, pair: Mapping[str, Any], rows: Mapping[Any, Mapping[str, Any]]) -> Html:
    """The texts that two judges part on most, behind a click."""
    body = []
    for one in pair["disagreements"]:
        row = rows[one["id"]]
        text = row["continuations"][one["text"]]
        body.append(
            element(
                "tr",
                element("th", row["prompt"], scope="row", dir="auto"),
                said_cell(text, one["scores"][0]),
                element("td", element("b", f"{one['scores'][1]:.2f}")),
            )
        )
    return element(
        "details",
        element("summary", f"Show where {pair['first']} and {pair['second']} part most (abusive text)"),
        scrolling(
            element(
                "table",
                heads("prompt", f"continuation, after the score of {pair['first']}", f"score of {pair['second']}"),
                element("tbody", body),
                class_="said",
            ),
            aria_label=f"Disagreements of {pair['first']} and {pair['second']} in {name}",
        ),
        class_="abuse",
    )


def _record(results: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What was run with what, as small tables."""
    settings = {**results["settings"], **{key: results["model"][key] for key in ("dtype", "seed", "rad")}}
    tables = {
        "Model": {"folder": results["model"]["path"], "hash": results["model"]["identity"][:16]},
        "Settings": {key: said(value) for key, value in settings.items()},
    }
    for scorer in results["scorers"]:
        tables[f"Scorer {scorer['name']}"] = {key: said(value) for key, value in scorer.items() if key != "name"}
    for name, task in results["tasks"].items():
        tables[f"Task {name}"] = {
            **{key: said(value) for key, value in task["setting"].items() if key != "scorers"},
            "prompts": f"{task['data']['prompts']} of {task['data']['available']}",
            "data": said(task["data"]["source"]),
            "hash of the prompts": task["data"]["hash"][:16],
        }
    tables["Versions"] = dict(results["versions"])
    tables["Run"] = {
        "started": results["started"],
        "seconds": f"{results['seconds']:.1f}",
        "machine": f"{results['machine']['processor']}, {results['machine']['cores']} cores",
        "revision": said(results["revision"]),
        "command": " ".join(results["command"]),
    }
    return tables
