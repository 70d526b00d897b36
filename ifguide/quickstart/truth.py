"""How well a mask finds the planted abuse: the only place that reads the ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

FOUND_SHARE = 0.25  # a span counts as found when at least this share of its tokens is selected


@dataclass(frozen=True)
class PlantedTokens:
    """The planted spans in tokens.

    Attributes:
        spans: first and last+1 token of each span, offsets into all tokens ``[num_spans, 2]``.
        inside: ``[N_tokens]`` bool, true for tokens that overlap a span.
    """

    spans: NDArray[np.int64]
    inside: NDArray[np.bool_]


def planted_tokens(
    texts: list[str], planted: list[dict], tokenizer: Tokenizer, starts: NDArray[np.int64]
) -> PlantedTokens:
    """Character spans -> token spans, by the tokenizer's own offsets.

    Args:
        texts: all documents, in the order of the dataset.
        planted: rows of ``planted.jsonl``.
        starts: ``[N_docs + 1]`` of the dataset.
    """
    found = []
    inside = np.zeros(int(starts[-1]), bool)
    encodings = tokenizer.encode_batch([texts[row["document"]] for row in planted])
    for row, encoding in zip(planted, encodings):
        offsets = np.array(encoding.offsets)
        for begin, end in row["spans"]:
            tokens = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > begin)) + starts[row["document"]]
            found.append((tokens[0], tokens[-1] + 1))
            inside[tokens] = True
    return PlantedTokens(np.array(found, np.int64).reshape(-1, 2), inside)


def mask_quality(selected: NDArray[np.bool_], planted: PlantedTokens) -> dict[str, float | int]:
    """``precision`` (share of selected tokens that lie in planted spans), ``recall`` (share of spans with at
    least `FOUND_SHARE` of their tokens selected), ``fraction`` of all tokens selected, ``tokens`` selected."""
    count = int(selected.sum())
    before = np.concatenate([[0], np.cumsum(selected)])
    begin, end = planted.spans.T
    found = (before[end] - before[begin]) / (end - begin) >= FOUND_SHARE
    return {
        "precision": float((selected & planted.inside).sum() / max(count, 1)),
        "recall": float(found.mean()),
        "fraction": count / len(selected),
        "tokens": count,
    }
