"""A share of the texts, the same ones every time: a text's number decides, so that the order of inputs does."""

from __future__ import annotations

import hashlib


def is_drawn(number: int, share: float) -> bool:
    """Whether the text ``number`` belongs to a sample of ``share`` of all.

    Args:
        number: of the text among all, from 0.
        share: above 0; 1 takes every text.
    """
    if share >= 1:
        return True
    digest = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64
