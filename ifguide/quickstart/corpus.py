"""The quickstart's corpus: real English that every CPython carries, and threads with planted abuse.

Benign documents are pydoc's topics and the standard library's docstrings (about 2 MB), read from the
running interpreter's own files. Comment threads are written by `comments`; in a recorded share of
them abusive comments are planted. Where they were planted (document, character span) is the ground
truth against which a mask is judged, and is never shown to the method.
"""

from __future__ import annotations

import ast
import functools
import random
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from ifguide.quickstart.comments import Comment, CommentSource

_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "ensurepip", "pydoc_data"}
_DOCUMENT_CHARACTERS = 1400  # docstrings of a module are joined up to about this length
_MIN_DOCSTRING = 40  # shorter ones ("Return x.") carry no English


@dataclass
class Document:
    """A document and the character spans of abuse in it.

    Attributes:
        spans: ``(start, end)`` into ``text``, end exclusive.
        kinds: "direct" or "implicit", one a span.
    """

    text: str
    spans: list[tuple[int, int]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)


@functools.cache
def standard_library_texts() -> tuple[str, ...]:
    """pydoc topics and docstrings of the running interpreter, longest pieces about 1,400 characters.

    Sources are parsed, never imported: importing every module would run code (and open a browser).
    """
    from pydoc_data.topics import topics

    texts = []
    for name in sorted(topics):
        texts += _pieces(topics[name].split("\n\n"))
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if _SKIPPED & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        texts += _pieces(_docstrings(tree))
    return tuple(sorted(set(texts)))


def write_thread(source: CommentSource, comments: list[Comment]) -> Document:
    """A thread of ``comments``, with the spans of the abusive ones."""
    document = Document(thread_title(source))
    for comment in comments:
        document.text += comment_opening(source) + " "
        if comment.abusive:
            start = len(document.text)
            document.spans.append((start, start + len(comment.text)))
            document.kinds.append(comment.kind)
        document.text += comment.text
    return document


def thread_title(source: CommentSource) -> str:
    """First line of a thread."""
    return f"Thread: {source.title()}"


def comment_opening(source: CommentSource) -> str:
    """What precedes a comment; ends with the colon, so a completion begins with its space."""
    return f"\n\n{source.author()}:"


def threads(source: CommentSource, num_threads: int, abusive_share: float) -> list[Document]:
    """``num_threads`` threads of 3-6 comments; ``abusive_share`` of the threads hold one to three insults."""
    documents = []
    for _ in range(num_threads):
        comments = [source.comment("kind") for _ in range(source.count(3, 6))]
        if source.chance(abusive_share):
            for _ in range(source.count(1, 3)):
                comments[source.count(1, len(comments) - 1)] = source.abuse()
        documents.append(write_thread(source, comments))
    return documents


def shuffled(documents: list[Document], seed: int) -> list[Document]:
    """The documents in a seeded order."""
    documents = list(documents)
    random.Random(f"order-{seed}").shuffle(documents)
    return documents


def _docstrings(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= _MIN_DOCSTRING:
                name = getattr(node, "name", None)
                found.append(f"{name}: {text}" if name else text)
    return found


def _pieces(paragraphs: list[str]) -> list[str]:
    """Join paragraphs into texts of about `_DOCUMENT_CHARACTERS`."""
    pieces, current = [], ""
    for paragraph in paragraphs:
        if current and len(current) + len(paragraph) > _DOCUMENT_CHARACTERS:
            pieces.append(current.strip())
            current = ""
        current += paragraph + "\n\n"
    pieces.append(current.strip())
    return [piece for piece in pieces if len(piece) >= _MIN_DOCSTRING]
