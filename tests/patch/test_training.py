"""A penalised run, step by step, against (M4) computed by a plain loop from what passed through it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.patch.checkouts import penalised_tokens, train, write_data

LAMBDA, CLIP, WARMUP = 0.7, 4.0, 4

FORMS = {
    "ascent": lambda ce: -ce,
    "clipped": lambda ce: -min(ce, CLIP),
    "unlikelihood": lambda ce: -math.log(1 - math.exp(-max(ce, 1e-6))),
}


def literal(micro: dict[str, Any], form: str, strength_lambda: float, graded: bool) -> dict[str, float]:
    """(M4) and the sums of one micro-batch, token by token."""
    sums = {"objective": 0.0, "clean": 0.0, "clean_n": 0, "penalty": 0.0, "penalty_n": 0}
    for labels, losses, mask in zip(micro["labels"], micro["ce"], micro["mask"]):
        for label, ce, allowed in zip(labels, losses, mask):
            if allowed == 0:
                continue
            selected = penalised_tokens(np.array(label))
            s = (label / 255 if graded else 1.0) if selected else 0.0
            sums["objective"] += (1 - s) * ce + (s * strength_lambda * FORMS[form](ce) if s else 0.0)
            sums["penalty" if selected else "clean"] += ce
            sums["penalty_n" if selected else "clean_n"] += 1
    return sums


@pytest.fixture(scope="module", params=["ascent", "clipped-graded", "unlikelihood-accumulated"])
def run(request: Any, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, int]:
    form, _, variant = request.param.partition("-")
    folder = tmp_path_factory.mktemp("run")
    data = write_data(folder, encoding="graded" if variant == "graded" else "binary")
    keys: dict[str, Any] = {
        "train_data_paths": [data], "valid_data_paths": [data], "test_data_paths": [data],
        "train_penalty_data_paths": [f"{data}_mask"],
        "penalty_lambda": LAMBDA, "penalty_form": form, "penalty_warmup_iters": WARMUP,
    }  # fmt: skip
    if form == "clipped":
        keys["penalty_clip"] = CLIP
    steps = 2 if variant == "accumulated" else 1
    return train(checkout, folder, gradient_accumulation_steps=steps, **keys), request.param, steps


def test_every_step_is_the_objective(run: tuple[dict[str, Any], str, int]) -> None:
    seen, name, accumulation = run
    form, _, variant = name.partition("-")
    assert len(seen["steps"]) == 6
    for number, step in enumerate(seen["steps"], 1):
        assert len(step["micro"]) == accumulation
        strength = LAMBDA * min(1, number / WARMUP)
        parts = [literal(micro, form, strength, variant == "graded") for micro in step["micro"]]
        total = {key: sum(part[key] for part in parts) for key in parts[0]}
        tokens = total["clean_n"] + total["penalty_n"]
        logged = step["metrics"]
        assert logged["objective"] == pytest.approx(total["objective"] / tokens, rel=2e-6)
        assert logged["lm_loss"] == pytest.approx(total["clean"] / total["clean_n"], rel=2e-6)
        assert logged["penalty_ce"] == pytest.approx(total["penalty"] / total["penalty_n"], rel=2e-6)
        assert logged["penalty_fraction"] == pytest.approx(total["penalty_n"] / tokens, rel=2e-6)


def test_a_label_is_penalised_where_its_own_token_is_selected(run: tuple[dict[str, Any], str, int]) -> None:
    seen, name, _ = run
    for step in seen["steps"]:
        for micro in step["micro"]:
            labels, mask = np.array(micro["labels"]), np.array(micro["mask"])
            codes = labels if "graded" in name else np.full_like(labels, 255)
            assert penalised_tokens(labels).any()
            np.testing.assert_array_equal(mask, np.where(penalised_tokens(labels), -codes, 1))


def test_validation_knows_no_penalty(run: tuple[dict[str, Any], str, int]) -> None:
    seen, *_ = run
    assert len(seen["validation"]) >= 2
    for batch in seen["validation"]:
        assert np.array(batch["mask"]).min() == 1


def test_samples_are_neoxs_own_and_carry_the_codes_of_their_tokens(run: tuple[dict[str, Any], str, int]) -> None:
    seen, name, _ = run
    for row in seen["samples"]:
        values, text = np.array(row["values"]), np.array(row["text"])
        np.testing.assert_array_equal(values & (2**32 - 1), text)
        codes = text if "graded" in name else np.full_like(text, 255)
        assert row.get("label") == row.get("stock_label")
        # NeoX pads with token 0, which no mask of these tests selects
        np.testing.assert_array_equal(values >> 32, np.where(penalised_tokens(text) & (text > 0), codes, 0))


def test_a_printed_line_is_the_ratio_of_the_intervals_sums(run: tuple[dict[str, Any], str, int]) -> None:
    seen, *_ = run
    if not seen["printed"]:
        pytest.skip("GPT-NeoX prints its lines; the real checkout's are tested in tests/neox")
    for line, steps in zip(seen["printed"], (seen["steps"][:3], seen["steps"][3:])):
        micro = [part for step in steps for part in step["micro"]]
        labels = np.concatenate([np.ravel(part["labels"]) for part in micro])
        ce = np.concatenate([np.ravel(part["ce"]) for part in micro])
        selected = penalised_tokens(labels)
        assert line["penalty_ce"] == pytest.approx(ce[selected].mean(), rel=2e-6)
        assert line["lm_loss"] == pytest.approx(ce[~selected].mean(), rel=2e-6)
        assert line["penalty_fraction"] == pytest.approx(selected.mean(), rel=2e-6)
