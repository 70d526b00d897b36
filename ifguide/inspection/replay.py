"""The commands behind a file once more, into another folder, and whether they give the same bytes.

Text, tokenizer files, queries and models are taken as given; tokens, factors, scores and masks are made again. Every
path of a recorded command is replaced: what is made again by where it is made now, the rest by its absolute path.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.compat.argparse import options
from ifguide.config.options import Named
from ifguide.data.preprocess import SUFFIX
from ifguide.data.sources.names import absolute_name
from ifguide.errors import ConfigError, IFGuideError, InputError, MismatchError
from ifguide.inspection.lineage import CHANGED, MISSING, Node, trace


@dataclass(frozen=True)
class Commands:
    """The commands of this program, which lie above this room.

    Attributes:
        named: verb -> what its options name; None of a verb whose products are taken as given.
        parser: verb -> the parser of its options.
        run: a verb with its options -> the exit code.
    """

    named: Callable[[str], Named | None]
    parser: Callable[[str], argparse.ArgumentParser]
    run: Callable[[str, Sequence[str]], int]


@dataclass(frozen=True)
class Step:
    """One command of a replay.

    Attributes:
        command: ``["ifguide", VERB, ...]`` with absolute paths.
        folder: that must exist before.
        products: each `Node` that the recorded command made, and where this one makes it.
    """

    command: list[str]
    folder: Path
    products: list[tuple[Node, str]]


def plan(node: Node, output: Path, commands: Commands) -> list[Step]:
    """The commands that make ``node`` again below ``output``, in order.

    Raises:
        InputError: ``node`` was not made by a command that can be run again.
    """
    if not _can_be_made(node, commands):
        how = f"by `{shlex.join(node.command)}`" if node.command else "by a library call, without a command"
        raise InputError(f"{node.role} {node.path} was made {how}: there is nothing to replay")
    made: dict[tuple[str, ...], list[Node]] = {}
    for source in _to_make(node, commands):
        made.setdefault((source.folder or "", *source.command), []).append(source)
    output = output.absolute()
    places: dict[str, str] = {}
    steps = []
    for number, ((folder, *command), products) in enumerate(made.items(), 1):
        steps.append(_step(command, folder, products, output / f"{number}-{command[1]}", places, commands))
        places |= {_plain(product.path): place for product, place in steps[-1].products}
    return steps


def script(node: Node, steps: list[Step], output: Path) -> str:
    """The steps as a shell script."""
    lines = ["#!/bin/sh", f"# makes {node.role} {node.path} again, below {output.absolute()}", "set -eu"]
    lines += [f"# beware: {fault}" for fault in _faults(node, steps)]
    for step in steps:
        lines += ["", f"mkdir -p {shlex.quote(str(step.folder))}", shlex.join(step.command)]
    return "\n".join(lines)


def replay(node: Node, steps: list[Step], output: Path, commands: Commands) -> list[dict[str, Any]]:
    """Run the steps and compare every product with the recorded one.

    Returns:
        One entry a product: ``role``, ``original``, ``product``.

    Raises:
        InputError: ``output`` exists, or something given is no longer what it was (lists all).
        IFGuideError: a step failed.
        MismatchError: a product differs; lists all.
    """
    if output.exists():
        raise InputError(f"--output {output} exists already; name a folder that does not")
    if faults := _faults(node, steps):
        raise ConfigError(faults)
    for step in steps:
        step.folder.mkdir(parents=True)
        with contextlib.redirect_stdout(sys.stderr):
            if commands.run(step.command[1], step.command[2:]) != 0:
                raise IFGuideError(f"the replay ends here, at: {shlex.join(step.command)}")
    results, differing = [], []
    for step in steps:
        for product, place in step.products:
            if trace(place).identity != product.identity:
                differing.append(f"{product.role} {place} differs from {product.path}")
            results.append({"role": product.role, "original": product.path, "product": place})
    if differing:
        raise MismatchError("\n".join(differing))
    return results


def _to_make(node: Node, commands: Commands) -> list[Node]:
    """What commands make again, inputs first; what lies behind anything else is not looked at."""
    found: list[Node] = []

    def visit(source: Node) -> None:
        if not _can_be_made(source, commands) or source in found:
            return
        for behind in source.inputs:
            visit(behind)
        found.append(source)

    visit(node)
    return found


def _can_be_made(node: Node, commands: Commands) -> bool:
    made_here = len(node.command) > 1 and node.command[0] == "ifguide" and node.path is not None
    return made_here and commands.named(node.command[1]) is not None


def _faults(node: Node, steps: list[Step]) -> list[str]:
    """What the steps take as given and is no longer there, or no longer the same."""
    made = [id(product) for step in steps for product, _ in step.products]
    faults = []
    for product in (product for step in steps for product, _ in step.products):
        if product.made_again:
            faults.append(
                f"{product.role} {product.path}: made again since ({product.note}); the command that made what was "
                "used is no longer recorded"
            )
        for source in product.inputs:
            if id(source) not in made and source.status in (CHANGED, MISSING):
                faults.append(f"{source.role} {source.path}: {source.status}" + f" ({source.note})" * bool(source.note))
    return list(dict.fromkeys(faults))


def _step(
    command: list[str], folder: str, products: list[Node], here: Path, places: dict[str, str], commands: Commands
) -> Step:
    verb = command[1]
    names = commands.named(verb)
    assert names is not None  # `_to_make` has left out the others
    parser = commands.parser(verb)
    args = _parse(parser, command)
    moved: dict[str, str] = {}

    def resolve(path: Any) -> str:
        old = absolute_name(path, folder)
        return places.get(old, old)

    def resolve_scorer(spec: str) -> str:
        kind, _, rest = spec.partition(":")
        path, sign, label = rest.partition("#")
        is_path = bool(path) and os.path.exists(os.path.join(folder, path))  # noqa: PTH110, PTH118
        return f"{kind}:{resolve(path)}{sign}{label}" if is_path else spec

    def move(path: Any) -> str:
        old = _plain(os.path.join(folder, path))  # noqa: PTH118
        name = Path(old).name
        moved[old] = str(
            here / (name if name not in {Path(new).name for new in moved.values()} else f"{len(moved)}-{name}")
        )
        return moved[old]

    for name in names.inputs:
        setattr(args, name, _each(getattr(args, name, None), resolve, names.words.get(name, 0)))
    for name in names.scorers:
        setattr(args, name, _each(getattr(args, name, None), resolve_scorer))
    for name in names.outputs:
        setattr(args, name, _each(getattr(args, name, None), move))
    made = [(product, _moved(_plain(product.path), moved)) for product in products]
    return Step(["ifguide", verb, *_written(parser, args)], here, made)


def _each(value: Any, change: Callable[[Any], str], skip: int = 0) -> Any:
    """``value`` with every path in it changed: one path, a list of paths, or a list of lists of paths."""
    if value is None:
        return None
    if not isinstance(value, list):
        return change(value)
    if value and isinstance(value[0], list):
        return [[*row[:skip], *map(change, row[skip:])] for row in value]
    return [change(path) for path in value]


def _moved(path: str, moved: dict[str, str]) -> str:
    """Where what was at ``path`` is made now: at an output, inside one, or at one that a verb adds a suffix to."""
    for old, new in moved.items():
        if path in (old, f"{old}{SUFFIX}") or path.startswith((f"{old}/", f"{old}.")):
            return new + path.removeprefix(old)
    raise InputError(f"{path} says that a command made it which writes to {', '.join(moved)}; its record was edited")


def _parse(parser: argparse.ArgumentParser, command: list[str]) -> argparse.Namespace:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args(command[2:])
    except SystemExit:
        reason = said.getvalue().strip().splitlines()[-1]
        raise InputError(f"this version cannot run '{shlex.join(command)}': {reason}") from None


def _written(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """``args`` as a command line: every option that is not at its default, under its long name."""
    words: list[str] = []
    for action in options(parser):
        value = getattr(args, action.dest, None)
        if value is None or value == action.default or action.dest in ("help", "json"):
            continue
        values = value if isinstance(value, list) else [value]
        for row in values if values and isinstance(values[0], list) else [values]:
            words.append(max(action.option_strings, key=len))
            words += [] if action.nargs == 0 else [str(part) for part in row]
    return words


def _plain(path: str | None) -> str:
    return os.path.abspath(path or "")  # noqa: PTH100 (Path.resolve would follow links)
