"""The Markdown reference of YAML keys, made from the strings under the fields of their dataclasses."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from typing import NamedTuple

from ifguide.config.neox_keys import HARMLESS, NEOX_ONLY

_SECTION = re.compile(r"^\s*# -{4} (.+) -{4}$")


class KeyReference(NamedTuple):
    """One key: the section it is in, its type as annotated, its default, its documentation."""

    section: str
    type: str
    default: str
    text: str


def documented_keys(*classes: type) -> dict[str, KeyReference]:
    """Key -> reference, in the order of the classes and of the fields that each defines itself."""
    return {name: key for config in classes for name, key in _documented(config).items()}


def _documented(config: type) -> dict[str, KeyReference]:
    """The keys that ``config`` itself defines."""
    source = inspect.getsource(config)
    sections = {
        number: match[1] for number, line in enumerate(source.splitlines(), 1) if (match := _SECTION.match(line))
    }
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    keys = {}
    for node, following in zip(body, [*body[1:], None]):
        if not isinstance(node, ast.AnnAssign):
            continue
        assert isinstance(node.target, ast.Name)
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(str(following.value.value).split())
        section = [name for number, name in sections.items() if number < node.lineno][-1]
        annotation = ast.unparse(node.annotation).removesuffix(" | None")
        keys[node.target.id] = KeyReference(section, annotation, repr(defaults[node.target.id]), text)
    return keys


def markdown(*classes: type) -> str:
    """The whole reference of the keys of ``classes``."""
    lines = [
        "# YAML keys of the embedded engine",
        "",
        "Generated from `ifguide/engine/arguments.py` by `python -m ifguide.engine.arguments`. Names, types and",
        "defaults are those of GPT-NeoX. The keys of the section IF-Guide are ours and work in both engines; those of",
        "the section Other objectives are ours and work in the embedded engine (dpo_beta is GPT-NeoX's too).",
    ]
    section = ""
    for name, key in documented_keys(*classes).items():
        if key.section != section:
            section = key.section
            lines += ["", f"## {section[0].upper()}{section[1:]}", ""]
        lines.append(f"- **{name}** ({key.type}, default {key.default}): {key.text}")
    lines += [
        "",
        "## Keys of GPT-NeoX that have no effect here",
        "",
        "They change how NeoX computes, not what: " + ", ".join(sorted(HARMLESS)) + ".",
        "",
        "## Keys that only the neox engine honours",
        "",
        "Accepted at their neutral value, refused at any other: "
        + ", ".join(sorted(NEOX_ONLY))
        + ", attention_config.",
    ]
    return "\n".join(lines) + "\n"
