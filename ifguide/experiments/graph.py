"""Stages that need each other, as many at a time as the job may have: one that fails ends only what needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ifguide.errors import IFGuideError
from ifguide.experiments.stages import Stage, Stages

KEPT, DONE, FAILED, SKIPPED = "kept", "done", "failed", "skipped"


@dataclass(frozen=True)
class Task:
    """A stage, and what is told of it before it runs.

    Attributes:
        stage: what it does.
        kind: tasks of one kind take time in proportion to their work.
        work: amount of it, in a unit that is the kind's own.
        command: as a person would type it.
    """

    stage: Stage
    kind: str
    work: float
    command: str

    @property
    def name(self) -> str:
        return self.stage.name


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        state: `KEPT`, `DONE`, `FAILED` or `SKIPPED` (something that it needs failed).
        summary: of the stage; empty of one that failed or was skipped.
        reason: why it failed, or the name of the task that did.
    """

    state: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def is_there(self) -> bool:
        return self.state in (KEPT, DONE)


def run_tasks(
    tasks: Mapping[str, Task], stages: Stages, jobs: int, say: Callable[[str], None], end: Callable[[], None]
) -> dict[str, Outcome]:
    """Run ``tasks``, each after those that it needs.

    Args:
        tasks: by name; none needs one behind it.
        jobs: at the same time. Of those that can start, the first in the order of ``tasks`` does.
        end: ends what runs, when this is interrupted.

    Returns:
        What became of each.
    """
    return _Runner(tasks, stages, jobs, say).run(end)


class _Runner:
    """The threads share the outcomes; whoever changes them holds ``_changed``."""

    def __init__(self, tasks: Mapping[str, Task], stages: Stages, jobs: int, say: Callable[[str], None]):
        self._tasks, self._stages, self._jobs, self._say = tasks, stages, jobs, say
        self._waiting = list(tasks.values())
        self._outcomes: dict[str, Outcome] = {}
        self._defect: BaseException | None = None
        self._changed = threading.Condition()

    def run(self, end: Callable[[], None]) -> dict[str, Outcome]:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._jobs)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            with self._changed:
                self._waiting.clear()
                self._changed.notify_all()
            end()
            raise
        if self._defect is not None:
            raise self._defect
        return {name: self._outcomes[name] for name in self._tasks}

    def _work(self) -> None:
        while (task := self._next()) is not None:
            outcome = self._outcome(task)
            with self._changed:
                self._outcomes[task.name] = outcome
                self._skip()
                self._changed.notify_all()

    def _next(self) -> Task | None:
        """The next task that can start, waited for; None when there will be none."""
        with self._changed:
            while True:
                for task in self._waiting:
                    if all(name in self._outcomes for name in task.stage.needs):
                        self._waiting.remove(task)
                        return task
                if not self._waiting:
                    return None
                self._changed.wait()

    def _outcome(self, task: Task) -> Outcome:
        try:
            was_kept = self._stages.kept(task.stage) is not None
            return Outcome(KEPT if was_kept else DONE, self._stages.run(task.stage))
        except IFGuideError as error:
            reason = " ".join(str(error).split())
        except OSError as error:  # a full disk, no permission: the others may still do
            reason = f"{type(error).__name__}: {error}"
        except BaseException as error:  # a defect of ours: told with its traceback, by the caller's thread
            with self._changed:
                self._defect = self._defect or error
                self._waiting.clear()
            reason = repr(error)
        self._say(f"{task.name}: FAILED: {reason}")
        return Outcome(FAILED, reason=reason)

    def _skip(self) -> None:
        """Take what can no longer be done from the waiting tasks."""
        for task in list(self._waiting):
            lacking = [
                name for name in task.stage.needs if name in self._outcomes and not self._outcomes[name].is_there
            ]
            if lacking:
                self._waiting.remove(task)
                cause = self._outcomes[lacking[0]]
                root = lacking[0] if cause.state == FAILED else cause.reason
                self._outcomes[task.name] = Outcome(SKIPPED, reason=root)
