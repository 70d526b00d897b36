"""What a run says of its penalty before it starts, against masks whose tokens are counted here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ifguide.masks import build_mask
from ifguide.penalties.announcement import MaskCount, announcement
from ifguide.selection import SelectionSettings
from tests.support.datasets import write_mask, write_tokens


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """1000 tokens, of which the mask selects 37."""
    tokens = write_tokens(tmp_path / "data", [np.arange(1, 501), np.arange(1, 501)])
    codes = np.zeros(1000, np.uint8)
    codes[3:40] = 1
    write_mask(tmp_path / "mask", tokens, codes)
    return str(tmp_path / "data")


def test_form_lambda_clip_warmup_mask_and_tokens(corpus: str, tmp_path: Path) -> None:
    config = {
        "data_path": corpus, "penalty_data_path": str(tmp_path / "mask"), "penalty_form": "Clipped",
        "penalty_clip": 10.0, "penalty_lambda": 0.5, "penalty_warmup_iters": 2000, "split": "80,10,10",
    }  # fmt: skip
    assert announcement(config) == [
        "penalty: clipped, clipped at 10 nats, λ 0.5, rising from 0 over 2,000 iterations",
        f"mask {tmp_path / 'mask'} of {corpus}: 37 of 1,000 tokens selected (3.70%) (binary)",
        "training reads the first part of these tokens (split 80,10,10)",
    ]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"penalty_action": "drop"}, "penalty: drop, selected tokens have no loss"),
        (
            {"penalty_action": "Hide", "penalty_hidden_token": "<|padding|>"},
            "penalty: hide, selected tokens have no loss and are read as <|padding|>",
        ),
    ],
)
def test_tokens_that_are_not_pushed(corpus: str, tmp_path: Path, keys: dict[str, str], said: str) -> None:
    lines = announcement({"data_path": corpus, "penalty_data_path": str(tmp_path / "mask"), **keys})
    assert lines[0] == said and "37 of 1,000 tokens selected" in lines[1]


def test_every_corpus_and_all_of_them(corpus: str, tmp_path: Path) -> None:
    mask = str(tmp_path / "mask")
    config = {
        "train_data_paths": [corpus, corpus, corpus], "train_penalty_data_paths": [mask, "", mask],
        "penalty_lambda": None, "penalty_form": None,
    }  # fmt: skip
    assert announcement(config) == [
        "penalty: ascent, λ 1, without a warm-up",
        f"mask {mask} of {corpus}: 37 of 1,000 tokens selected (3.70%) (binary)",
        f"no mask for {corpus}: 0 of 1,000 tokens selected",
        f"mask {mask} of {corpus}: 37 of 1,000 tokens selected (3.70%) (binary)",
        "all corpora: 74 of 3,000 tokens selected (2.47%)",
    ]


def test_without_a_mask_there_is_none(corpus: str) -> None:
    assert announcement({"data_path": corpus, "penalty_lambda": 1.0}) == ["penalty: none (no mask is configured)"]
    assert announcement({"train_data_paths": [corpus], "train_penalty_data_paths": [""]})[0].startswith("penalty: none")


def test_the_count_of_a_built_mask_is_the_one_in_its_sidecar(tmp_path: Path) -> None:
    from ifguide.data.aligned import write_aligned

    tokens = write_tokens(tmp_path / "data", [np.arange(1, 301)])
    scores = np.random.default_rng(0).normal(size=300).astype(np.float32)
    write_aligned(tmp_path / "scores", tokens, scores, np.float32, {"eod": 0})
    result = build_mask(tmp_path / "scores", tmp_path / "mask", SelectionSettings(max_fraction=0.1))
    counted = int(np.count_nonzero(np.fromfile(tmp_path / "mask.bin", np.uint8)))
    assert 0 < counted == result["selected"]
    assert MaskCount.of(str(tmp_path / "data"), str(tmp_path / "mask")).selected == counted
    sidecar = json.loads((tmp_path / "mask.json").read_text())
    del sidecar["counts"]
    (tmp_path / "mask.json").write_text(json.dumps(sidecar))
    assert MaskCount.of(str(tmp_path / "data"), str(tmp_path / "mask")).selected == counted
