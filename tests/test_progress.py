"""The rate and the time left, of work that is partly somebody else's."""

from __future__ import annotations

import pytest

from ifguide.system import progress as progress_module
from ifguide.system.progress import Progress, silenced


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress_module, "time", made)
    return made


def test_kept_and_skipped_work_is_done_but_no_part_of_the_rate(clock: Clock, capsys: pytest.CaptureFixture) -> None:
    with Progress(1000, "tokens", "score", done=400) as progress:
        clock.now += 10
        progress.update(100)
        assert progress.rate == pytest.approx(10)
        progress.skip(300)
        assert progress.done == 800 and progress.rate == pytest.approx(10)
        clock.now += 10
        progress.update(100)
        assert progress.rate == pytest.approx(10)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "score:  50% 500/1k tokens, 10 tokens/s, ETA 0:50, 400 kept"
    assert last == "score:  90% 900/1k tokens, 10 tokens/s, in 0:20, 700 kept"


def test_nothing_but_kept_work_has_no_rate(clock: Clock) -> None:
    with Progress(10, "tokens", "score", quiet=True) as progress:
        clock.now += 1
        progress.skip(10)
        assert progress.rate == 0


def test_loading_is_no_part_of_the_rate(clock: Clock) -> None:
    made = Progress(100, "texts", "generate", quiet=True)
    clock.now += 60  # before the block
    with made as progress:
        clock.now += 30  # in which the first piece is compiled
        progress.update(10)
        assert progress.rate == pytest.approx(10 / 30), "of one piece nothing better is known"
        clock.now += 5
        progress.update(10)
        assert progress.rate == pytest.approx(2)
        clock.now += 5
        progress.update(20)
        assert progress.rate == pytest.approx(3)


def test_silence_is_for_what_begins_meanwhile(clock: Clock, capsys: pytest.CaptureFixture) -> None:
    with silenced(True), silenced(False), Progress(10, "texts", "first"):
        pass
    with Progress(10, "texts", "second"):
        pass
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["second"]
