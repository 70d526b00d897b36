"""The page of all verbs, made from what their parsers say: ``python -m ifguide.verbs.reference > docs/verbs.md``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ifguide.compat.argparse import options
from ifguide.verbs import VERBS, make_parser, module_of

# the same in every verb that has them
_COMMON = ("--help", "--quiet", "--log", "--json", "--overwrite")


def markdown() -> str:
    """The whole page."""
    lines = [
        "# Verbs",
        "",
        "Made from the code by `python -m ifguide.verbs.reference > docs/verbs.md`; `ifguide VERB --help` shows the",
        "same.",
        "",
        "| verb | |",
        "|---|---|",
        *(f"| [{verb}](#{verb}) | {_cell(text)} |" for verb, text in VERBS.items()),
        "",
        "Exit codes: 0 done, 1 the verdict is no, 2 bad input (one line says what and where), 130 interrupted, 141",
        "nobody reads the output.",
        "",
        "## Options of every verb",
        "",
        *_table(action for action in options(make_parser("score")) if _name(action) in _COMMON),
        "",
        "`--overwrite` belongs to the verbs that write.",
    ]
    for verb in VERBS:
        parser, module = make_parser(verb), module_of(verb)
        lines += ["", f"## {verb}", "", module.SUMMARY, "", "```", module.EXAMPLE, "```"]
        own = [action for action in options(parser) if _is_shown(action) and _name(action) not in _COMMON]
        if own:
            lines += ["", *_table(own)]
    return "\n".join(lines) + "\n"


def _table(actions: Iterator[argparse.Action] | list[argparse.Action]) -> list[str]:
    return ["| option | |", "|---|---|", *(f"| {_flags(one)} | {_meaning(one)} |" for one in actions)]


def _is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS


def _name(action: argparse.Action) -> str:
    return max(action.option_strings, key=len) if action.option_strings else action.dest


def _flags(action: argparse.Action) -> str:
    """Flags and what follows them, as in the usage."""
    if not action.option_strings:
        return f"`{_value(action)}`"
    value = "" if action.nargs == 0 else f" {_value(action)}"
    return ", ".join(f"`{flag}{value}`" for flag in action.option_strings).replace("|", r"\|")


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        words = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
        return " ".join(words)
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def _meaning(action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": "ifguide"}
    return _cell(f"{text} (required)" if action.required and action.option_strings else text)


def _cell(text: str) -> str:
    """As a cell of a table: on one line, and nothing that Markdown reads otherwise."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\|*_":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


if __name__ == "__main__":
    print(markdown(), end="")
