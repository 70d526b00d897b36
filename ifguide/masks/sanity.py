"""What is odd about a mask: lines for people, none where nothing is.

Raw text has tokens that score high and mean nothing (entities, emoji, numbers, addresses), and a mask of them, or of
one document, is rarely what was wanted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned
from ifguide.data.indexed import TokenDataset
from ifguide.selection.source import read_values

TokenBytes = Callable[[int], bytes]

# the least that is worth a line
_WITHOUT_LETTERS = 0.5
_TOKEN_SHARE, _TOKEN_LIFT = 0.1, 5.0
_DOCUMENT_SHARE, _DOCUMENT_LIFT = 0.25, 10.0
_PHRASE_SHARE = 0.05
_NAMED = 5
# a mask of fewer tokens is too small for shares to say anything
_FEWEST = 200
_CHUNK = 1 << 22
_MOST_IDS = 1 << 20
_PHRASE, _PHRASES_OF_A_CHUNK = 3, 8192  # tokens of a phrase; so many are looked at


def oddities(mask: Aligned, tokens: TokenDataset, token_bytes: TokenBytes | None) -> list[str]:
    """
    Args:
        token_bytes: what each token spells; None where no tokenizer is at hand: tokens are named by their ids then, and
            nothing is said about letters.
    """
    size = min(int(np.iinfo(tokens.dtype).max) + 1, _MOST_IDS)
    selected, every = np.zeros(size, np.int64), np.zeros(size, np.int64)
    phrases: list[NDArray[np.int32]] = []
    by_document = np.zeros(tokens.num_documents, np.int64)
    for begin in range(0, tokens.num_tokens, _CHUNK):
        end = min(begin + _CHUNK, tokens.num_tokens)
        ids = np.clip(read_values(tokens.tokens, begin, end), 0, size - 1)
        at = np.flatnonzero(read_values(mask.values, begin, end))
        every += np.bincount(ids, minlength=size)
        selected += np.bincount(ids[at], minlength=size)
        if len(at):
            documents = np.searchsorted(tokens.starts, at + begin, side="right") - 1
            counts = np.bincount(documents - documents[0])
            by_document[documents[0] : documents[0] + len(counts)] += counts
            phrases.append(_phrases(ids, at, documents))
    total = int(selected.sum())
    if total < _FEWEST:
        return []
    found = [] if token_bytes is None else _without_letters(selected, total, token_bytes)
    found += _tokens(selected, every, total, tokens.num_tokens, token_bytes)
    found += _phrase_lines(np.concatenate(phrases), token_bytes)
    found += _documents(by_document, tokens, total)
    return [f"{mask.prefix}: {line}" for line in found]


def _without_letters(selected: NDArray[np.int64], total: int, token_bytes: TokenBytes) -> list[str]:
    ids = [index for index in np.flatnonzero(selected).tolist() if not _has_letters(token_bytes(index))]
    share = int(selected[ids].sum()) / total
    if share <= _WITHOUT_LETTERS:
        return []
    most = sorted(ids, key=lambda index: (-selected[index], index))[:_NAMED]
    named = ", ".join(f"{_name(index, token_bytes)} {selected[index] / total:.1%}" for index in most)
    return [
        f"{share:.0%} of the selected tokens have no letter ({named}); --ignore-pattern leaves such tokens out (HTML "
        "entities, where it names no other)"
    ]


def _tokens(
    selected: NDArray[np.int64], every: NDArray[np.int64], total: int, num_tokens: int, token_bytes: TokenBytes | None
) -> list[str]:
    shares, expected = selected / total, every / num_tokens
    odd = np.flatnonzero((shares > _TOKEN_SHARE) & (shares > _TOKEN_LIFT * expected))
    return [
        f"{shares[index]:.0%} of the selected tokens are {_name(index, token_bytes)}, which is {expected[index]:.2%} "
        "of all; --ignore-pattern leaves it out"
        for index in odd[np.argsort(-shares[odd], kind="stable")][:_NAMED].tolist()
    ]


def _phrases(
    ids: NDArray[np.integer], at: NDArray[np.int64], documents: NDArray[np.int64]
) -> NDArray[np.int32]:  # fmt: skip
    """Selected neighbours of one document, `_PHRASE` at a time, evenly chosen: int32[n, _PHRASE]."""
    reach = _PHRASE - 1
    together = (at[reach:] - at[:-reach] == reach) & (documents[reach:] == documents[:-reach])
    first = at[:-reach][together]
    first = first[:: max(1, len(first) // _PHRASES_OF_A_CHUNK)]
    return np.stack([ids[first + shift] for shift in range(_PHRASE)], axis=1).astype(np.int32)


def _phrase_lines(phrases: NDArray[np.int32], token_bytes: TokenBytes | None) -> list[str]:
    if len(phrases) < _FEWEST:
        return []
    distinct, counts = np.unique(phrases, axis=0, return_counts=True)
    most = int(counts.argmax())
    share = counts[most] / len(phrases)
    if share <= _PHRASE_SHARE:
        return []
    ids = distinct[most].tolist()
    said = str(ids) if token_bytes is None else repr(b"".join(map(token_bytes, ids)).decode("utf-8", "replace"))
    return [f"{share:.0%} of the selected phrases of {_PHRASE} tokens are {said}; is it a template of the data?"]


def _documents(by_document: NDArray[np.int64], tokens: TokenDataset, total: int) -> list[str]:
    shares, expected = by_document / total, tokens.lengths / tokens.num_tokens
    odd = np.flatnonzero((shares > _DOCUMENT_SHARE) & (shares > _DOCUMENT_LIFT * expected))
    return [
        f"document {index} has {shares[index]:.0%} of the selected tokens and {expected[index]:.2%} of all; look at it "
        "with ifguide inspect"
        for index in odd.tolist()
    ]


def _has_letters(piece: bytes) -> bool:
    """A part of a character may be one of a letter."""
    try:
        return any(character.isalpha() for character in piece.decode("utf-8"))
    except UnicodeDecodeError:
        return True


def _name(index: int, token_bytes: TokenBytes | None) -> str:
    return f"token {index}" if token_bytes is None else f"{token_bytes(index).decode('utf-8', 'replace')!r} ({index})"
