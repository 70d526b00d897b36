"""What masks select: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ifguide.pages.environment import (
    Html,
    colours_of,
    element,
    heads,
    join,
    page,
    pairs,
    plotted,
    scrolling,
    swatched,
    warning,
)
from ifguide.pages.evaluation_table import number
from ifguide.pages.masks.bars import Series, bars
from ifguide.pages.text import unlike_names, visible
from ifguide.system.progress import counted

_SHARES = ["0", *(f"≤{high}" for high in range(10, 101, 10))]
_TENTHS = [f"{low}-{low + 10}" for low in range(0, 100, 10)]

Mask = Mapping[str, Any]


def mask_stats_page(result: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """The page.

    Args:
        result: as `ifguide.inspection.mask_stats.as_dict` makes it.
        notes: lines on what else was counted, as a terminal shows them.
    """
    masks = result["masks"]
    names = unlike_names([mask["mask"] for mask in masks])
    colours = colours_of(names)
    quotes = any(mask["top_tokens"] or mask["top_phrases"] for mask in masks)
    return page(
        "IF-Guide mask statistics",
        element(
            "main",
            element("h1", "What the mask selects" if len(masks) == 1 else "What the masks select"),
            warning(
                "Content warning.",
                "Some sections of this page quote training text that a mask marks as harmful. They stay closed until "
                "you open them.",
            )
            if quotes
            else None,
            [_summary(mask, name, colour) for mask, name, colour in zip(masks, names, colours)],
            _plots(masks, names, colours) if masks else None,
            _overlaps(result["overlaps"], dict(zip((mask["mask"] for mask in masks), names))),
            [_most_selected(place, mask, name) for place, (mask, name) in enumerate(zip(masks, names), start=1)],
            join(element("h2", "Further counts"), element("pre", "\n".join(notes))) if notes else None,
            element("h2", "Masks"),
            element(
                "div", [pairs(name, _facts(mask)) for name, mask in zip(names, masks, strict=True)], class_="columns"
            ),
        ),
    )


def _summary(mask: Mask, name: str, colour: str) -> Html:
    quantiles = mask["share_quantiles"]
    said = (
        f": {mask['selected']:,} of {counted(mask['tokens'], 'token')} selected ({mask['fraction']:.2%}), in "
        f"{mask['documents_with_selection']:,} of {counted(mask['documents'], 'document')}."
    )
    if quantiles:
        said += f" Half of these have {quantiles['0.5']:.1%} or more of their tokens selected."
    if mask["scores"]:
        said += (
            f" The mean score of the selected tokens is {number(mask['scores']['selected_mean'])}, of the others "
            f"{number(mask['scores']['other_mean'])}."
        )
    return element("p", element("strong", swatched(name, colour)), said, class_="summary")


def _plots(masks: Sequence[Mask], names: Sequence[str], colours: Sequence[str]) -> Html:
    def series(values: Sequence[Sequence[float]]) -> list[Series]:
        return [Series(*one) for one in zip(names, colours, values, strict=True)]

    shares = bars(
        "Documents by the share of their tokens that is selected", _SHARES,
        series([mask["share_histogram"] for mask in masks]), "share of a document that is selected, %", "documents",
        lambda value: f"{value:,.0f}", logarithmic=True,
    )  # fmt: skip
    places = bars(
        "Share of the tokens that is selected, by their place in the document", _TENTHS,
        series([mask["position"]["share"] for mask in masks]), "place in a document, % of its length",
        "tokens selected there", lambda value: f"{100 * value:.3g}%",
    )  # fmt: skip
    legend = element(
        "p", [element("span", swatched(*model)) for model in zip(names, colours)], class_="legend"
    ) if len(names) > 1 else None  # fmt: skip
    return join(
        element("h2", "Where"),
        legend,
        plotted(
            [
                ("How much of a document is selected (documents on a logarithmic scale).", shares),
                ("Where in a document the selected tokens stand.", places),
            ]
        ),
    )


def _overlaps(overlaps: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Html | None:
    if not overlaps:
        return None

    def measure(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    rows = [
        element(
            "tr",
            element(
                "th",
                element("div", f"{names[pair['first']]} and {names[pair['second']]}", class_="name"),
                scope="row",
            ),
            element("td", f"{pair['both']:,}"),
            [element("td", measure(pair[key])) for key in ("jaccard", "of_first", "of_second", "phi")],
        )
        for pair in overlaps
    ]
    columns = ("masks", "tokens in both", "Jaccard", "share of the first", "share of the second", "phi")
    return join(
        element("h2", "Overlap", id="overlap"),
        element(
            "p",
            "Jaccard: tokens in both, of those in either. Phi: the correlation of the two masks as 0/1 variables.",
            class_="note",
        ),
        scrolling(element("table", heads(*columns), element("tbody", rows)), aria_labelledby="overlap"),
    )


def _most_selected(place: int, mask: Mask, name: str) -> Html | None:
    tokens, phrases = mask["top_tokens"], mask["top_phrases"]
    if not tokens and not phrases:
        return None
    most = max((row["selected"] for row in tokens), default=1)
    token_rows = [
        element(
            "tr",
            element("th", _quoted(row), scope="row", class_="token"),
            element("td", element("meter", value=row["selected"], max=most, aria_hidden="true")),
            element("td", f"{row['selected']:,}"),
            element("td", f"{row['selected'] / row['count']:.0%}"),
        )
        for row in tokens
    ]
    phrase_rows = [
        element("tr", element("th", _quoted(row), scope="row", class_="token"), element("td", f"{row['count']:,}"))
        for row in phrases
    ]
    missed = mask["phrase_counts_missed"]
    return join(
        element("h2", f"Selected most by {name}"),
        element(
            "details",
            element("summary", f"Show the tokens and phrases that {name} selects most (abusive text)"),
            element(
                "div",
                scrolling(
                    element(
                        "table",
                        element("caption", "Tokens (% = share of its occurrences)"),
                        heads("token", "", "selected", "%"),
                        element("tbody", token_rows),
                    ),
                    aria_label=f"Tokens {place}",
                ),
                scrolling(
                    element(
                        "table",
                        element("caption", "Phrases: whole runs of selected tokens"),
                        heads("phrase", "times"),
                        element("tbody", phrase_rows),
                    ),
                    aria_label=f"Phrases {place}",
                ),
                class_="columns",
            ),
            element("p", f"Counts of phrases may be too small by {missed:,}.", class_="note") if missed else None,
            class_="abuse",
        ),
    )


def _quoted(row: Mapping[str, Any]) -> str:
    if row["text"] is None:
        return str(row.get("ids") or row["id"])
    return f"“{visible(row['text'])}”".replace("\n", "⏎").replace("\t", "⇥")


def _facts(mask: Mask) -> dict[str, str]:
    facts = {"files": mask["mask"], "tokens": f"{mask['tokens']:,}", "selected": f"{mask['selected']:,}"}
    if mask["selected"]:
        facts["mean strength of the selected"] = number(mask["mean_strength"])
    for quantile, value in mask["share_quantiles"].items():
        facts[f"quantile {quantile} of the selected share of documents with any"] = f"{value:.2%}"
    return facts
