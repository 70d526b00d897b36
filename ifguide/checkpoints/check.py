"""Whether a NeoX checkpoint and a Hugging Face folder are the same function, on real text."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures.architecture import Architecture
from ifguide.checkpoints.neox_forward import forward
from ifguide.checkpoints.reader import NeoxCheckpoint
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.errors import InputError
from ifguide.models.loading import load_causal_model

TOLERANCE = 1e-5
"""Largest allowed difference of two logits, as a share of the largest one."""

# the second decides where the first leaves a doubt: sound conversions of deep models differ by more than TOLERANCE in
# single precision, and a whole model in double precision takes twice the memory
PRECISIONS = (torch.float32, torch.float64)

_WINDOW = 256
_SEQUENCES = 4

# Abraham Lincoln at Gettysburg, 19 November 1863
TEXT = (
    "Four score and seven years ago our fathers brought forth, upon this continent, a new nation, conceived in "
    "liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a great civil "
    "war, testing whether that nation, or any nation so conceived, and so dedicated, can long endure. We are met on a "
    "great battle-field of that war. We have come to dedicate a portion of that field, as a final resting place for "
    "those who here gave their lives, that that nation might live. It is altogether fitting and proper that we should "
    "do this. But, in a larger sense, we can not dedicate, we can not consecrate, we can not hallow this ground. The "
    "brave men, living and dead, who struggled here, have consecrated it far above our poor power to add or detract. "
    "The world will little note, nor long remember, what we say here, but it can never forget what they did here."
)


def text_windows(tokenizer: Tokenizer, text: str, architecture: Architecture) -> Tensor:
    """The first tokens of ``text`` as equal windows [B, S], B up to 4 and S up to 256 or what the model takes.

    Raises:
        InputError: fewer than two tokens, or tokens that the model does not have.
    """
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise InputError(f"the text to compare logits on has {len(ids)} tokens; it needs at least 2")
    if max(ids) >= architecture.padded_vocab_size:
        raise InputError(
            f"the tokenizer gives token {max(ids)}, the model has {architecture.padded_vocab_size} rows; "
            "is it the tokenizer of this model?"
        )
    length = min(_WINDOW, architecture.max_position_embeddings, len(ids))
    windows = min(_SEQUENCES, len(ids) // length)
    return torch.tensor(ids[: windows * length]).view(windows, length)


def compare(folder: Path, checkpoint: NeoxCheckpoint, architecture: Architecture, tokens: Tensor) -> dict[str, Any]:
    """Hold Hugging Face's logits against NeoX's (`reference.forward`), both computed from the files.

    A model is as exact as its largest logits are: two kernels of one attention differ by a share of them, not by a
    fixed number. So the difference is measured as that share. What is over `TOLERANCE` in fp32 is computed again in
    fp64, where rounding is far below it and a mistake is as large as before.

    Rows that only one side has (padding of the vocabulary) are left out.

    Returns:
        ``max_difference``, ``max_logit``, ``relative_difference`` (the first over the second), ``tokens``,
        ``tolerance`` (of the relative one), ``precision`` that decided, ``passed``.
    """
    result: dict[str, Any] = {}
    for precision in PRECISIONS:
        result = _compare(folder, checkpoint, architecture, tokens, precision)
        if result["passed"]:
            break
    return result


def _compare(
    folder: Path, checkpoint: NeoxCheckpoint, architecture: Architecture, tokens: Tensor, precision: torch.dtype
) -> dict[str, Any]:
    ours = _huggingface_logits(folder, tokens, precision)
    neox = forward(checkpoint.shards, architecture, tokens, precision)
    rows = min(ours.shape[-1], neox.shape[-1])
    difference = (ours[..., :rows] - neox[..., :rows]).abs().max().item()
    largest = neox[..., :rows].abs().max().item()
    return {
        "max_difference": difference,
        "max_logit": largest,
        "relative_difference": difference / largest if largest else difference,
        "tokens": tokens.numel(),
        "tolerance": TOLERANCE,
        "precision": str(precision).removeprefix("torch."),
        "passed": difference <= TOLERANCE * largest,  # False for NaN
    }


@torch.no_grad()
def _huggingface_logits(folder: Path, tokens: Tensor, precision: torch.dtype) -> Tensor:
    model = load_causal_model(folder, precision, "converted model", attention="eager")
    logits = model.eval()(tokens, use_cache=False).logits
    del model
    gc.collect()  # two models would not fit where one does
    return logits
