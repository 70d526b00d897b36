"""Where a scorer runs."""

from __future__ import annotations

# they are numpy and scipy, or choose for themselves
_ON_CPU = ("linear", "lexicon", "wordlist", "python")


def device_of(name: str, scorer: str) -> str:
    """The device for the scorer of this spec.

    Args:
        name: as `ifguide.models.devices` takes it; ``auto`` is the CPU for what has no use for another.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto" and scorer.partition(":")[0] in _ON_CPU:
        return "cpu"
    from ifguide.models.devices import choose_device

    return choose_device(name)
