"""The plots: well-formed, coloured by the page alone, and drawn to the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from ifguide.pages import plots
from ifguide.pages.quickstart_data import Curve, TokenMarks


@pytest.fixture
def drawn(make_results: Callable) -> dict[str, str]:
    results = make_results(True)
    scores = np.random.default_rng(0).normal(size=500)
    curves = {"base": Curve([1, 2], [3.0, 2.0]), "control": Curve([1, 2], [3.0, 2.5])}
    return {
        "toxicity": plots.toxicity_plot(results),
        "perplexity": plots.perplexity_plot(results),
        "seconds": plots.seconds_plot(results["seconds"]),
        "scores": plots.scores_plot(TokenMarks(scores, scores > 1, scores > 1.5), 1.0),
        "curves": plots.curves_plot("lm_loss", "loss", curves, ["base", "guided", "control"]),
    }


def test_well_formed_with_unique_ids(drawn: dict[str, str], parse: type) -> None:
    page = parse("".join(drawn.values()))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert ids and len(ids) == len(set(ids))
    targets = {attributes["href"] for _, attributes in page.elements if "href" in attributes}
    targets |= {f"#{name}" for svg in drawn.values() for name in re.findall(r"url\(#([^)]*)\)", svg)}
    assert targets <= {f"#{name}" for name in ids}


def test_every_colour_is_a_variable(drawn: dict[str, str]) -> None:
    for name, svg in drawn.items():
        colours = set(re.findall(r"(?:fill|stroke): *([^;\"]+)", svg))
        assert colours and all(c == "none" or c.startswith("var(--") for c in colours), (name, colours)
        assert "#0102" not in svg and "http" not in svg


def test_text_stays_text(drawn: dict[str, str], parse: type) -> None:
    labels = parse(drawn["perplexity"], watch=("text",)).texts["text"]
    assert {"base", "guided", "control", "90.5", "91.5", "92.5"} <= {label.strip() for label in labels}
    labels = parse(drawn["seconds"], watch=("text",)).texts["text"]
    assert {"model base", "33 s"} <= {label.strip() for label in labels}


def test_bars_are_as_long_as_their_numbers(drawn: dict[str, str], make_results: Callable) -> None:
    lengths = []
    for path in re.findall(r'<path d="([^"]*)"[^>]*fill: var\(--(?:base|guided|control)\)', drawn["perplexity"]):
        places = [float(x) for x in re.findall(r"[ML] (\S+)", path)]
        lengths.append(max(places) - min(places))
    expected = [make_results(True)[name]["perplexity"] for name in ("base", "guided", "control")]
    np.testing.assert_allclose(np.array(lengths) / lengths[0], np.array(expected) / expected[0], rtol=1e-4)


def test_planted_tokens_have_a_line_of_their_own(drawn: dict[str, str]) -> None:
    scores = np.linspace(-1, 1, 50)
    assert "planted tokens" in drawn["scores"] and "other tokens" in drawn["scores"]
    unknown = plots.scores_plot(TokenMarks(scores, scores > 0, None), 0.5)
    assert "planted" not in unknown and "all tokens" in unknown


def test_the_same_numbers_give_the_same_plot(drawn: dict[str, str], make_results: Callable) -> None:
    assert plots.toxicity_plot(make_results(True)) == drawn["toxicity"]


def test_an_interval_beside_its_value_is_drawn(make_results: Callable) -> None:
    results = make_results(True)
    results["base"]["tp_toxic_interval"] = [0.9, 0.95]  # a bootstrap interval need not hold the value
    assert "<svg" in plots.toxicity_plot(results)


def test_a_logarithmic_axis_shows_numbers_and_not_their_source(drawn: dict[str, str], parse: type) -> None:
    texts = parse(drawn["scores"], watch=("text",)).texts["text"]
    labels = ["".join(text.split()) for text in texts]  # an exponent is an element of its own
    assert {"100", "101"} <= set(labels) and not any("$" in label for label in labels)


def test_models_keep_their_colours_and_others_take_what_is_left() -> None:
    assert plots.colours_of(["base", "guided", "control"]) == ["base", "guided", "control"]
    assert plots.colours_of(["dpo", "control", "base"]) == ["guided", "control", "base"]
    assert plots.colours_of(["a", "b", "c", "d"]) == ["base", "guided", "control", "other"]
    many = plots.colours_of([f"model {number}" for number in range(14)])
    assert set(many) == set(plots.SERIES) and len(many) == 14
    assert plots.colours_of(["planted", "guided"]) == ["base", "guided"], "no model takes a colour for its name's sake"


def test_four_models_stand_side_by_side(four: dict, parse: type) -> None:
    toxicity, perplexity = plots.toxicity_plot(four), plots.perplexity_plot(four)
    for svg in (toxicity, perplexity):
        labels = {label.strip() for label in parse(svg, watch=("text",)).texts["text"]}
        assert {"base", "d<p>o", "guided", "control"} <= labels
    spans = []
    for path, colour in re.findall(r'<path d="([^"]*)"[^>]*fill: var\(--(base|guided|control|other)\)', toxicity):
        places = [float(x) for x in re.findall(r"[ML] (\S+)", path)]
        spans.append((min(places), max(places), colour))
    assert len(spans) == 20, "four bars of each model, and the legend, which is drawn last"
    bars = sorted(spans[:16])
    assert [colour for *_, colour in bars] == ["base", "other", "guided", "control"] * 4
    assert all(left[1] <= right[0] + 1e-6 for left, right in pairwise(bars)), "no bar covers another"
    curves = {"d<p>o": Curve([1, 2], [3.0, 2.0])}
    assert "stroke: var(--other)" in plots.curves_plot("x", "loss", curves, list(plots.models_of(four)))
