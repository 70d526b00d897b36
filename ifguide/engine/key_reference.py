"""The Markdown reference of the YAML keys, made from the strings under the fields of `TrainConfig`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from typing import NamedTuple

from ifguide.config.neox_keys import HARMLESS, NEOX_ONLY
from ifguide.engine.arguments import TrainConfig
from ifguide.penalties.keys import PenaltyKeys

_SECTION = re.compile(r"^\s*# -{4} (.+) -{4}$")


class KeyReference(NamedTuple):
    """One key: the section it is in, its type as annotated, its default, its documentation."""

    section: str
    type: str
    default: str
    text: str


def documented_keys() -> dict[str, KeyReference]:
    """Key -> reference, in the order of the class."""
    return {**_documented(TrainConfig), **_documented(PenaltyKeys)}


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


def markdown() -> str:
    """The whole reference; ``python -m ifguide.engine.key_reference > configs/ifguide_arguments.md``."""
    lines = [
        "# YAML keys of the embedded engine",
        "",
        "Generated from `ifguide/engine/arguments.py` by `python -m ifguide.engine.key_reference`. Names, types and",
        "defaults are those of GPT-NeoX; the keys of the section IF-Guide are ours and work in both engines.",
    ]
    section = ""
    for name, key in documented_keys().items():
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


if __name__ == "__main__":
    print(markdown(), end="")
