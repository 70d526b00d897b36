"""The page and the table of an experiment: every method, what failed, and nothing of a text becomes markup."""

from __future__ import annotations

from typing import Any

import pytest

from ifguide.pages.experiment.page import experiment_page
from ifguide.pages.experiment.plots import curve_plot, marks_of, trade_plot
from ifguide.pages.experiment.text import duration, preview_text, results_text

NASTY = "<script>alert(1)</script>"


def entry(tp: float, curve: tuple[str, Any] | None = None, corpus: str = "c", method: str = "m") -> dict[str, Any]:
    seeds = {
        str(seed): {"tp_toxic": tp + seed / 100, "emt_toxic": tp, "tp_benign": 0.1, "perplexity": 50.0 + seed,
                    "perplexity@talk": 90.0, "tp_toxic@lexicon": 0.5, "empty_share": 0.0, "distinct_2": 0.4,
                    "seconds": 75.0, "trained_tokens": 1e5, "memory": 1 << 30}
        for seed in (1, 2)
    }  # fmt: skip
    mean = {key: sum(one[key] for one in seeds.values()) / 2 for key in seeds["1"]}
    return {
        "corpus": corpus, "method": method, "setting": "default", "describe": NASTY, "extra": ["queries"],
        "curve": None if curve is None else {"name": curve[0], "value": curve[1]},
        "seeds": seeds, "mean": mean, "interval": {"tp_toxic": [tp - 0.1, tp + 0.1]},
        "against_base": {"seeds": [1, 2], "metrics": {
            "tp_toxic": {"difference": -0.25, "interval": [-0.35, -0.15]},
            "perplexity": {"ratio": 1.02, "interval": None},
        }},
    }  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    empty = {**entry(0.5), "seeds": {}, "mean": {}, "interval": {}}
    return {
        "plan": NASTY, "description": "what is asked", "judges": ["judge", "lexicon"], "seeds": [1, 2],
        "sampling": {"samples": 25, "max_new_tokens": 20, "seed": 0},
        "methods": {
            "base": {key: value for key, value in entry(0.9).items() if key != "against_base"},
            "influence": entry(0.6), NASTY: entry(0.4), "broken": empty,
            "influence@λ=0": entry(0.7, ("λ", 0.0), method="influence"),
            "influence@λ=1": entry(0.3, ("λ", 1.0), method="influence"),
        },
        "failed": [{"cell": "broken", "seed": 1, "stage": "model broken", "reason": f"{NASTY} failed", "log": "l"}],
        "stages": {"done": 3, "kept": 1}, "seconds": {"a": 1.5},
    }  # fmt: skip


def test_the_page_shows_every_method_and_runs_nothing(results: dict[str, Any]) -> None:
    said = [{"subset": "toxic", "prompt": f"{NASTY} says", "said": {"base": (NASTY, 0.9), "influence": ("kind", 0.1)}}]
    page = experiment_page(results, said)
    assert NASTY not in page and "&lt;script&gt;" in page
    assert "0.615" in page and "[0.500, 0.700]" in page and "−" not in page.split("<table")[0]
    assert "-0.250" in page and "×1.020" in page and "1.00 GiB" in page and "75 s" in page
    assert "No numbers." in page and "model broken" in page
    assert page.count("<svg") == 4  # two texts against toxicity, one sweep in two metrics
    details = page.split("Show the continuations (abusive text)")[1]
    assert "kind" in details and "kind" not in page.split("Show the continuations (abusive text)")[0]


def test_the_table_for_a_terminal(results: dict[str, Any]) -> None:
    text = results_text(results)
    assert "influence" in text and "0.615 [0.500, 0.700]" in text and "prompts and 2 seeds; judged by judge" in text
    assert "FAILED broken, seed 1: model broken" in text


def test_plots_without_numbers_are_none(results: dict[str, Any]) -> None:
    assert trade_plot({"broken": results["methods"]["broken"]}, "tp_toxic", "perplexity") is None
    assert trade_plot(results["methods"], "tp_toxic", "perplexity@nothing") is None
    assert curve_plot(results["methods"], "no such", "tp_toxic") is None
    names = {f"a={value}": entry(0.5, ("span", value)) for value in ("line", "sentence")}
    assert curve_plot(names, "span", "tp_toxic") is not None


def test_many_methods_are_told_apart() -> None:
    marks = marks_of([f"m{number}" for number in range(40)])
    assert len(set(marks.values())) == 40


def test_a_preview_and_durations() -> None:
    stages = [
        {"stage": "tokens", "state": "kept", "command": "ifguide preprocess"},
        {"stage": "model", "state": "to run", "command": "x" * 300, "seconds": 75.0, "basis": "guessed"},
    ]
    text = preview_text({"stages": stages, "cells": 1, "seconds": 75, "wall_seconds": 40, "jobs": 2, "guessed": 1})
    assert "1 of 2 stages to run for 1 models to judge: about 75 s of work, 40 s with --jobs 2" in text
    assert "75 guessed" in text and "x" * 99 + "…" in text
    assert [duration(value) for value in (45, 720, 12_240, 200_000)] == ["45 s", "12 min", "3.4 h", "2.3 days"]
