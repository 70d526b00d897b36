"""Pairs as GPT-NeoX's own DPO reads them: tokens of queries, a label where a token counts, -100 elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ifguide import cli
from ifguide.data.indexed import IndexedDataset
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import build_tokenizer


def command(pairs: Path, prefix: Path, seq_length: int = 16) -> list[str]:
    return [
        "preprocess-pairs", "--input", str(pairs), "--tokenizer-type", "CharLevelTokenizer", "--seq-length",
        str(seq_length), "--output-prefix", str(prefix),
    ]  # fmt: skip


def test_the_four_datasets_hold_the_pairs(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command(pairs, tmp_path / "p"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert result["pairs"] == len(rows) == 20
    assert {key: result["keys"][key] for key in ("train_impl", "dataset_impl", "pack_impl")} == {
        "train_impl": "dpo", "dataset_impl": "pairwise", "pack_impl": "unpacked",
    }  # fmt: skip
    reader = TextReader(build_tokenizer("CharLevelTokenizer", None))
    for side, field in (("pos", "chosen"), ("neg", "rejected")):
        (tokens,), (labels,) = (result["keys"][f"{side}_train{kind}_data_paths"] for kind in ("", "_label"))
        stored, beside = IndexedDataset.open(tokens), IndexedDataset.open(labels)
        assert beside.dtype == np.int32
        for number, row in enumerate(rows):
            query = reader.query(row["prompt"], row[field])
            assert stored.document(number).tolist() == query.tokens
            expected = [token if counts else -100 for token, counts in zip(query.tokens, query.is_target)]
            assert beside.document(number).tolist() == expected
    assert cli.main(["verify", "--data", str(tmp_path / "p_chosen_document"), "--json"]) == 0


def test_a_pair_that_neox_would_cut_is_refused(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command(pairs, tmp_path / "p", seq_length=8)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all("the model has a window of 9; shorten them" in line for line in lines[:-1] or lines)
    assert not list(tmp_path.glob("p_*"))


def test_the_same_command_again_has_nothing_to_do(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(pairs, tmp_path / "p")) == 0
    first = (tmp_path / "p_chosen_document.bin").stat().st_mtime_ns
    assert cli.main(command(pairs, tmp_path / "p")) == 0
    assert (tmp_path / "p_chosen_document.bin").stat().st_mtime_ns == first
    assert cli.main(command(pairs, tmp_path / "p", seq_length=15)) == 2
    assert "--overwrite" in capsys.readouterr().err
