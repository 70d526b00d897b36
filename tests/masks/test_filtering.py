"""A dataset without some of its documents, whatever lies at the edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import read_sidecar
from ifguide.data.verify import verify
from ifguide.errors import InputError
from ifguide.masks import filtering
from ifguide.masks.filtering import write_filtered
from tests.support.datasets import random_documents, write_tokens

LENGTHS = [3, 0, 9, 1, 7, 5, 0, 8]


@pytest.mark.parametrize("dropped", [[], [0], [7], [0, 7], [2, 3, 4], [1, 6], [0, 1, 2, 3, 4, 5, 6]], ids=str)
@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_what_stays_is_copied_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: list[int], chunk: int
) -> None:
    """Also where a run of documents is longer than what is read at a time."""
    monkeypatch.setattr(filtering, "CHUNK_TOKENS", chunk)
    documents = random_documents(LENGTHS)
    # two sequences each in one group of doc_idx: afterwards every document is one of its own
    tokens = write_tokens(tmp_path / "d", documents, doc_idx=[0, 2, 4, 6, 8], tokenizer={"eod": 0})
    counts = write_filtered(tmp_path / "left", tokens, np.array(dropped, np.int64), {"note": 1})
    stay = [document for place, document in enumerate(documents) if place not in dropped]
    assert np.fromfile(tmp_path / "left.bin", np.uint16).tolist() == np.concatenate(stay).tolist()
    assert counts == {"documents": len(stay), "tokens": sum(map(len, stay))}
    left = TokenDataset.open(tmp_path / "left")
    assert left.lengths.tolist() == [len(document) for document in stay]
    assert left.doc_idx.tolist() == list(range(len(stay) + 1))
    sidecar = read_sidecar(tmp_path / "left")
    assert sidecar["note"] == 1 and sidecar["tokenizer"] == {"eod": 0}
    assert verify(tmp_path / "left", vocab_size=256, deep=True).faults == []


@pytest.mark.parametrize("dropped", [range(8), [0, 2, 3, 4, 5, 7]], ids=["all", "all but the empty ones"])
def test_nothing_left_is_refused_before_anything_is_written(tmp_path: Path, dropped: list[int]) -> None:
    tokens = write_tokens(tmp_path / "d", random_documents(LENGTHS))
    with pytest.raises(InputError, match=r"no document .* would be left"):
        write_filtered(tmp_path / "left", tokens, np.array(dropped, np.int64), {})
    assert not list(tmp_path.glob("left*"))
