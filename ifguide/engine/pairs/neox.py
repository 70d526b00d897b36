"""Pairs as datasets for GPT-NeoX's own DPO (``train_impl: dpo``): a document a pair, with labels beside the tokens.

A label is the token itself where it is one of the continuation, and -100 where it is one of the prompt; GPT-NeoX shifts
both. It reads a sample of seq_length + 1 tokens and cuts what is longer, so longer pairs are refused here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ifguide.data.fingerprint import make_fingerprint
from ifguide.data.indexed import write_index
from ifguide.data.preprocess import token_dtype
from ifguide.data.sidecar import FORMAT_VERSION, LABELS, TOKENS, file_states
from ifguide.data.sources.names import input_record
from ifguide.data.text.reader import TextReader
from ifguide.engine.pairs.reading import TokenText, read_pairs
from ifguide.system.files import atomic_path, dump_json, hash_file
from ifguide.system.provenance import origin, versions

NO_LABEL = -100
CHOSEN, REJECTED = "chosen", "rejected"


def neox_prefixes(output_prefix: str | os.PathLike) -> dict[tuple[str, str], str]:
    """("pos" or "neg", "" or "_label") -> prefix of the dataset."""
    prefix = os.fspath(output_prefix)
    return {
        (side, kind): f"{prefix}_{name}{kind}_document"
        for side, name in (("pos", CHOSEN), ("neg", REJECTED))
        for kind in ("", "_label")
    }


def write_neox_pairs(
    pairs: str, output_prefix: str | os.PathLike, reader: TextReader, seq_length: int, tokenizer_files: list[Any]
) -> dict[str, Any]:
    """Write the four datasets of `neox_prefixes`, all or none of them.

    Args:
        pairs: JSONL, as `read_pairs` reads it.
        seq_length: of the training that will read them.
        tokenizer_files: records for the sidecars.

    Returns:
        ``pairs``, ``tokens``, the ``keys`` of a configuration that trains on them.

    Raises:
        InputError: pairs that cannot be read; a `ConfigError` names every faulty line.
    """
    read = read_pairs(pairs, reader, seq_length + 1, seed=0)
    prefixes = neox_prefixes(output_prefix)
    about = {
        "format_version": FORMAT_VERSION,
        "tokenizer": reader.record(),
        "tokenizer_files": tokenizer_files,
        "parameters": {"seq_length": seq_length},
        "inputs": [input_record(pairs)],
        "counts": {"documents": len(read)},
        "tool": versions(),
        **origin(),
    }
    with contextlib.ExitStack() as stack:
        for (side, kind), prefix in prefixes.items():
            texts, labels = read.chosen if side == "pos" else read.rejected, bool(kind)
            values = [_labels(text) if labels else text.tokens for text in texts]
            dtype = np.dtype(np.int32) if labels else token_dtype(reader.vocab_size)
            _write(stack, prefix, values, dtype, labels, about)
    # GPT-NeoX builds no training set where validation and test have none
    keys = {
        f"{side}_{split}{kind}_data_paths": [prefix]
        for split in ("train", "valid", "test")
        for (side, kind), prefix in prefixes.items()
    }
    return {
        "pairs": len(read),
        "tokens": sum(len(text.tokens) for text in (*read.chosen, *read.rejected)),
        "keys": {"train_impl": "dpo", "dataset_impl": "pairwise", "pack_impl": "unpacked", "data_impl": "mmap", **keys},
    }


def _labels(text: TokenText) -> np.ndarray:
    return np.where(text.counts, text.tokens, NO_LABEL)


def _write(
    stack: contextlib.ExitStack,
    prefix: str,
    documents: Sequence[np.ndarray],
    dtype: np.dtype,
    labels: bool,
    about: dict[str, Any],
) -> None:
    """Three files that get their names when ``stack`` closes; the sidecar, entered first, gets its own last."""
    json_file, index_file, bin_file = (
        stack.enter_context(atomic_path(f"{prefix}.{suffix}")) for suffix in ("json", "idx", "bin")
    )
    lengths = np.array([len(document) for document in documents], np.int64)
    values = np.concatenate(documents).astype(dtype)
    starts, doc_idx = np.concatenate([[0], np.cumsum(lengths)]), np.arange(len(lengths) + 1)
    values.tofile(bin_file)
    write_index(index_file, dtype, lengths, starts, doc_idx)
    dump_json(
        json_file,
        {
            **about,
            "kind": LABELS if labels else TOKENS,
            "fingerprint": make_fingerprint(dtype, lengths, doc_idx, hash_file(bin_file)),
            "files": file_states(index_file, bin_file),
        },
    )
