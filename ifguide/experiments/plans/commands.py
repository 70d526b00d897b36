"""Commands of this program as stages: known by what they read and say, not by where it lies.

A command is written with `Made` (what another task makes), `Given` (a file of the user's) and `Own` (what it makes
itself) in the place of paths. Its folder is named by a hash of all that, so the same command of two methods, or of a
plan that was changed elsewhere, is one task.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Union

from ifguide.experiments.graph import Task
from ifguide.experiments.stages import Stage, Stages
from ifguide.system.children import Children, Cost, verb_command
from ifguide.system.files import hash_unchanged, hash_value

MADE = "made"  # folder of what commands make


@dataclass(frozen=True)
class Made:
    """A file or folder that ``task`` makes; ``before`` it stands what a spec has there (``linear:``)."""

    task: str
    name: str = ""
    before: str = ""


@dataclass(frozen=True)
class Given:
    """A file or folder of the user's."""

    path: Path
    before: str = ""


@dataclass(frozen=True)
class Own:
    """What the command itself makes, in its folder."""

    name: str = ""


Item = Union[str, Made, Given, Own]  # noqa: UP007 - evaluated


class Commands:
    """The tasks of a job, added one after another; the same one twice is one.

    Args:
        folder: of the job.
        children: runs them.
        say: hears of training.

    Attributes:
        tasks: by name, each behind those that it needs.
        verbs: name -> arguments of ``ifguide``, of those that are verbs.
    """

    def __init__(self, folder: Path, stages: Stages, children: Children, say: Callable[[str], None]):
        self.folder, self.stages, self.children, self.say = folder, stages, children, say
        self.tasks: dict[str, Task] = {}
        self.verbs: dict[str, list[str]] = {}
        self._roots: dict[str, Path] = {}

    def verb(
        self,
        kind: str,
        label: str,
        items: Sequence[Item],
        outputs: Sequence[str],
        work: float,
        finish: Callable[[Path], dict[str, Any]] | None = None,
    ) -> str:
        """Add ``ifguide ITEMS``; returns the task's name.

        Args:
            kind: of `Task`.
            label: for people, part of the folder's name.
            outputs: files in its folder.
            work: of `Task`.
            finish: what of its folder goes into the summary.
        """
        name, root, needs, known = self._name(kind, label, items)
        if name in self.tasks:
            return name
        arguments = [self.text(item, root) for item in items]

        def run() -> dict[str, Any]:
            root.mkdir(parents=True, exist_ok=True)
            # what it made before, and somebody changed since, is to be made again
            again = ["--overwrite"] if self.stages.was_run(name) else []
            cost = self.children.run(verb_command([*arguments, *again]), self.log(name), name)
            return asdict(cost) | {"work": work} | (finish(root) if finish else {})

        self.verbs[name] = arguments
        return self._add(name, root, kind, work, shlex.join(["ifguide", *arguments]), needs, known, outputs, run)

    def call(
        self,
        kind: str,
        label: str,
        items: Sequence[Item],
        outputs: Sequence[str],
        work: float,
        run: Callable[[Path], Cost | None],
        said: str,
        finish: Callable[[Path], dict[str, Any]] | None = None,
    ) -> str:
        """Add what is no verb: ``run`` gets its folder, ``items`` are all that decides what it makes, ``said`` is it in
        words."""
        name, root, needs, known = self._name(kind, label, items)
        if name in self.tasks:
            return name

        def do() -> dict[str, Any]:
            root.mkdir(parents=True, exist_ok=True)
            cost = run(root)
            return (asdict(cost) if cost else {}) | {"work": work} | (finish(root) if finish else {})

        return self._add(name, root, kind, work, said, needs, known, outputs, do)

    def stage(self, stage: Stage, root: Path, kind: str, work: float, said: str) -> str:
        """Add a stage that another module made; ``root`` is where `Made` finds what it makes."""

        def run() -> dict[str, Any]:
            return {**(stage.work() or {}), "work": work}

        if stage.name not in self.tasks:
            whole = Stage(stage.name, run, stage.settings, stage.needs, stage.outputs)
            self.tasks[stage.name] = Task(whole, kind, work, said)
            self._roots[stage.name] = root
        return stage.name

    def path(self, item: Made | Given) -> Path:
        """Where it lies."""
        return item.path if isinstance(item, Given) else self._roots[item.task] / item.name

    def text(self, item: Item, root: Path) -> str:
        """An item as an argument of the command whose folder is ``root``."""
        if isinstance(item, str):
            return item
        if isinstance(item, Own):
            return str(root / item.name)
        return f"{item.before}{self.path(item)}"

    def log(self, name: str) -> Path:
        """Where a task's output goes."""
        return self.folder / "logs" / f"{name.replace(' ', '-')}.log"

    def known(self, kind: str, marked: str, label: str) -> str:
        """The name of a task: that of the same one of another cell, or of an earlier plan, where there is one."""
        for name in (*self.tasks, *self.stages.records):
            if name.startswith(kind) and name.endswith(marked):
                return name
        return f"{kind}{label}{marked}"

    def identity(self, items: Sequence[Item]) -> tuple[list[Any], list[str]]:
        """What items say, paths replaced by what lies there, and the tasks that they need."""
        known: list[Any] = []
        needs: list[str] = []
        for item in items:
            if isinstance(item, str):
                known.append(item)
            elif isinstance(item, Own):
                known.append({"own": item.name})
            elif isinstance(item, Made):
                known.append({"made": item.task, "name": item.name, "before": item.before})
                needs.append(item.task)
            else:
                known.append({"given": _content(item.path), "before": item.before})
        return known, list(dict.fromkeys(needs))

    def _name(self, kind: str, label: str, items: Sequence[Item]) -> tuple[str, Path, list[str], list[Any]]:
        known, needs = self.identity(items)
        name = self.known(f"{kind} ", f" {hash_value([kind, known])[:8]}", label)
        return name, self.folder / MADE / name.replace(" ", "-").replace("/", "-"), needs, known

    def _add(
        self,
        name: str,
        root: Path,
        kind: str,
        work: float,
        said: str,
        needs: Sequence[str],
        known: list[Any],
        outputs: Sequence[str],
        run: Callable[[], dict[str, Any]],
    ) -> str:
        there = [str((root / output).relative_to(self.folder)) for output in outputs]
        self.tasks[name] = Task(Stage(name, run, {"items": known}, needs, there), kind, work, said)
        self._roots[name] = root
        return name


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options of a verb by their names in YAML -> its arguments; None and false leave one out."""
    found: list[str] = []
    for key, value in options.items():
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif isinstance(value, list):
            found += [flag, *map(str, value)]
        elif value is not None and value is not False:
            found += [flag, str(value)]
    return found


def _content(path: Path) -> Any:
    if path.is_dir():
        return sorted([one.name, hash_unchanged(one)] for one in path.iterdir() if one.is_file())
    return hash_unchanged(path)
