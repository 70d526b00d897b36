"""The tokens that stand before spans in conditional training (`ifguide build-tags`)."""

from __future__ import annotations

GOOD, BAD = "<|good|>", "<|bad|>"
