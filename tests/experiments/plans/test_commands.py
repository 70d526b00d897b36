"""Commands as stages: known by what they read and say; how long they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ifguide.experiments.graph import Task
from ifguide.experiments.plans.commands import Commands, Given, Made, Own, flags
from ifguide.experiments.plans.estimate import GUESSED, MEASURED, estimates, wall_seconds
from ifguide.experiments.stages import Stage, Stages
from ifguide.system.children import Children, Cost


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The verbs that were run, each of which writes ``out`` into its folder."""
    commands: list[list[str]] = []

    def run(children: Children, command: Any, log: Path, name: str, say: Any = None, what: str = "") -> Cost:
        arguments = list(command[3:])
        commands.append(arguments)
        Path(arguments[arguments.index("--output") + 1]).write_text("made")
        return Cost(1.0, 4096)

    monkeypatch.setattr(Children, "run", run)
    return commands


def make(folder: Path) -> Commands:
    return Commands(folder, Stages(folder, lambda line: None), Children(), lambda line: None)


def chain(commands: Commands, text: Path, extra: tuple[str, ...] = (), label: str = "main") -> tuple[str, str]:
    first = commands.verb("tokens", label, ["one", "--input", Given(text), "--output", Own("out")], ["out"], 10.0)
    items = ["two", "--data", Made(first, "out"), "--scorer", Given(text, "linear:"), *extra, "--output", Own("out")]
    return first, commands.verb("mask", label, items, ["out"], 5.0)


def test_the_same_command_is_one_task_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "copy.txt").write_text("text")
    commands = make(tmp_path / "job")
    first = chain(commands, tmp_path / "a.txt")
    assert chain(commands, tmp_path / "copy.txt", label="other") == first and len(commands.tasks) == 2
    assert chain(commands, tmp_path / "a.txt", ("--wide",))[1] != first[1]
    (tmp_path / "a.txt").write_text("another text")
    changed = chain(commands, tmp_path / "a.txt")
    assert changed[0] != first[0] and changed[1] != first[1]
    # another folder changes no name
    assert chain(make(tmp_path / "elsewhere"), tmp_path / "copy.txt") == first


def test_paths_are_filled_in_and_what_is_finished_is_kept(tmp_path: Path, ran: list[list[str]]) -> None:
    (tmp_path / "a.txt").write_text("text")
    folder = tmp_path / "job"
    folder.mkdir()
    commands = make(folder)
    first, second = chain(commands, tmp_path / "a.txt")
    summaries = [commands.stages.run(task.stage) for task in commands.tasks.values()]
    assert summaries[1] == {"seconds": 1.0, "memory": 4096, "work": 5.0}
    (one, two) = ran
    root = folder / "made" / first.replace(" ", "-")
    assert one == ["one", "--input", str(tmp_path / "a.txt"), "--output", str(root / "out")]
    assert two[2] == str(root / "out") and two[4] == f"linear:{tmp_path / 'a.txt'}"
    ran.clear()
    again = make(folder)
    assert chain(again, tmp_path / "a.txt", label="renamed") == (first, second)  # the name that its folder has
    assert [again.stages.kept(task.stage) is not None for task in again.tasks.values()] == [True, True]
    # somebody changed what it made: it is made again, over that
    (root / "out").write_text("edited")
    for task in again.tasks.values():
        again.stages.run(task.stage)
    assert ran[0][-1] == "--overwrite" and (root / "out").read_text() == "made"


def test_flags() -> None:
    found = flags({"max_fraction": 0.5, "include_eod": True, "shrink": None, "quiet": False, "tasks": ["a", "b"]})
    assert found == ["--max-fraction", "0.5", "--include-eod", "--tasks", "a", "b"]


def test_times_are_measured_where_they_can_be(tmp_path: Path) -> None:
    def task(name: str, work: float, needs: tuple[str, ...] = ()) -> Task:
        return Task(Stage(name, lambda: {"work": work}, {}, needs), name.partition(" ")[0], work, name)

    stages = Stages(tmp_path, lambda line: None)
    tasks = {one.name: one for one in (task("mask a", 1e6), task("mask b", 2e6, ("mask a",)), task("model c", 0.0))}
    guessed = estimates(tasks, stages)
    assert {one.basis for one in guessed.values() if one} == {GUESSED}
    stages.run(tasks["mask a"].stage)
    found = estimates(tasks, stages)
    assert found["mask a"] is None and found["model c"] is not None
    assert found["mask b"] is not None and found["mask b"].basis == MEASURED
    assert wall_seconds(tasks, guessed, 1) == pytest.approx(sum(one.seconds for one in guessed.values() if one))
    serial, both = (guessed[f"mask {name}"].seconds for name in "ab"), guessed["model c"].seconds
    assert wall_seconds(tasks, guessed, 2) == pytest.approx(max(sum(serial), both))
