"""A short run of the fuzzer, and proof that it can find something."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.fuzz_index import fuzz
from ifguide.data.indexed import IndexedDataset


def test_no_mutated_index_crashes_the_reader(tmp_path):
    result = fuzz(800, seed=1, folder=tmp_path)
    assert result["findings"] == []
    assert result["opened"] > 30 and result["refused"] > 300 and result["documents_read"] > 100


@pytest.mark.parametrize("fault", ["exception", "other bytes"])
def test_the_fuzzer_can_find_something(tmp_path, monkeypatch, fault):
    document = IndexedDataset.document

    def broken(self, i):
        if fault == "exception" and i == 2:
            raise OverflowError("planted")
        return document(self, i)[:1] if i == 0 else document(self, i)

    monkeypatch.setattr(IndexedDataset, "document", broken)
    findings = fuzz(100, seed=1, folder=tmp_path)["findings"]
    assert any(("planted" if fault == "exception" else "not the file") in finding for finding in findings)


def test_absurd_counts_allocate_nothing(tmp_path, write_raw, monkeypatch):
    """No array is read before its size is compared with the file's."""
    prefix = write_raw(tmp_path / "d", [[1, 2], [3]], np.uint16, 8)
    with open(prefix + ".idx", "r+b") as stream:
        stream.seek(18)
        stream.write((2**40).to_bytes(8, "little"))
    monkeypatch.setattr(np, "fromfile", lambda *arguments, **options: pytest.fail("read before it was checked"))
    with pytest.raises(Exception, match="is truncated"):
        IndexedDataset.open(prefix)
