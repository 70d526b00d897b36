"""Which ranking units a cascade scored exactly, as a word in a sidecar.

Shapes: U ranking units.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
from numpy.typing import NDArray

REJECTED, CHOSEN, AUDITED = 0, 1, 2


def states_to_text(states: NDArray[np.uint8]) -> str:
    """``states``[U] for a JSON file."""
    return base64.b64encode(zlib.compress(states.tobytes())).decode()


def states_from_text(text: str, units: int | None = None) -> NDArray[np.uint8]:
    """The states that `states_to_text` wrote, uint8[U].

    Args:
        units: U, if it is known; a text that holds more is not unpacked.

    Raises:
        ValueError: other states, or another number of them.
    """
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(text), 0 if units is None else units + 1)
    except (binascii.Error, zlib.error, TypeError) as error:
        raise ValueError(f"exact_units cannot be unpacked: {error}") from None
    states = np.frombuffer(data, np.uint8)
    if units is not None and len(states) != units:
        raise ValueError(f"exact_units does not name {units} units")
    if len(states) and states.max() > AUDITED:
        raise ValueError(f"exact_units holds the state {states.max()}")
    return states
