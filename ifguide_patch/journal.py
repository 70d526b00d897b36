"""Every attribute that the patch sets, with what was there before, so that it can be undone."""

from __future__ import annotations

from typing import Any

_ABSENT = object()


class Journal:
    """Sets attributes and remembers how to put them back, last change first."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """``owner.name = value``; ``owner`` is a module or a class."""
        # of a class, only what it defines itself: an inherited attribute is restored by deleting ours
        before = owner.__bases__ if name == "__bases__" else vars(owner).get(name, _ABSENT)
        self._entries.append((owner, name, before))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Restore everything; the journal is empty afterwards."""
        while self._entries:
            owner, name, before = self._entries.pop()
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
