"""Token ids as text: one piece a token, or one for several that share a character.

A byte-level token may hold a part of a UTF-8 character, so tokens cannot be decoded one by one.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNSEEN: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: 0x2421,
    **{
        code: f"⟨U+{code:04X}⟩"
        for code in (
            *range(0x80, 0xA0), 0xAD, 0x061C, 0x180E, *range(0x200B, 0x2010), 0x2028, 0x2029,
            *range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xD800, 0xE000), 0xFEFF,
            *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080),
        )
    },
}  # fmt: skip


def split_text(ids: Iterable[int], token_bytes: Callable[[int], bytes]) -> list[tuple[str, int]]:
    """(text, number of its tokens) of each piece, in order; bytes that are no UTF-8 become U+FFFD.

    Args:
        token_bytes: what each token adds to the text, as `Tokenizer.token_bytes`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces: list[tuple[str, int]] = []
    text, count = "", 0
    for index in ids:
        text += decoder.decode(token_bytes(int(index)))
        count += 1
        if not decoder.getstate()[0]:  # no bytes wait for the rest of their character
            pieces.append((text, count))
            text, count = "", 0
    if count:
        pieces.append((text + decoder.decode(b"", final=True), count))
    return pieces


def densest(kept: NDArray, width: int) -> int:
    """First of the ``width`` consecutive values with the largest sum; 0 where there are no more."""
    if len(kept) <= width:
        return 0
    running = np.concatenate([[0.0], np.cumsum(kept, dtype=np.float64)])
    return int(np.argmax(running[width:] - running[:-width]))


def visible(text: str) -> str:
    """``text`` with every character that is unseen, or reorders what is around it, shown as a picture or by its
    number: a corpus may not hide anything, and may not steer a terminal or a page."""
    return text if text.isprintable() else text.translate(_UNSEEN)


def said(value: Any) -> str:
    """A value of a record for people: lists and mappings without brackets."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {said(item)}" for key, item in value.items())
    return ", ".join(map(said, value)) if isinstance(value, (list, tuple)) else str(value)


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def unlike_names(paths: Sequence[str | Path]) -> list[str]:
    """The last parts of each path, as few as make all names unlike."""
    parts = [Path(path).parts for path in paths]
    names = list(map(str, paths))
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(some[-depth:]) for some in parts]
        if len(set(names)) == len(names):
            break
    return names
