"""One coding of penalties, for both engines.

A mask holds a uint8 code a token: 0 for a clean one; 1 for a selected one of a ``binary`` mask; strength * 255 in a
``graded`` one. On the way to the loss a code is brought to the scale 0..255 once (`scaled`), so that no later place
needs to know the mask's encoding, and travels

    above the token's id     ``token + code * 2**32``, int64: `pack`, `unpack`
    as a signed loss mask    0 for a label that does not count, 1 for a clean one, -code for a selected one: `sign`,
                             `unsign`; whole numbers up to 255 survive half precision

One array through packing, workers, collation, pinning and pipelines cannot lose its alignment, and costs a loader
nothing. Strength is ``s = code / 255`` (M4), and λ appears in none of this: a mask says which tokens, never how hard.

Works on numpy arrays and torch tensors alike, and imports neither before it must.
"""

from __future__ import annotations

from typing import Any

CODE_SHIFT = 32
TOKEN_BITS = (1 << CODE_SHIFT) - 1
CODE_MAX = 255
ENCODINGS = ("binary", "graded")


def highest_code(encoding: str) -> int:
    """The largest code that a mask of this encoding may hold on disk.

    Raises:
        ValueError: unknown encoding.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"unknown mask encoding {encoding!r}; one of {', '.join(ENCODINGS)}")
    return 1 if encoding == "binary" else CODE_MAX


def scaled(codes: Any, encoding: str) -> Any:
    """Codes as a mask of this encoding holds them -> codes of 0..255, in the same dtype.

    Raises:
        ValueError: unknown encoding.
    """
    return codes * (CODE_MAX // highest_code(encoding))


def pack(tokens: Any, codes: Any) -> Any:
    """int64 tokens and codes -> int64 ``token + code * 2**32``."""
    return tokens + (codes << CODE_SHIFT)


def unpack(values: Any) -> tuple[Any, Any]:
    """Inverse of `pack`: (tokens, codes), both int64."""
    return values & TOKEN_BITS, values >> CODE_SHIFT


def strength(codes: Any) -> Any:
    """Codes of 0..255 (a torch tensor) -> strength ``s`` in [0, 1], float32."""
    return codes.float() / CODE_MAX


def sign(loss_mask: Any, codes: Any) -> Any:
    """Ordinary loss mask and codes (tensors of one shape) -> signed mask in the loss mask's dtype."""
    import torch

    return torch.where(codes > 0, -codes.to(loss_mask.dtype) * loss_mask, loss_mask)


def unsign(signed: Any, dtype: Any) -> tuple[Any, Any]:
    """Inverse of `sign`: (ordinary loss mask, strength ``s``), both of ``dtype``."""
    return (signed != 0).to(dtype), (-signed.to(dtype)).clamp(min=0) / CODE_MAX
