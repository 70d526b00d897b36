"""What a checkout's functions look like, read from their source files without importing them."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Python versions disagree on these fields, or they say nothing about meaning
_IGNORED = ("ctx", "kind", "type_comment", "type_params", "type_ignores")


@dataclass(frozen=True)
class Definition:
    """A function or class in a source file.

    Attributes:
        parameters: names, in order; of a class, none.
        digest: of its code without comments, docstrings and layout.
    """

    parameters: tuple[str, ...]
    digest: str


def find(path: Path, name: str) -> Definition | None:
    """The definition of ``name`` (``function`` or ``Class.method``) in the file ``path``; None if it has none."""
    node: ast.AST | None = _parsed(path)
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        children = getattr(node, "body", [])
        node = next((child for child in children if isinstance(child, kinds) and child.name == part), None)
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return None
    parameters: tuple[str, ...] = ()
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        parameters = tuple(one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
    return Definition(parameters, digest(node))


def digest(node: ast.AST) -> str:
    """Hash of a syntax tree that is the same for every version of Python that parses it."""
    return hashlib.blake2b(_canonical(node).encode(), digest_size=8).hexdigest()


@cache
def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None


def _canonical(value: object) -> str:
    if isinstance(value, ast.AST):
        fields = [
            f"{name}={_canonical(child)}"
            for name, child in sorted(ast.iter_fields(value))
            if name not in _IGNORED and child not in (None, [])
        ]
        return f"{type(value).__name__}({','.join(fields)})"
    if isinstance(value, list):
        return f"[{','.join(_canonical(item) for item in value if not _is_docstring(item))}]"
    return repr(value)


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
