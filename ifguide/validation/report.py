"""The results as a table for the terminal and as one HTML page with a scatter or a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ifguide.validation.options import LDS, TAIL_PATCH, TOPK

Results = Mapping[str, Any]

_TITLES = {
    LDS: "Does the sum of the scores order what leaving tokens out does?",
    TAIL_PATCH: "Does the sum of the scores order what one more step on the tokens does?",
    TOPK: "How far does the margin fall without the highest-ranked tokens?",
}


def report_page(results: Results) -> str:
    """The page of what ``results.json`` holds."""
    from ifguide.pages.environment import element, page, pairs, plotted, scrolling, warning

    header, *rows = _cells(results)
    figures = [_curve(results)] if results["method"] == TOPK else _scatters(results)
    return page(
        f"IF-Guide {results['method']}",
        element(
            "main",
            element("h1", _TITLES[results["method"]]),
            warning("Mind.", f"{results['warning']}.") if results.get("warning") else None,
            [element("p", line) for line in sentences(results)],
            scrolling(_table(header, rows), aria_label="Results"),
            plotted(figures),
            pairs("What was validated", _facts(results)),
        ),
        drawn=True,
    )


def results_table(results: Results) -> str:
    """The results for a terminal."""
    rows = _cells(results)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*lines, "", *sentences(results)])


def sentences(results: Results) -> list[str]:
    """What the numbers mean, and how far they can be trusted."""
    if results["method"] == TOPK:
        return [
            "Change of the margin M = mean l(toxic) - mean l(safe), in nats, when these tokens leave the loss; the "
            "more it falls, the better a ranking knows which tokens teach. In brackets the 95 % interval over queries.",
            *_of_repeating(results),
        ]
    low, high = results["chance"]
    said = [
        f"Spearman over {results['subsets']} subsets of {results['fraction']:.2%} of the tokens; in brackets the 95 % "
        f"interval over subsets. Scores that know nothing fall between {low:+.2f} and {high:+.2f}.",
    ]
    if ceiling := results["ceiling"]:
        said.append(
            f"Two seeds of training agree with {ceiling['reliability']:.2f}, so perfect scores would reach about "
            f"{ceiling['mean_of_seeds']:.2f} (one seed: {ceiling['one_seed']:.2f})."
        )
    elif results["method"] == LDS:
        said.append("Trained with one seed: how much of the change is noise is not known (--training-seeds).")
    else:
        said.append(
            f"Learning rate {results['learning_rate']:.3g}; a step of zero gradient changes the margin by "
            f"{results['idle']:+.3g}, which is taken off."
        )
    return [*said, *_of_repeating(results)]


def _of_repeating(results: Results) -> list[str]:
    """Whether the run, trained again, is the run."""
    repeats = results.get("repeats")
    if repeats is None:
        return []
    if repeats["exactly"]:
        return ["Trained again with nothing left out, the run gives its own model, bit for bit in every likelihood."]
    return [
        f"Trained again with nothing left out, the run's margin differs by {repeats['difference']:+.3g}: retrainings "
        "are compared with each other alone."
    ]


def _cells(results: Results) -> list[list[str]]:
    """The table: a header and a row a ranking."""
    if results["method"] == TOPK:
        rows = [["ranking", "share left out", "tokens", "change of M", "toxic", "safe"]]
        for name, points in results["rankings"].items():
            for point in points:
                low, high = np.mean(point["intervals"], axis=0)
                rows.append(
                    [
                        name, f"{point['share']:.2%}", f"{point['tokens']:,}",
                        f"{point['change']:+.3f} [{low:+.3f}, {high:+.3f}]",
                        f"{point['change_toxic']:+.3f}", f"{point['change_safe']:+.3f}",
                    ]
                )  # fmt: skip
        return rows
    first = next(iter(results["rankings"]))
    rows = [["ranking", "rho", "95 % interval", f"{first} minus this", "95 % interval", "by seed"]]
    for name, found in results["rankings"].items():
        lead = found.get("first_minus_this")
        rows.append(
            [
                name,
                f"{found['rho']:+.3f}",
                _interval(found["interval"]),
                f"{lead['rho']:+.3f}" if lead else "",
                _interval(lead["interval"]) if lead else "",
                " ".join(f"{rho:+.2f}" for rho in found["rho_by_seed"]),
            ]
        )
    return rows


def _interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:+.3f}, {bounds[1]:+.3f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from ifguide.pages.environment import element, heads

    body = [element("tr", element("th", row[0], scope="row"), [element("td", one) for one in row[1:]]) for row in rows]
    return element("table", heads(*header), element("tbody", body))


def _scatters(results: Results) -> list[tuple[str, Any]]:
    """A plot a ranking: what its sums said against what happened."""
    from ifguide.pages.plots import COLOURS, svg

    actual = np.array(results["changes"]).mean(axis=0)
    said = "Σ s over the subset" if results["method"] == TAIL_PATCH else "-Σ s over the subset"
    figures = []
    for name, found in results["rankings"].items():
        predicted = np.array(found["prediction"])

        def draw(axes: Any, predicted: Any = predicted) -> None:
            axes.plot(predicted, actual, "o", markersize=5, color=COLOURS["base"])
            axes.set_xlabel(said)
            axes.set_ylabel("change of M, nats")

        caption = f"{name}: ρ = {found['rho']:+.3f} {_interval(found['interval'])}"
        figures.append((caption, svg(f"scatter-{name}", draw, 4.6, 3.4)))
    return figures


def _curve(results: Results) -> tuple[str, Any]:
    """The change of the margin against the share left out, a line a ranking, a dot a mask."""
    from ifguide.pages.plots import COLOURS, SERIES, plain, svg

    def draw(axes: Any) -> None:
        for number, (name, points) in enumerate(results["rankings"].items()):
            shares = [100 * point["share"] for point in points]
            values = np.array([point["change"] for point in points])
            bounds = np.array([np.mean(point["intervals"], axis=0) for point in points]).T
            axes.errorbar(
                shares, values, yerr=np.maximum([values - bounds[0], bounds[1] - values], 0), fmt="o-", capsize=3,
                markersize=5, color=COLOURS[SERIES[number % len(SERIES)]], label=plain(name),
            )  # fmt: skip
        axes.set_xlabel("tokens left out of the loss, % of all")
        axes.set_ylabel("change of M, nats")
        axes.legend()

    return "Change of the margin without the highest-ranked tokens, with 95 % intervals over queries.", svg(
        "curve", draw, 6.4, 3.8
    )


def _facts(results: Results) -> dict[str, str]:
    facts = {
        "scores": str(results["scores"]),
        "run": str(results["run"]),
        "training tokens": f"{results['tokens']:,}, each read {results['epochs']:.2f} times",
        "queries": f"{results['queries']['toxic']} toxic, {results['queries']['safe']} safe",
    }
    facts |= {f"scores of {name}": path for name, path in results["paths"].items() if path != results["scores"]}
    if "training_seeds" in results:
        facts["seeds of training"] = ", ".join(map(str, results["training_seeds"]))
    if "seconds" in results:
        facts["seconds of all trainings"] = f"{results['seconds']:.0f}"
    return facts
