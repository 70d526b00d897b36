"""Every step's loss, and the parameters after 20 steps, are those of a second implementation.

`tests.neox.reference` reads the samples from the files by itself and computes (M4) token by token in
double precision.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.neox.harness import ITERATIONS, LAYOUTS, PIPE, PLAIN, Outcome, Scenario, run_scenarios, scenario
from tests.neox.reference import Reference, Step

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
WARMUP = 7
FORMS: dict[str, dict[str, Any]] = {
    "ascent": {"penalty_form": "ascent", "penalty_lambda": 0.7},
    # about what a token costs at the start: some are clipped, some are not
    "clipped": {"penalty_form": "clipped", "penalty_clip": 6.3, "penalty_lambda": 0.7},
    # strong, as its push is faint on an untrained model
    "unlikelihood": {"penalty_form": "unlikelihood", "penalty_lambda": 30.0},
}
ENCODINGS = ("binary", "graded")
NAMES = [f"{layout}-{form}-{encoding}" for layout in LAYOUTS for form in FORMS for encoding in ENCODINGS]
LABELLED = [f"{layout}-labels-{encoding}" for layout in ("plain", "pp2") for encoding in ENCODINGS]


def scenarios(data: dict[str, Any], corpus: Path) -> list[Scenario]:
    penalty = {"penalty_warmup_iters": WARMUP}
    runs = []
    for name in NAMES:
        layout, form, encoding = name.split("-")
        mask = {"train_penalty_data_paths": [f"{corpus}-{encoding}"]}
        runs.append(scenario(name, data, LAYOUTS[layout], FORMS[form], penalty, mask))
    for name in LABELLED:
        layout, _, encoding = name.split("-")
        keys = {
            "train_label_data_paths": [f"{corpus}-labels"], "eod_mask_loss": True,
            "train_penalty_data_paths": [f"{corpus}-{encoding}"], "gradient_accumulation_steps": 2,
        }  # fmt: skip
        runs.append(scenario(name, data, {"plain": PLAIN, "pp2": PIPE}[layout], FORMS["ascent"], penalty, keys))
    return runs


@pytest.fixture(scope="module")
def outcomes(
    neox: Path, data: dict[str, Any], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    return run_scenarios(neox, tmp_path_factory.mktemp("penalised"), scenarios(data, corpus), patched=True)


@pytest.mark.parametrize("name", NAMES + LABELLED)
def test_losses_and_parameters_are_the_references(
    outcomes: dict[str, Outcome], name: str, record_property: Any
) -> None:
    run = outcomes[name]
    reference = Reference(run.config, run.whole("initial"), len(run.ranks), run.uncounted())
    expected = reference.train(ITERATIONS)
    assert run.ranks[0]["rates"] == pytest.approx([reference.rate(number) for number in range(ITERATIONS)])
    for key in ("objective", "lm_loss", "penalty_ce", "penalty_fraction"):
        difference = largest_difference(expected, run, key)
        record_property(key, difference)
        assert difference < TOLERANCE, key
    final = run.whole("final")
    differences = {key: float((final[key] - value.detach()).abs().max()) for key, value in reference.parameters.items()}
    record_property("parameters", max(differences.values()))
    assert final.keys() == differences.keys() and max(differences.values()) < TOLERANCE, differences


@pytest.mark.parametrize("name", NAMES + LABELLED)
def test_the_ranks_of_a_run_report_the_same(outcomes: dict[str, Outcome], name: str) -> None:
    keys = ("objective", "penalty_ce", "penalty_fraction")
    first, second = ([[float(step[key]) for key in keys] for step in rank["steps"]] for rank in outcomes[name].ranks)
    assert first == second


def test_the_clip_acts_on_some_tokens_and_not_on_others(outcomes: dict[str, Outcome]) -> None:
    """Otherwise `clipped` would have been compared as `ascent`, or as a constant."""
    for layout in LAYOUTS:
        for encoding in ENCODINGS:
            ascent, clipped = (outcomes[f"{layout}-{form}-{encoding}"] for form in ("ascent", "clipped"))
            # λ is 0.1 in the first step, where both have the same weights
            gap = clipped.series("objective")[0] - ascent.series("objective")[0]
            selected = clipped.series("penalty_fraction")[0] * 0.1
            assert 1e-5 < gap < selected * (ascent.series("penalty_ce")[0] - 5)


def test_a_mask_one_token_late_is_told_apart(outcomes: dict[str, Outcome]) -> None:
    """The comparison would fail if the codes were read one token off."""
    run = outcomes["plain-ascent-binary"]
    reference = Reference(run.config, run.whole("initial"), len(run.ranks))
    for dataset in reference.blend.datasets:
        dataset.codes = shifted(dataset.codes)
    wrong = [reference.step(number) for number in range(3)]
    assert largest_difference(wrong, run, "penalty_ce") > 1e-3


def largest_difference(expected: list[Step], run: Outcome, key: str) -> float:
    pairs = list(zip(expected, run.series(key)))
    assert not any(math.isnan(value) for _, value in pairs)
    return max(abs(getattr(step, key) - value) for step, value in pairs)


def shifted(documents: list[list[int]]) -> list[list[int]]:
    return [[0, *document[:-1]] for document in documents]
