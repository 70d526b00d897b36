"""Words for groups of people: whether a text has one of a stated list.

The list that comes with the package, ``identity_terms.txt``, names itself as what it is: words by which people are
called by gender, origin, religion, orientation, disability and age. No slur is in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ifguide.errors import InputError
from ifguide.system.text_files import read_text

BUILT_IN = Path(__file__).with_name("identity_terms.txt")


class Terms:
    """Words and phrases; case does not matter, and only whole words count.

    Attributes:
        words: as listed.
    """

    def __init__(self, words: Sequence[str]):
        self.words = tuple(words)
        longest_first = sorted(map(re.escape, self.words), key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)", re.IGNORECASE)

    @classmethod
    def read(cls, path: str | Path | None = None) -> Terms:
        """One word or phrase a line; blank lines and lines that start with # do not count.

        Args:
            path: None for the list of the package.

        Raises:
            InputError: the file cannot be read, or has no word.
        """
        path = BUILT_IN if path is None else path
        listed = (line.strip() for line in read_text(path, "list of identity terms").splitlines())
        words = dict.fromkeys(word for word in listed if word and not word.startswith("#"))
        if not words:
            raise InputError(f"list of identity terms {path} has no word; write one a line")
        return cls(list(words))

    def __len__(self) -> int:
        return len(self.words)

    def are_in(self, text: str) -> bool:
        """Whether ``text`` has one of them."""
        return self._pattern.search(text) is not None
