"""Datasets written by the builders of GPT-NeoX (where a checkout is given) and of megatron-core."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.indexed import IndexedDataset, TokenDataset
from ifguide.data.verify import verify
from ifguide.errors import InputError

DOCUMENTS = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]
INTEGERS = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64]


@pytest.fixture(scope="session")
def neox(neox: Path) -> Any:
    """The checkout's own indexed_dataset.py. Of its package it needs one function that prints."""
    path = neox / "megatron" / "data" / "indexed_dataset.py"
    spec = importlib.util.spec_from_file_location("_neox_indexed_dataset", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    stand_in = types.ModuleType("megatron")
    stand_in.print_rank_0 = lambda *message: None  # type: ignore[attr-defined]
    before = sys.modules.get("megatron")
    sys.modules["megatron"] = stand_in
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["megatron"]
        if before is not None:
            sys.modules["megatron"] = before
    return module


def write_neox(neox: Any, prefix: Path, dtype: type, documents: list[list[int]] = DOCUMENTS) -> str:
    """As GPT-NeoX's preprocess_data.py does."""
    builder = neox.MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        builder.add_item(np.array(document, dtype))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


def write_core(
    megatron: Any, prefix: Path, dtype: type, groups: list[list[list[int]]], multimodal: bool = False
) -> str:
    """``groups``: sequences of each document of megatron-core's."""
    builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype, multimodal=multimodal)
    for group in groups:
        builder.add_document(np.concatenate(group), [len(sequence) for sequence in group], [0] * len(group))
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


def check_documents(prefix: str, expected: list[list[int]] = DOCUMENTS) -> IndexedDataset:
    dataset = IndexedDataset.open(prefix)
    assert [dataset.document(i).tolist() for i in range(dataset.num_documents)] == expected
    return dataset


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_both_builders_make_the_same_bytes(tmp_path, neox, megatron, dtype):
    theirs = write_neox(neox, tmp_path / "neox", dtype)
    core = write_core(megatron, tmp_path / "core", dtype, [[document] for document in DOCUMENTS])
    for suffix in (".idx", ".bin"):
        assert Path(theirs + suffix).read_bytes() == Path(core + suffix).read_bytes()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(tmp_path, megatron, dtype):
    prefix = write_core(megatron, tmp_path / "core", dtype, [[document] for document in DOCUMENTS])
    assert check_documents(prefix).dtype == dtype
    findings = verify(prefix, vocab_size=15)
    assert findings.faults == [] and findings.warnings == []
    (fault,) = verify(prefix, vocab_size=14).faults
    assert fault.name == "token-id" and fault.message.endswith("14 at document 3, token 1")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_whose_codes_the_projects_exchange(tmp_path, neox, megatron, dtype):
    theirs = check_documents(write_neox(neox, tmp_path / "neox", dtype))
    core = check_documents(write_core(megatron, tmp_path / "core", dtype, [[document] for document in DOCUMENTS]))
    assert theirs.dtype == core.dtype == dtype
    assert theirs.index_path.read_bytes()[17] != core.index_path.read_bytes()[17]


def one_warning(prefix: str, text: str) -> None:
    """Opening tokens warns once, and so does `verify`; nothing is a fault."""
    with pytest.warns(UserWarning) as caught:
        TokenDataset.open(prefix)
    assert len(caught) == 1 and "each sequence is a document" in str(caught[0].message)
    findings = verify(prefix, vocab_size=100)
    assert findings.faults == []
    (warning,) = findings.warnings
    assert text in warning.message


def test_merged_by_neox(tmp_path, neox):
    for name, part in (("a", DOCUMENTS[:2]), ("b", DOCUMENTS[2:])):
        write_neox(neox, tmp_path / name, np.uint16, part)
    builder = neox.MMapIndexedDatasetBuilder(str(tmp_path / "merged.bin"), dtype=np.uint16)
    for name in ("a", "b"):
        builder.merge_file_(str(tmp_path / name))
    builder.finalize(str(tmp_path / "merged.idx"))
    merged = check_documents(str(tmp_path / "merged"))
    assert merged.doc_idx.tolist() == [0]
    one_warning(merged.prefix, "doc_idx covers 0 of 4 sequences (GPT-NeoX's merge leaves it so)")
    check_mask(merged.prefix)


def check_mask(prefix: str) -> None:
    """A mask of such data is written, found aligned and read without further warnings."""
    with pytest.warns(UserWarning):
        tokens = TokenDataset.open(prefix)
    write_aligned(prefix + "_mask", tokens, np.ones(tokens.num_tokens, np.uint8), np.uint8, {"encoding": "binary"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_aligned(prefix + "_mask", tokens, "penalties")
    findings = verify(prefix, [prefix + "_mask"], vocab_size=100)
    assert findings.faults == [] and len(findings.warnings) == 1


def test_merged_by_megatron_core(tmp_path, megatron):
    for name, part in (("a", DOCUMENTS[:2]), ("b", DOCUMENTS[2:])):
        write_core(megatron, tmp_path / name, np.int32, [[document] for document in part])
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "merged.bin"), dtype=np.int32)
    for name in ("a", "b"):
        builder.add_index(str(tmp_path / name))
    builder.finalize(str(tmp_path / "merged.idx"))
    merged = check_documents(str(tmp_path / "merged"))
    assert merged.doc_idx.tolist() == [0, 1, 2, 3, 4]
    assert verify(merged.prefix, vocab_size=100).warnings == []


def test_several_sequences_in_a_document(tmp_path, megatron):
    prefix = write_core(megatron, tmp_path / "grouped", np.uint16, [DOCUMENTS[:2], DOCUMENTS[2:]])
    check_documents(prefix)
    one_warning(prefix, "doc_idx makes 2 groups of 4 sequences")
    check_mask(prefix)


def test_multimodal_is_refused_in_words(tmp_path, megatron):
    prefix = write_core(megatron, tmp_path / "modes", np.int32, [[document] for document in DOCUMENTS], multimodal=True)
    with pytest.raises(InputError, match="a multimodal dataset, which is not read"):
        TokenDataset.open(prefix)
    assert [fault.name for fault in verify(prefix, vocab_size=100).faults] == ["multimodal"]


def test_the_legacy_format_is_refused_in_words(tmp_path, neox):
    builder = neox.IndexedDatasetBuilder(str(tmp_path / "old.bin"), dtype=np.int32)
    builder.finalize(str(tmp_path / "old.idx"))
    (tmp_path / "old.bin").write_bytes(b"1234")
    with pytest.raises(InputError, match="is a legacy index"):
        TokenDataset.open(tmp_path / "old")


def test_neox_reads_our_masks(tmp_path, neox):
    tokens = TokenDataset.open(write_neox(neox, tmp_path / "data", np.uint16))
    codes = np.array([0, 1, 0, 1, 0, 0, 1, 1, 0, 0], np.uint8)
    write_aligned(tmp_path / "mask", tokens, codes, np.uint8, {"encoding": "binary"})
    theirs = neox.MMapIndexedDataset(str(tmp_path / "mask"), skip_warmup=True)
    for i, length in enumerate(map(len, DOCUMENTS)):
        begin = tokens.starts[i]
        assert theirs.get(i, offset=0, length=length).tolist() == codes[begin : begin + length].tolist()
    assert theirs.doc_idx.tolist() == tokens.doc_idx.tolist()
    del theirs
