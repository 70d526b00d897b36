"""Whether a value from a YAML file is what the annotation of a dataclass field says, and the words for it if not."""

from __future__ import annotations

import difflib
import types
import typing
from typing import Any, Literal

from ifguide.config.neox_keys import NEOX_CHOICES


def type_fault(key: str, value: Any, expected: Any) -> str | None:
    """One line if ``value`` is not what the field's annotation says."""
    if _fits(value, expected):
        return None
    choices = _literal(expected)
    if choices:
        if value in NEOX_CHOICES.get(key, ()):
            return f"{key}: the embedded engine cannot do {value!r} (it has {', '.join(choices)}); the neox engine can"
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(choices)}"
        return f"{key}: {value!r} is not a choice; {hint}"
    return f"{key}: expected {_describe(expected)}, got {value!r} ({type(value).__name__})"


def _fits(value: Any, expected: Any) -> bool:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return isinstance(value, str) and value.lower() in {str(choice).lower() for choice in arguments}
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def canonical(value: Any, expected: Any) -> Any:
    """The spelling of a choice that the field declares (NeoX compares choices without case)."""
    for choice in _literal(expected):
        if isinstance(value, str) and value.lower() == choice.lower():
            return choice
    return value


def _literal(expected: Any) -> tuple[str, ...]:
    if typing.get_origin(expected) is Literal:
        return typing.get_args(expected)
    return next((typing.get_args(one) for one in typing.get_args(expected) if typing.get_origin(one) is Literal), ())


def _describe(expected: Any) -> str:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(one) for one in arguments if one is not type(None))
    if origin is list:
        return f"a list of {_describe(arguments[0])}"
    if origin is dict:
        return "a mapping"
    return {int: "an integer", float: "a number", str: "text", bool: "true or false"}.get(expected, str(expected))
