"""YAML files -> `TrainConfig`: every fault of every key is found and reported at once."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from ifguide.config.neox_keys import DERIVED, HARMLESS, NEOX_CHOICES, NEOX_ONLY
from ifguide.config.yaml_files import merge_files, numbers_as_text
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.checks import value_faults
from ifguide.errors import ConfigError


def load_config(paths: Iterable[str | Path], check_files: bool = True) -> TrainConfig:
    """Read, merge and check configuration files.

    Args:
        paths: YAML (or JSON) files; no key may appear twice.
        check_files: also check that the files which the configuration names exist.

    Raises:
        ConfigError: with every fault found, one line each.
    """
    merged, faults = merge_files([Path(path) for path in paths])
    values, key_faults = _known_values(merged)
    faults += key_faults
    config = TrainConfig(**values)
    unreadable = {_key_of(fault) for fault in key_faults}
    faults += [fault for fault in value_faults(config, check_files) if _key_of(fault) not in unreadable]
    if faults:
        raise ConfigError(faults)
    return config


def _known_values(merged: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of `TrainConfig`'s fields that have the right type, and a fault for every other key."""
    types_of = typing.get_type_hints(TrainConfig)
    known = [field.name for field in fields(TrainConfig)]
    values: dict[str, Any] = {}
    faults: list[str] = []
    for key, value in merged.items():
        text_numbers = list(numbers_as_text(key, value))
        faults += text_numbers
        if key in types_of and key in known:
            if value is None or text_numbers:
                continue
            fault = _type_fault(key, value, types_of[key])
            if fault:
                faults.append(fault)
            else:
                values[key] = _canonical(value, types_of[key])
        elif key in NEOX_ONLY:
            if value not in NEOX_ONLY[key]:
                faults.append(f"{key}: the embedded engine cannot do {value!r}; the neox engine can")
        elif key == "attention_config":
            faults += _attention_faults(value)
        elif key in DERIVED:
            faults.append(f"{key}: is derived; set {DERIVED[key]} instead")
        elif key not in HARMLESS:
            near = difflib.get_close_matches(key, [*known, *NEOX_ONLY, *HARMLESS, "attention_config"], n=1, cutoff=0.6)
            faults.append(f"{key}: unknown key" + (f"; did you mean '{near[0]}'?" if near else ""))
    return values, faults


def _key_of(fault: str) -> str:
    """The top-level key that a fault is about: ``optimizer`` of "optimizer.params.lr: required"."""
    return fault.split(":")[0].split(".")[0].split("[")[0]


def _type_fault(key: str, value: Any, expected: Any) -> str | None:
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


def _canonical(value: Any, expected: Any) -> Any:
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


def _attention_faults(value: Any) -> list[str]:
    """NeoX's attention_config; `global` and `flash` are the same mathematics, the rest is not ours."""

    def kinds(item: Any) -> Iterable[str]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            for part in item:
                yield from kinds(part)

    # [["flash"], "all"]: the pattern for all layers, in place of a number of times
    other = sorted(set(kinds(value)) - {"global", "flash", "all"})
    return [f"attention_config: the embedded engine cannot do {', '.join(other)}; the neox engine can"] if other else []
