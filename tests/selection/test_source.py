from __future__ import annotations

import numpy as np
import pytest

from ifguide.errors import InputError
from ifguide.selection.source import ScoredCorpus, Source, read_values


def test_spans_cover_everything_once_and_never_two_corpora():
    corpora = [
        ScoredCorpus("a", np.arange(5, dtype=np.float32), np.array([0, 2, 5])),
        ScoredCorpus("b", np.arange(5, 9, dtype=np.float32), np.array([0, 0, 4])),
    ]
    source = Source(corpora, chunk_tokens=3)
    assert [(span.corpus, span.begin, span.end, span.offset) for span in source.spans()] == [
        (0, 0, 3, 0), (0, 3, 5, 3), (1, 0, 3, 5), (1, 3, 4, 8),
    ]  # fmt: skip
    assert np.concatenate([source.scores(span) for span in source.spans()]).tolist() == list(range(9))
    assert [len(span) for span in source.spans(1)] == [3, 1]
    assert source.starts.tolist() == [0, 2, 5, 5, 9]
    assert source.where(4) == "a: document 1, token 2" and source.where(5) == "b: document 1, token 0"


def test_a_map_is_read_from_its_file(tmp_path):
    path = tmp_path / "values"
    np.arange(100, dtype=np.int32).tofile(path)
    values = np.memmap(path, np.int32, "r")
    read = read_values(values, 10, 20)
    assert not isinstance(read, np.memmap) and read.tolist() == list(range(10, 20))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="became shorter"):
        read_values(values, 10, 20)
