"""Text that is Unicode text: JSON can spell halves of surrogate pairs, which no encoding and no tokenizer takes."""

from __future__ import annotations

from ifguide.errors import InputError


class NotUnicodeError(InputError):
    """A text holds a lone surrogate; the message says which one and where in the text."""


def require_unicode(text: str) -> str:
    """``text`` itself.

    Raises:
        NotUnicodeError: it holds a lone surrogate. Callers put file and line before the message.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise NotUnicodeError(
            f"the text holds a lone surrogate (U+{code:04X}, character {error.start + 1}), which is not Unicode text"
        ) from None
    return text
