"""Dropping and hiding through the patch, against the text and a plain loop over what passed through a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.patch.checkouts import STAND_IN, configuration, penalised_tokens, run_python, train, write_data

HIDDEN = 300  # a spare row: the data has the ids 1 to 99, the vocabulary 512


def keys_of(folder: Path, **keys: Any) -> dict[str, Any]:
    data = write_data(folder)
    paths = {f"{split}_data_paths": [data] for split in ("train", "valid", "test")}
    return {**paths, "train_penalty_data_paths": [f"{data}_mask"], **keys}


@pytest.fixture(scope="module")
def hidden(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hidden")
    return train(checkout, folder, **keys_of(folder, penalty_action="hide", penalty_hidden_token=HIDDEN))


def test_a_hidden_token_is_another_input_and_the_same_label(hidden: dict[str, Any]) -> None:
    first = []
    for step in hidden["steps"]:
        for micro in step["micro"]:
            tokens, labels = np.array(micro["tokens"]), np.array(micro["labels"])
            # a label is the next input, as the text has it
            text = labels[:, :-1]
            selected = penalised_tokens(text) & (text > 0)
            np.testing.assert_array_equal(tokens[:, 1:], np.where(selected, HIDDEN, text))
            first += tokens[:, 0].tolist()
            np.testing.assert_array_equal(np.array(micro["mask"]), np.where(penalised_tokens(labels), -255, 1))
    # its own label is in the sample before
    assert HIDDEN in first and not (penalised_tokens(np.array(first)) & (np.array(first) > 0)).any()


def test_the_objective_is_the_mean_over_all_labels_of_the_loss_of_clean_ones(hidden: dict[str, Any]) -> None:
    for step in hidden["steps"]:
        total, count = 0.0, 0
        for micro in step["micro"]:
            for labels, losses in zip(micro["labels"], micro["ce"]):
                for label, ce in zip(labels, losses):
                    total += 0.0 if penalised_tokens(np.array(label)) else ce
                    count += 1
        assert step["metrics"]["objective"] == pytest.approx(total / count, rel=2e-6)


def test_validation_reads_the_text_as_it_is(hidden: dict[str, Any]) -> None:
    assert len(hidden["validation"]) >= 2
    for batch in hidden["validation"]:
        tokens, labels = np.array(batch["tokens"]), np.array(batch["labels"])
        np.testing.assert_array_equal(tokens[:, 1:], labels[:, :-1])
        assert penalised_tokens(tokens[tokens > 0]).any() and np.array(batch["mask"]).min() == 1


def test_dropping_is_a_penalty_of_zero_to_the_bit(tmp_path: Path) -> None:
    dropped = train(STAND_IN, tmp_path, **keys_of(tmp_path, penalty_action="drop"))
    zero = train(STAND_IN, tmp_path, **keys_of(tmp_path, penalty_lambda=0.0))
    pushed = train(STAND_IN, tmp_path, **keys_of(tmp_path, penalty_lambda=0.1))
    assert dropped["steps"] == zero["steps"] and dropped["validation"] == zero["validation"]
    assert dropped["validation"] != pushed["validation"]


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (512, "outside of the padded vocabulary of 512 rows"),
        (0, "is the end-of-document token"),
        ("<|hidden|>", "is not in the tokenizer's vocabulary"),
    ],
)
def test_a_worker_refuses_what_cannot_be_the_hidden_token(tmp_path: Path, token: Any, words: str) -> None:
    """Where no launcher has looked at it: an unlisted tokenizer type says nothing there."""
    keys = keys_of(tmp_path, penalty_action="hide", penalty_hidden_token=token, tokenizer_type="TiktokenTokenizer")
    (tmp_path / "run.yml").write_text(json.dumps(configuration(STAND_IN, **keys)))
    code = "import sys\nfrom tests.patch.recorder import record\nrecord(*sys.argv[1:])"
    result = run_python(code, STAND_IN, str(tmp_path / "run.yml"), str(tmp_path / "seen.json"))
    assert result.returncode != 0 and not (tmp_path / "seen.json").exists()
    last = result.stderr.strip().splitlines()[-1].removeprefix("[rank0]: ")
    assert last.startswith("ifguide.errors.InputError: penalty_hidden_token: ") and words in last


GENERATES = """
import sys, torch
import ifguide_patch
ifguide_patch.apply()
from megatron import text_generation_utils
from megatron.neox_arguments import NeoXArgs

loud = lambda tokens: torch.nn.functional.one_hot(torch.full_like(tokens, 300), 512).float()
for config in sys.argv[1:]:
    arguments = NeoXArgs.from_ymls([config])
    arguments.build_tokenizer()
    (*_, tokens) = text_generation_utils.stream_tokens(
        neox_args=arguments, model=loud, context_tokens=[[5, 6]], maximum_tokens=3
    )
    print("SAID", tokens[0].tolist(), float(text_generation_utils.forward_model(loud, (tokens,))[0, 0, 300]))
"""


def test_the_hidden_token_is_never_generated(tmp_path: Path) -> None:
    """By a model that says nothing else; its likelihood is left as it is. The real one is in tests/neox."""
    files = []
    for name, keys in (("hide", {"penalty_action": "hide", "penalty_hidden_token": HIDDEN}), ("plain", {})):
        files.append(tmp_path / f"{name}.yml")
        files[-1].write_text(json.dumps(configuration(STAND_IN, **keys_of(tmp_path, **keys))))
    result = run_python(GENERATES, STAND_IN, *map(str, files))
    assert result.returncode == 0, result.stderr[-3000:]
    said = [line for line in result.stdout.splitlines() if line.startswith("SAID")]
    assert said == ["SAID [5, 6, 0, 0, 0] 1.0", "SAID [5, 6, 300, 300, 300] 1.0"]
