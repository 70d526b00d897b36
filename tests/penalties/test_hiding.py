"""What is refused of ``penalty_action`` and ``penalty_hidden_token``, in the same words by both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.config.yaml_files import config_paths
from ifguide.engine.settings import load_config
from ifguide.errors import ConfigError
from ifguide.penalties.hiding import action_faults
from ifguide.penalties.keys import PenaltyKeys, push_of
from ifguide_patch.keys import neox_faults
from tests.engine.tiny import MODEL, write_configuration
from tests.support.datasets import write_mask, write_tokens

HIDE = {"penalty_action": "hide", "penalty_hidden_token": 300}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    tokens = write_tokens(tmp_path / "data", [np.arange(1, 200)])
    write_mask(tmp_path / "mask", tokens, tokens.tokens[:] > 150)
    write_mask(tmp_path / "graded", tokens, tokens.tokens[:] % 200, "graded")
    return {"data_path": str(tmp_path / "data"), "penalty_data_path": str(tmp_path / "mask")}


def refused(folder: Path, **keys: Any) -> list[str]:
    """What both launchers say of the keys."""
    write_configuration(folder / "config", **keys)
    embedded: list[str] = []
    try:
        load_config(config_paths(["model", "data"], str(folder / "config")))
    except ConfigError as error:
        embedded = error.faults
    config = {**MODEL, **keys}
    neox = [*neox_faults(config, config), *action_faults(config)]
    assert sorted(neox) == sorted(embedded)
    return neox


@pytest.mark.parametrize("action", ["drop", "hide", "Drop"])
@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ({"penalty_lambda": 0.5}, "penalty_lambda would"),
        ({"penalty_lambda": 1.0}, "penalty_lambda would"),
        ({"penalty_form": "ascent"}, "penalty_form would"),
        ({"penalty_form": "clipped", "penalty_clip": 5.0}, "penalty_form, penalty_clip would"),
        ({"penalty_clip": 5.0}, "penalty_clip would"),
        ({"penalty_warmup_iters": 0, "penalty_form": "unlikelihood"}, "penalty_form, penalty_warmup_iters would"),
    ],
)
def test_how_hard_to_push_is_refused_beside_drop_and_hide(
    data: dict[str, Any], tmp_path: Path, action: str, beside: dict[str, Any], named: str
) -> None:
    token = {"penalty_hidden_token": 300} if action == "hide" else {}
    (line,) = refused(tmp_path, **data, **token, **beside, penalty_action=action)
    assert line.startswith(f"penalty_action: {action.lower()} pushes nothing") and named in line


def test_a_key_that_is_null_was_not_given(data: dict[str, Any], tmp_path: Path) -> None:
    assert refused(tmp_path, **data, **HIDE, penalty_lambda=None, penalty_form=None) == []
    assert refused(tmp_path, **data, penalty_action=None, penalty_hidden_token=None, penalty_lambda=0.5) == []


def test_defaults_of_a_configuration_object_were_not_given(data: dict[str, Any]) -> None:
    """NeoX's workers check the arguments again, where every key has a value."""
    known = {**vars(PenaltyKeys()), **data}
    assert [*neox_faults({**known, "penalty_action": "drop"})] == []
    (line,) = neox_faults({**known, "penalty_action": "drop", "penalty_lambda": 0.5})
    assert "penalty_lambda would" in line


@pytest.mark.parametrize(
    ("keys", "start"),
    [
        ({"penalty_action": "hide"}, "penalty_hidden_token: penalty_action hide needs it"),
        ({"penalty_action": "drop", "penalty_hidden_token": 3}, "penalty_hidden_token: has no effect with"),
        ({"penalty_hidden_token": 3}, "penalty_hidden_token: has no effect with penalty_action penalise"),
        ({**HIDE, "penalty_hidden_token": 512}, "penalty_hidden_token: 512 is outside of the padded vocabulary of 512"),
        ({**HIDE, "penalty_hidden_token": -2}, "penalty_hidden_token: -2 is outside"),
        ({**HIDE, "penalty_hidden_token": 0}, "penalty_hidden_token: 0 is the end-of-document token"),
        ({**HIDE, "penalty_hidden_token": "<|endoftext|>"}, "penalty_hidden_token: '<|endoftext|>' is the end-of-"),
        ({**HIDE, "penalty_hidden_token": "nope"}, "penalty_hidden_token: 'nope' is not in the tokenizer's"),
    ],
)
def test_a_hidden_token_that_cannot_be(data: dict[str, Any], tmp_path: Path, keys: dict[str, Any], start: str) -> None:
    (line,) = refused(tmp_path, **data, **keys)
    assert line.startswith(start)


def test_without_a_mask_neither_has_an_effect(data: dict[str, Any], tmp_path: Path) -> None:
    lines = refused(tmp_path, data_path=data["data_path"], **HIDE)
    assert lines == [
        f"{key}: has no effect without penalty_data_path or train_penalty_data_paths"
        for key in ("penalty_action", "penalty_hidden_token")
    ]


@pytest.mark.parametrize("keys", [{"penalty_action": "drop"}, HIDE], ids=["drop", "hide"])
def test_a_graded_mask_is_refused(data: dict[str, Any], tmp_path: Path, keys: dict[str, Any]) -> None:
    (line,) = refused(tmp_path, **{**data, "penalty_data_path": str(tmp_path / "graded")}, **keys)
    assert line.startswith(f"penalty_data_path: {tmp_path / 'graded'} is a graded mask")
    assert f"penalty_action {keys['penalty_action']} needs a binary one" in line


def test_names_rows_and_separators_are_read_from_files(tmp_path: Path) -> None:
    """One row of 3 tokens is spare; model parallelism pads to more."""
    content = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "<|endoftext|>", "id": 2}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    write_tokens(tmp_path / "data", [np.array([0, 1, 1])])
    (tmp_path / "data.json").write_text(json.dumps({"format_version": 1, "tokenizer": {"eod": 1}}))

    def found(token: Any, **keys: Any) -> list[str]:
        config = {
            "penalty_action": "hide", "penalty_hidden_token": token, "tokenizer_type": "hftokenizer",
            "vocab_file": str(tmp_path / "tokenizer.json"), "make_vocab_size_divisible_by": 4, **keys,
        }  # fmt: skip
        return [*action_faults(config)]

    assert found("a") == found(3) == found(0) == []
    assert "of 4 rows" in found(4)[0] and found(4, model_parallel_size=2) == []
    assert "'c' is not in" in found("c")[0]
    assert "'<|endoftext|>' is the end-of-document" in found("<|endoftext|>")[0] and "2 is the end" in found(2)[0]
    # the data end their documents with b
    assert "'b' is the end" in found("b", data_path=str(tmp_path / "data"))[0] and found("b") == []
    # a file that does not say its names plainly is the workers' to ask
    for text in ("{}", "[", json.dumps({"model": {"vocab": [["a", 0]]}, "added_tokens": []})):
        (tmp_path / "tokenizer.json").write_text(text)
        assert found("c") == found(77) == []


def test_what_is_dropped_or_hidden_is_not_pushed() -> None:
    for action in ("drop", "hide", "HIDE"):
        assert push_of(PenaltyKeys(penalty_action=action)) == ("ascent", 0.0, None, 0)  # type: ignore[arg-type]
    keys = PenaltyKeys(penalty_form="clipped", penalty_clip=3.0, penalty_lambda=2, penalty_warmup_iters=5)
    assert push_of(keys) == ("clipped", 2.0, 3.0, 5)
    nothing = PenaltyKeys(penalty_form=None, penalty_lambda=None)  # type: ignore[arg-type]
    assert push_of(nothing) == ("ascent", 1.0, None, 0), "NeoX lets every key be None"
