"""The rows that NeoX pads its vocabulary with.

Sizes: t tokens of the tokenizer, V rows of a Hugging Face model (t or more), P rows of a NeoX model, R tensor-parallel
ranks, H hidden_size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEOX_DEFAULT = 128


def padded(size: int, multiple: int) -> int:
    """``size`` rounded up to a multiple of ``multiple``."""
    return math.ceil(size / multiple) * multiple


def choose_padding(tokens: int, rows: int, ranks: int, divisible_by: int | None) -> tuple[int, int]:
    """NeoX's make_vocab_size_divisible_by for a model of V rows, and the P that NeoX then computes from t.

    NeoX's default serves unless the model has more rows than NeoX would make for its tokenizer (Pythia on some numbers
    of ranks): then the smallest value that keeps every row.

    Args:
        tokens, rows, ranks: t, V, R.
        divisible_by: the user's choice.

    Raises:
        ValueError: ``divisible_by`` leaves no room for some rows.
    """
    choice = divisible_by or NEOX_DEFAULT
    size = padded(tokens, choice * ranks)
    if size >= rows:
        return choice, size
    enough = math.ceil(rows / ranks)
    if divisible_by is not None:
        raise ValueError(
            f"--make-vocab-size-divisible-by {divisible_by} gives {size} rows for the tokenizer's {tokens} tokens, "
            f"the model has {rows}; leave the option out, or take {enough}"
        )
    return enough, enough * ranks


def pad_rows(matrix: Tensor, rows: int) -> Tensor:
    """``matrix[V, H]`` with its mean row appended up to ``rows``.

    As output rows they get the mean of all logits, and exp(mean) <= mean(exp): k added rows take at most k / (k + V) of
    the probability, whatever the input, and raise the loss by at most log(1 + k / V). Rows of zeros have no such bound.
    """
    missing = rows - matrix.shape[0]
    if not missing:
        return matrix
    mean = matrix.float().mean(0, keepdim=True).to(matrix.dtype)
    return torch.cat([matrix, mean.expand(missing, -1)])
