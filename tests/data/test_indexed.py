from __future__ import annotations

import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.fingerprint import make_fingerprint
from ifguide.data.indexed import IndexedDataset, TokenDataset, write_index
from ifguide.errors import InputError
from ifguide.system.files import write_json
from tests.support.datasets import random_documents, write_tokens


def test_reads_the_literal_format(tokens_prefix, documents):
    dataset = TokenDataset.open(tokens_prefix)
    assert dataset.prefix == tokens_prefix and dataset.dtype == np.uint16
    assert dataset.num_documents == len(documents)
    assert dataset.num_tokens == sum(map(len, documents))
    assert dataset.lengths.tolist() == [len(document) for document in documents]
    assert dataset.lengths.dtype == dataset.starts.dtype == np.int64
    assert dataset.starts.tolist() == [sum(map(len, documents[:i])) for i in range(len(documents) + 1)]
    assert dataset.tokens.tolist() == [token for document in documents for token in document]
    assert [dataset.document(i).tolist() for i in range(len(documents))] == documents
    for outside in (-1, len(documents)):
        with pytest.raises(IndexError):
            dataset.document(outside)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_reads_what_megatron_core_writes(tmp_path, megatron, documents, dtype):
    prefix = str(tmp_path / "d")
    builder = megatron.IndexedDatasetBuilder(prefix + ".bin", dtype=dtype)
    for document in documents:
        builder.add_document(np.array(document, dtype), [len(document)])
    builder.finalize(prefix + ".idx")
    dataset = TokenDataset.open(prefix)
    assert dataset.dtype == dtype
    assert [dataset.document(i).tolist() for i in range(len(documents))] == documents


def test_write_index_is_the_literal_format(tmp_path, tokens_prefix):
    dataset = TokenDataset.open(tokens_prefix)
    write_index(tmp_path / "again.idx", np.uint16, dataset.lengths, dataset.starts, dataset.doc_idx)
    assert (tmp_path / "again.idx").read_bytes() == dataset.index_path.read_bytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("code", [6, 7])
def test_float_size_decides_where_the_two_projects_disagree_on_the_code(tmp_path, dtype, code, write_raw):
    values = [[0.5, -1.25], [3.0]]
    dataset = IndexedDataset.open(write_raw(tmp_path / "s", values, dtype, code))
    assert dataset.dtype == dtype
    assert dataset.values.tolist() == [0.5, -1.25, 3.0]


@pytest.mark.parametrize("doc_idx", [[0], [0, 0, 6, 6], [0, 3, 3, 6, 9]])
def test_accepts_a_degenerate_doc_idx(tmp_path, documents, doc_idx, write_raw):
    prefix = write_raw(tmp_path / "d", documents, np.uint16, 8, doc_idx)
    with pytest.warns(UserWarning, match="each sequence is a document"):
        dataset = TokenDataset.open(prefix)
    assert dataset.doc_idx.tolist() == doc_idx
    assert dataset.num_documents == len(documents)


def _patch(path: str, offset: int, data: bytes) -> None:
    content = bytearray(Path(path).read_bytes())
    content[offset : offset + len(data)] = data
    Path(path).write_bytes(content)


def _cut(path: str, count: int) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:-count])


def _extend(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes() + b"\0")


# name -> (damage done to the prefix, file that the message must name, what it must say)
FAULTS = {
    "missing idx": (lambda p: Path(p + ".idx").unlink(), ".idx", "does not exist"),
    "missing bin": (lambda p: Path(p + ".bin").unlink(), ".bin", "does not exist"),
    "empty idx": (lambda p: Path(p + ".idx").write_bytes(b""), ".idx", "is empty (0 bytes)"),
    "empty bin": (lambda p: Path(p + ".bin").write_bytes(b""), ".bin", "is empty (0 bytes)"),
    "short header": (lambda p: _cut(p + ".idx", Path(p + ".idx").stat().st_size - 20), ".idx", "is truncated"),
    "truncated idx": (lambda p: _cut(p + ".idx", 1), ".idx", "is truncated"),
    "long idx": (lambda p: _extend(p + ".idx"), ".idx", "trailing bytes"),
    "truncated bin": (lambda p: _cut(p + ".bin", 1), ".bin", "is truncated: 179 bytes, its index needs 180"),
    "long bin": (lambda p: _extend(p + ".bin"), ".bin", "different datasets"),
    "bad magic": (lambda p: _patch(p + ".idx", 0, b"XX"), ".idx", "is not an mmap index"),
    "legacy magic": (lambda p: _patch(p + ".idx", 0, b"TNTIDX\0\0"), ".idx", "is a legacy index"),
    "bad version": (lambda p: _patch(p + ".idx", 9, struct.pack("<Q", 2)), ".idx", "index version 2"),
    "unknown dtype": (lambda p: _patch(p + ".idx", 17, b"\x2a"), ".idx", "unknown dtype code 42"),
    "absurd count": (lambda p: _patch(p + ".idx", 18, struct.pack("<Q", 2**60)), ".idx", "is truncated"),
    "negative length": (lambda p: _patch(p + ".idx", 34, struct.pack("<i", -4)), ".idx", "document 0 has length -4"),
    "gap": (lambda p: _patch(p + ".idx", 34 + 24 + 8, struct.pack("<q", 12)), ".idx", "document 1 starts at byte 12"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_names_the_file_and_what_is_wrong(tokens_prefix, name):
    damage, suffix, message = FAULTS[name]
    damage(tokens_prefix)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        TokenDataset.open(tokens_prefix)
    assert tokens_prefix + suffix in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_tokens_at_all(tmp_path, write_raw):
    prefix = write_raw(tmp_path / "d", [[], []], np.uint16, 8)
    Path(prefix + ".bin").write_bytes(b"xx")
    with pytest.raises(InputError, match="lists no tokens"):
        TokenDataset.open(prefix)


@pytest.mark.parametrize("wrong", ["corpus", "corpus_text_document.bin", "corpus_text_document.idx"])
def test_a_wrong_prefix_is_answered_with_the_right_one(tokens_prefix, wrong):
    with pytest.raises(InputError, match=rf"did you mean the prefix {re.escape(tokens_prefix)}\?"):
        TokenDataset.open(Path(tokens_prefix).parent / wrong)


def test_values_that_are_no_tokens_are_refused(tmp_path, documents, write_raw):
    with pytest.raises(InputError, match="holds float32 values, not tokens"):
        TokenDataset.open(write_raw(tmp_path / "s", [[0.5]], np.float32, 7))
    prefix = write_raw(tmp_path / "m", [[0, 1]], np.uint8, 1)
    write_json(prefix + ".json", {"format_version": 1, "kind": "penalties"})
    with pytest.raises(InputError, match="holds penalties, not tokens"):
        TokenDataset.open(prefix)


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [0, 0, 7], [4]])
def test_a_mapped_index_says_what_a_read_one_says(tmp_path: Path, lengths: list[int]) -> None:
    prefix = write_tokens(tmp_path / "d", random_documents(lengths)).prefix
    read, mapped = TokenDataset.open(prefix), TokenDataset.open(prefix, mapped=True)
    assert mapped.lengths.tolist() == read.lengths.tolist() and mapped.doc_idx.tolist() == read.doc_idx.tolist()
    assert (mapped.num_tokens, mapped.num_documents, mapped.dtype) == (read.num_tokens, read.num_documents, read.dtype)
    starts, count = read.starts, len(read.starts)
    assert len(mapped.starts) == count and np.asarray(mapped.starts).tolist() == starts.tolist()
    for key in (0, -1, count - 1, np.int64(1), slice(None), slice(0, -1), slice(1, None), slice(None, None, 2),
                np.array([0, count - 1, 1]), np.array([-1, 0]), starts > 2):  # fmt: skip
        np.testing.assert_array_equal(mapped.starts[key], starts[key])
    with pytest.raises(IndexError):
        mapped.starts[count]
    for i in range(len(lengths)):
        np.testing.assert_array_equal(mapped.document(i), read.document(i))
    assert make_fingerprint(read.dtype, mapped.lengths, mapped.doc_idx, "") == make_fingerprint(
        read.dtype, read.lengths, read.doc_idx, ""
    )


def test_a_mapped_index_leaves_nothing_of_the_corpus_in_memory(tmp_path: Path) -> None:
    """A million documents: 24 MB of lengths, starts and doc_idx that are read, a few pages of those that are mapped."""
    lengths = np.full(1_000_000, 1)
    starts = np.arange(len(lengths) + 1)
    np.zeros(len(lengths), np.uint16).tofile(tmp_path / "d.bin")
    write_index(tmp_path / "d.idx", np.uint16, lengths, starts, starts)
    kept = []
    for mapped in (False, True):
        tracemalloc.start()
        dataset = TokenDataset.open(tmp_path / "d", mapped=mapped)
        kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert dataset.num_tokens == len(lengths)
    assert kept[0] > 24e6 > 1e6 > kept[1]


def test_a_damaged_mapped_index_is_refused(tmp_path: Path) -> None:
    dataset = write_tokens(tmp_path / "d", random_documents([3, 4]))
    content = bytearray(dataset.index_path.read_bytes())
    for place, value, message in ((34, 255, "has length -"), (50, 9, "document 1 starts at byte 9, expected 6")):
        damaged = content.copy()
        damaged[place] = value
        if message.startswith("has"):
            damaged[34:38] = b"\xff" * 4
        dataset.index_path.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            TokenDataset.open(dataset.prefix, mapped=True)
    dataset.index_path.write_bytes(content)
    dataset.bin_path.write_bytes(dataset.bin_path.read_bytes()[:-2])
    with pytest.raises(InputError, match="is truncated: 12 bytes, its index needs 14"):
        TokenDataset.open(dataset.prefix, mapped=True)
