"""Pairs of continuations as token sequences: what `ifguide build-pairs` writes, and what people write by hand.

A line is a JSON object with ``prompt``, ``chosen`` and ``rejected``; both continuations carry their leading space. Each
text is encoded with its prompt as a query is (`TextReader.query`): ``EOD + prefix + encode(prompt + continuation)``,
and a token that holds a byte of the continuation counts. Nothing is appended, so no answer learns to end early.
``rejected_spans``, a list of [begin, end) in characters of ``rejected``, names the toxic part of it; without it all of
it is toxic. Other fields, such as ``category``, are for other readers.

Shapes: N pairs, B pairs of a micro-batch, P tokens of its longest text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifguide.data.sources.reading import read_rows
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, first_faults
from ifguide.objectives.base import PairBatch
from ifguide.system.files import hash_file
from ifguide.system.text_files import NotUnicodeError

_WHAT = "pairs"
_TEXTS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, eq=False)
class TokenText:
    """A prompt with its continuation.

    Attributes:
        tokens: int64[P].
        counts: bool[P], the tokens of the continuation that have something before them.
        toxic: bool[P], those of them that are labelled toxic.
    """

    tokens: np.ndarray
    counts: np.ndarray
    toxic: np.ndarray


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of a file.

    Attributes:
        path: of the file.
        chosen, rejected: N texts each.
        file_hash: of its bytes.
        seed: of the order.
    """

    path: str
    chosen: Sequence[TokenText]
    rejected: Sequence[TokenText]
    seed: int
    file_hash: str = ""

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def fingerprint(self) -> str:
        """Hash of all tokens and labels, in order."""
        digest = hashlib.blake2b(digest_size=16)
        for text in (*self.chosen, *self.rejected):
            for values in (text.tokens, text.counts, text.toxic):
                digest.update(len(values).to_bytes(8, "little") + values.tobytes())
        return digest.hexdigest()

    def number(self, place: int) -> int:
        """The pair at ``place`` of the endless order: each epoch is a permutation of all pairs, drawn from the seed."""
        epoch, within = divmod(place, len(self))
        return int(_permutation(self.seed, epoch, len(self))[within])

    def batch(self, numbers: Iterable[int]) -> PairBatch:
        """The pairs of these numbers as one batch."""
        chosen = list(numbers)
        texts = [*(self.chosen[number] for number in chosen), *(self.rejected[number] for number in chosen)]
        longest = max(len(text.tokens) for text in texts)
        return PairBatch(
            _padded([text.tokens for text in texts], longest),
            _padded([text.counts for text in texts], longest),
            _padded([text.toxic for text in texts], longest),
            torch.tensor(chosen),
        )


def read_pairs(path: str, reader: TextReader, longest: int, seed: int) -> Pairs:
    """Read and encode a file of pairs.

    Args:
        longest: tokens that the model's window holds.

    Raises:
        InputError: the file is missing, or a line is no JSON object.
        ConfigError: lines have faults; names each.
    """
    faults: list[str] = []
    chosen, rejected = [], []
    for place, row in read_rows(path, _WHAT):
        found = _row_faults(row)
        if not found:
            try:
                texts = [_text(reader, row["prompt"], row[key], _spans(row, key)) for key in _TEXTS[1:]]
            except NotUnicodeError as error:
                found = [str(error)]
            else:
                found = [fault for key, text in zip(_TEXTS[1:], texts) for fault in _text_faults(key, text, longest)]
                chosen.append(texts[0])
                rejected.append(texts[1])
        faults += [place.message(_WHAT, fault) for fault in found]
    if not chosen and not faults:
        faults = [f"{_WHAT} {path} is empty; write lines with prompt, chosen and rejected"]
    if faults:
        raise ConfigError(first_faults(faults))
    return Pairs(str(Path(path).absolute()), chosen, rejected, seed, hash_file(path))


def _row_faults(row: dict[str, Any]) -> list[str]:
    faults = [f'has no "{key}"' for key in _TEXTS if key not in row]
    faults += [f'"{key}" must be text' for key in _TEXTS if not isinstance(row.get(key, ""), str)]
    faults += [f'"{key}" is empty' for key in _TEXTS[1:] if row.get(key) == ""]
    if not faults and row["chosen"] == row["rejected"]:
        faults.append("chosen and rejected are the same text")
    spans = row.get("rejected_spans")
    if spans is not None and not faults and not _are_spans(spans, len(row["rejected"])):
        faults.append('"rejected_spans" must be a list of [begin, end], characters of rejected with begin before end')
    return faults


def _are_spans(spans: Any, length: int) -> bool:
    return isinstance(spans, list) and all(
        isinstance(span, list)
        and len(span) == 2
        and all(isinstance(bound, int) and not isinstance(bound, bool) for bound in span)
        and 0 <= span[0] < span[1] <= length
        for span in spans
    )


def _spans(row: dict[str, Any], key: str) -> list[tuple[int, int]]:
    """The toxic parts of a continuation, in bytes of its UTF-8."""
    text = row[key]
    if key == "chosen":
        return []
    if row.get("rejected_spans") is None:
        return [(0, len(text.encode()))]
    return [(len(text[:begin].encode()), len(text[:end].encode())) for begin, end in row["rejected_spans"]]


def _text(reader: TextReader, prompt: str, continuation: str, toxic: list[tuple[int, int]]) -> TokenText:
    tokens, is_target = reader.query(prompt, continuation)
    _, spans = reader.spans(prompt + continuation)
    before = len(prompt.encode())
    named = [any(begin < before + last and end > before + first for first, last in toxic) for begin, end in spans]
    counts = np.array(is_target, bool)
    counts[:1] = False  # nothing stands before it that could predict it
    labels = np.array([False] * (len(tokens) - len(spans)) + named, bool)
    return TokenText(np.array(tokens, np.int64), counts, labels & counts)


def _text_faults(key: str, text: TokenText, longest: int) -> list[str]:
    if not text.counts.any():
        return [f'"{key}" has no token to predict (it encodes to nothing, or has nothing before it)']
    if len(text.tokens) > longest:
        return [f'prompt and "{key}" are {len(text.tokens)} tokens, the model has a window of {longest}; shorten them']
    return []


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


def _padded(rows: Sequence[np.ndarray], length: int) -> torch.Tensor:
    filled = np.zeros((len(rows), length), rows[0].dtype)
    for row, values in zip(filled, rows):
        row[: len(values)] = values
    return torch.from_numpy(filled)
