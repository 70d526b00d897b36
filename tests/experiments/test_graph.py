"""Stages that need each other: order, several at a time, one that fails, an interruption, a defect."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ifguide.errors import InputError
from ifguide.experiments.graph import DONE, FAILED, KEPT, SKIPPED, Task, run_tasks
from ifguide.experiments.stages import Stage, Stages


class Graph:
    """Stages that note when they run; ``broken`` ones raise."""

    def __init__(self, folder: Path, needs: dict[str, tuple[str, ...]]):
        self.folder, self.needs, self.ran = folder, needs, []
        self.broken: dict[str, BaseException] = {}
        self.while_running: Callable[[str], None] = lambda name: None

    def run(self, jobs: int = 1, end: Callable[[], None] = lambda: None) -> dict[str, Any]:
        self.ran.clear()

        def work(name: str) -> dict[str, Any]:
            self.ran.append(name)
            self.while_running(name)
            if name in self.broken:
                raise self.broken[name]
            (self.folder / name).write_text(name)
            return {"made": name}

        tasks = {
            name: Task(Stage(name, lambda name=name: work(name), {}, needs, (name,)), "kind", 1.0, name)
            for name, needs in self.needs.items()
        }
        self.outcomes = run_tasks(tasks, Stages(self.folder, lambda line: None), jobs, lambda line: None, end)
        return {name: outcome.state for name, outcome in self.outcomes.items()}


NEEDS = {"a": (), "b": ("a",), "c": ("b",), "d": ("a",), "e": ("c", "d"), "f": ()}


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_each_after_what_it_needs_and_kept_the_next_time(tmp_path: Path, jobs: int) -> None:
    graph = Graph(tmp_path, NEEDS)
    assert set(graph.run(jobs).values()) == {DONE}
    assert all(graph.ran.index(below) < graph.ran.index(name) for name, needs in NEEDS.items() for below in needs)
    assert set(graph.run(jobs).values()) == {KEPT} and graph.ran == []
    assert graph.outcomes["c"].summary == {"made": "c"}


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_failure_ends_what_needs_it_and_nothing_else(tmp_path: Path, jobs: int) -> None:
    graph = Graph(tmp_path, NEEDS)
    graph.broken["b"] = InputError("no\nsuch thing")
    states = graph.run(jobs)
    assert states == {"a": DONE, "b": FAILED, "c": SKIPPED, "d": DONE, "e": SKIPPED, "f": DONE}
    assert graph.outcomes["b"].reason == "no such thing"
    assert graph.outcomes["c"].reason == graph.outcomes["e"].reason == "b"
    graph.broken.clear()
    assert graph.run(jobs) == {"a": KEPT, "b": DONE, "c": DONE, "d": KEPT, "e": DONE, "f": KEPT}


def test_as_many_at_a_time_as_allowed(tmp_path: Path) -> None:
    graph, meeting = Graph(tmp_path, {"x": (), "y": ()}), threading.Barrier(2, timeout=20)
    graph.while_running = lambda name: meeting.wait() and None  # passes only where both run
    assert set(graph.run(2).values()) == {DONE}


def test_a_full_disk_is_a_failure_and_a_defect_is_a_traceback(tmp_path: Path) -> None:
    graph = Graph(tmp_path, NEEDS)
    graph.broken["b"] = OSError(28, "No space left on device")
    assert graph.run()["b"] == FAILED and "No space left" in graph.outcomes["b"].reason
    graph.broken["b"] = TypeError("a mistake of ours")
    with pytest.raises(TypeError, match="a mistake of ours"):
        graph.run(2)


def test_an_interruption_ends_the_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, ended = Graph(tmp_path, NEEDS), threading.Event()
    graph.while_running = lambda name: ended.wait(20) and None
    joins = threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        monkeypatch.setattr(threading.Thread, "join", joins)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        graph.run(1, end=ended.set)
    assert ended.is_set() and len(graph.ran) <= 2
