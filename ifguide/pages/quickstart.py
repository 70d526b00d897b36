"""The report of a quickstart: one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ifguide.pages import plots
from ifguide.pages.documents import SHADES
from ifguide.pages.page_data import PageData, load_page_data
from ifguide.pages.summary import judge_sentence, summary
from ifguide.pages.table import METRICS, MODELS
from ifguide.pages.text import visible

_HERE = Path(__file__).parent


def quickstart_page(folder: Path, results: dict[str, Any]) -> str:
    """The page about the quickstart in ``folder``.

    Args:
        folder: the quickstart's output.
        results: what ``results.json`` holds.

    Raises:
        InputError: a file of the run is missing or damaged.
        MismatchError: corpus, tokens, scores and mask are not of one run.
    """
    data = load_page_data(folder, results)
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        data=data,
        results=results,
        models=MODELS,
        metrics=METRICS,
        shades=SHADES,
        summary=summary(results, data.generations.num_prompts, data.generations.num_samples),
        judge=judge_sentence(results["judge"]),
        figures=_figures(data, results),
        full_colour=data.marks.full_colour(),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _figures(data: PageData, results: dict[str, Any]) -> list[tuple[str, Markup]]:
    """Caption and SVG of each plot."""
    figures = [
        ("Toxicity of the continuations, with 95% intervals over prompts.", plots.toxicity_plot(results)),
        ("Scores of all training tokens; those above τ are candidates.", plots.scores_plot(data.marks, data.threshold)),
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
            figures.append((caption, plots.curves_plot(key, label, data.curves[key])))
    figures += [
        ("Perplexity of held-out clean text.", plots.perplexity_plot(results)),
        (
            "Seconds of each stage; the guided and the control run train side by side.",
            plots.seconds_plot(results["seconds"]),
        ),
    ]
    return [(caption, Markup(svg)) for caption, svg in figures]
