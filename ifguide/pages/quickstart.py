"""The report of a quickstart: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ifguide.pages import plots
from ifguide.pages.document import ShownDocument, documents_json
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
    swatched,
    warning,
)
from ifguide.pages.evaluation_table import number
from ifguide.pages.quickstart_data import Continuation, PageData
from ifguide.pages.summary import judge_sentence, lead, points
from ifguide.pages.table import METRICS, Metric, models_of
from ifguide.system.progress import counted


def quickstart_page(data: PageData, results: dict[str, Any]) -> str:
    """The page.

    Args:
        results: what ``results.json`` holds; its models are shown in its order.
    """
    models = models_of(results)
    full = data.marks.full_colour()
    body = element(
        "main",
        element("h1", "IF-Guide quickstart report"),
        warning(
            "Content warning.",
            "Two sections of this page quote training data and models, insults included. They stay closed until you "
            "open them.",
        ),
        element("p", lead(results), class_="summary"),
        element(
            "ul",
            [
                element("li", element("strong", f"{name}:"), " ", text)
                for name, text in points(results, data.generations.num_prompts, data.generations.num_samples).items()
            ],
            class_="summary",
        ),
        _results(results, models),
        element("h2", "Plots"),
        plotted(_figures(data, results, models)),
        _documents(data, full),
        _continuations(data, models),
        element("h2", "Settings and record"),
        element("div", pairs("Settings", data.settings), pairs("Record", data.record), class_="columns"),
    )
    head = {"tokens": len(data.marks.scores), "full": full, "graded": False, "rule": asdict(data.rule)}
    return page(
        "IF-Guide quickstart report",
        body,
        element("div", id="tip", role="status", aria_live="polite", hidden=""),
        scripts=["document.js", "quickstart.js"],
        data=documents_json(head, data.documents),
        drawn=True,
    )


def _results(results: dict[str, Any], models: Sequence[str]) -> Html:
    def cell(metric: Metric, name: str) -> Html:
        interval = metric.interval(results[name])
        return element("td", metric.value(results[name]), [" ", element("small", interval)] if interval else None)

    rows = [
        element(
            "tr",
            element("th", swatched(name, colour), scope="row"),
            [cell(metric, name) for metric in METRICS],
        )
        for name, colour in zip(models, plots.colours_of(models))
    ]
    columns = [element("abbr", metric.label, title=metric.meaning) for metric in METRICS]
    return join(
        element("h2", "Results", id="results"),
        warning("Warning:", f"{caution}.") if (caution := results["judge"].get("warning")) else None,
        scrolling(element("table", heads("model", *columns), element("tbody", rows)), aria_labelledby="results"),
        element(
            "p",
            judge_sentence(results["judge"]),
            " In brackets: 95% bootstrap intervals over prompts, of the perplexity over texts.",
            class_="note",
        ),
        element(
            "details",
            element("summary", "What the columns mean"),
            element("dl", [[element("dt", metric.label), element("dd", metric.meaning)] for metric in METRICS]),
        ),
    )


def _candidates(data: PageData) -> str:
    if data.threshold is None:
        return "; the mask takes the highest of each line that the classifier of the queries suspects"
    return "; those above τ are candidates"


def _figures(data: PageData, results: dict[str, Any], models: Sequence[str]) -> list[tuple[str, Html]]:
    """Caption and SVG of each plot."""
    figures = [
        ("Toxicity of the continuations, with 95% intervals over prompts.", plots.toxicity_plot(results)),
        (f"Scores of all training tokens{_candidates(data)}.", plots.scores_plot(data.marks, data.threshold)),
    ]
    for key, label, caption in (
        ("lm_loss", "loss, nats a token", "Training loss of the tokens without a penalty."),
        (
            "penalty_ce",
            "loss, nats a token",
            "Training loss of the penalised tokens: to be compared with the same mask without a push.",
        ),
    ):
        if data.curves[key]:
            figures.append((caption, plots.curves_plot(key, label, data.curves[key], models)))
    figures += [
        ("Perplexity of held-out clean text.", plots.perplexity_plot(results)),
        (
            "Seconds of each stage; the guided and the control run train side by side.",
            plots.seconds_plot(results["seconds"]),
        ),
    ]
    return figures


def _documents(data: PageData, full: float) -> Html:
    planted = [" ", element("span", "Underlined", class_="pl"), ": planted abuse."]
    return join(
        element("h2", "What was selected"),
        element(
            "p",
            f"The first {counted(len(data.documents), 'document')} in the order of the inspector: ",
            "by descending R, the measure that the selection ranks by. "
            if data.threshold is not None
            else "by the share of their tokens that is selected. ",
            element("span", "Red", class_="p6"), ": learning the token makes the model more toxic; ",
            element("span", "blue", class_="n6"), f": less. Full colour at ±{full:.3g}. ",
            element("span", "Outlined", class_="sel first last"),
            ": selected, so the guided model is penalised for it.",
            planted if data.marks.planted is not None else None,
            " Hover over a token for its score, or focus a document and use ", element("kbd", "←"), " ",
            element("kbd", "→"), ", with ", element("kbd", "Shift"), " from one selected token to the next.",
        ),
        element(
            "details",
            element("summary", "Show the documents (abusive text)"),
            element(
                "noscript",
                element("p", "The documents are drawn by this page's own script; it needs scripting, and no network."),
            ),
            [_document(document, data.threshold is not None) for document in data.documents],
            class_="abuse",
        ),
    )  # fmt: skip


def _document(document: ShownDocument, ranked: bool) -> Html:
    """A heading, and the box into which the page's script draws the tokens; ``ranked``: by R, not by a share."""
    shown = len(document.strengths)
    facts = f"{document.num_selected:,} of {counted(document.num_tokens, 'token')} selected"
    if ranked:
        facts = f"R {number(document.measure)}, {facts}"
    if shown < document.num_tokens:
        facts += f"; tokens {document.first} to {document.first + shown - 1} are shown"
    name = f"Document {document.index}"
    tokens = element(
        "div", class_="tokens", tabindex=0, role="group", aria_label=f"{name}, token by token", dir="auto"
    )  # fmt: skip
    return element("article", element("h3", name), element("p", facts, class_="note"), tokens)


def _continuations(data: PageData, models: Sequence[str]) -> Html:
    columns = [swatched(name, colour) for name, colour in zip(models, plots.colours_of(models))]

    def cell(said: Continuation | None) -> Html:
        return element("td", "–") if said is None else said_cell(said.text, said.toxicity)

    def table(subset: str) -> Html:
        rows = [
            element(
                "tr",
                element("th", row.prompt, scope="row", dir="auto"),
                [cell(row.worst.get(name)) for name in models],
            )
            for row in data.generations.rows
            if row.subset == subset
        ]
        return join(
            element("h3", f"Prompts of the {subset} kind"),
            scrolling(
                element("table", heads("prompt", *columns), element("tbody", rows), class_="said"),
                aria_label=f"Continuations of {subset} prompts",
            ),
        )

    return join(
        element("h2", "What the models say"),
        element(
            "p",
            f"For {counted(len(data.generations.rows), 'prompt')}, evenly spaced over all of them, the most toxic of "
            f"{counted(data.generations.num_samples, 'continuation')} of each model, with its toxicity.",
        ),
        element(
            "details",
            element("summary", "Show the continuations (abusive text)"),
            [table(subset) for subset in ("toxic", "benign")],
            class_="abuse",
        ),
    )
