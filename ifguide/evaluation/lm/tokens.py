"""How lm-eval's class reads text here: through the model's `TextReader`, framed as lm-eval frames it.

lm-eval lets the tokenizer's template stand wherever it likes: rolling likelihoods count a BOS and an EOS that are no
part of the text, and a continuation is cut off behind the context's EOS. Here

    rolling       opening | tokens of the text          (`LanguageModel.opening`; only what is right of | counts)
    continuation  prefix + tokens before it | tokens that hold a byte of it, of both texts encoded as one
    generation    prefix + tokens of the prompt |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ifguide.errors import InputError
from ifguide.generation.draw import before_stop
from ifguide.models.language_model import LanguageModel

# the frame above, by a number of its own: journals of another frame hold other likelihoods
LIKELIHOODS = 2


class ReaderTokenizer:
    """A `TextReader` under the names that lm-eval asks a transformers tokenizer for."""

    chat_template = None
    padding_side = "left"
    bos_token = None

    def __init__(self, lm: LanguageModel):
        self._lm = lm
        self.name_or_path = lm.name
        self.vocab_size = lm.vocab_size
        self.bos_token_id = next(iter(lm.reader.prefix), None)
        self.eos_token_id = lm.eod if lm.eod is not None else min(lm.stops, default=None)
        self.pad_token_id = self.eos_token_id or 0
        self._special = {*lm.stops, *lm.reader.prefix, *lm.reader.suffix}

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str, **_: Any) -> list[int]:
        """Tokens of the text alone."""
        return self._lm.reader.encode(text)

    def decode(self, tokens: Any, skip_special_tokens: bool = False, **_: Any) -> str:
        """The text of one token or several; with ``skip_special_tokens`` what comes before the first that stops."""
        ids = [tokens] if isinstance(tokens, int) else [int(token) for token in tokens]
        if skip_special_tokens:
            ids = [token for token in before_stop(ids, self._lm.stops) if token not in self._special]
        return self._lm.reader.decode(ids)

    def batch_decode(self, rows: Sequence[Any], **options: Any) -> list[str]:
        return [self.decode(row, **options) for row in rows]


def continuation_tokens(lm: LanguageModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens before the continuation, the template's leading ones first, and its own.

    As in lm-eval, blanks at the end of the context belong to the continuation.

    Raises:
        InputError: nothing stands before the continuation, and there is no token to start from.
    """
    own = context.rstrip()
    ids, spans = lm.reader.spans(context + continuation)
    boundary = len(own.encode("utf-8"))
    first = next((place for place, (_, end) in enumerate(spans) if end > boundary), len(ids))
    return framed(lm, ids[:first]) or opening_tokens(lm), ids[first:]


def opening_tokens(lm: LanguageModel) -> list[int]:
    """`LanguageModel.opening`.

    Raises:
        InputError: it is empty.
    """
    if not lm.opening:
        raise InputError(
            f"the tokenizer of {lm.name} has no token to start a text from, so a text's first token has no likelihood; "
            "name one as eos_token in tokenizer_config.json, or by --eod-token"
        )
    return lm.opening


def framed(lm: LanguageModel, ids: Sequence[int]) -> list[int]:
    """``ids`` after the template's leading tokens, unless the text spells them itself."""
    prefix = list(lm.reader.prefix)
    return [*ids] if list(ids[: len(prefix)]) == prefix else [*prefix, *ids]


def padded(rows: Sequence[Sequence[int]], pad: int, left: bool = True) -> tuple[Tensor, Tensor]:
    """int64 ``[B, T]`` with ``pad`` on one side, and a mask of the same shape: 1 where a row has a token."""
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    zeros = [[0] * len(blank) for blank in fill]
    sides = ((fill, rows), (zeros, ones)) if left else ((rows, fill), (ones, zeros))
    ids, mask = (torch.tensor([[*a, *b] for a, b in zip(*pair, strict=True)]) for pair in sides)
    return ids, mask
