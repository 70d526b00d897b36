"""--log FILE: every verb's words in a file, whole lines with the time, whatever happens; --quiet: no progress."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ifguide.cli import main
from ifguide.system.progress import Progress
from ifguide.verbs import log_file
from ifguide.verbs.log_file import LogError, logged
from tests.support.datasets import write_indexed

_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


def lines_of(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(_STAMP.match(line) for line in lines)
    return [_STAMP.sub("", line) for line in lines]


def test_lines_of_both_streams_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.log"
    with logged(path, ["ifguide", "a verb"]):
        print("one")
        print("two", end="")
        print("\x1b[31mthree\x1b[0m", file=sys.stderr)
        print(" and a half")
        sys.stderr.writelines(["fo", "ur"])
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo and a half\n" and shown.err == "\x1b[31mthree\x1b[0m\nfour"
    assert lines_of(path) == ["$ ifguide 'a verb'", "one", "three", "two and a half", "four"]
    with logged(path, ["again"]):
        pass
    assert lines_of(path)[-1] == "$ again", "nothing is lost"


def test_a_bar_is_one_line_at_its_end_and_one_in_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(log_file.time, "monotonic", lambda: now[0])
    path = tmp_path / "a.log"
    with logged(path, ["x"]) as log:
        assert log is not None
        for share in range(25):
            now[0] += 1
            log.take(f"\r\x1b[2Kscore: {share}%", "err")
        log.take("\r\x1b[2Kscore: done\n", "err")
    assert lines_of(path) == ["$ x", "score: 9%", "score: 19%", "score: done"]


def test_an_exception_is_in_the_file(tmp_path: Path) -> None:
    before = sys.stdout
    with pytest.raises(KeyError), logged(tmp_path / "a.log", ["x"]):
        raise KeyError("gone")
    assert sys.stdout is before
    lines = lines_of(tmp_path / "a.log")
    assert lines[1].startswith("Traceback") and lines[-1] == "KeyError: 'gone'"


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with logged(tmp_path / "a.log", ["x"]):
        pass
    assert not (tmp_path / "a.log").exists()


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LogError), logged(tmp_path / "no/a.log", []):
        pass
    assert main(["doctor", "--log", str(tmp_path / "no/a.log")]) == 2
    error = capsys.readouterr().err
    assert error == f"ifguide doctor: --log {tmp_path / 'no/a.log'}: No such file or directory\n"


def test_a_verb_with_log_and_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_indexed(tmp_path / "d", [[1, 2, 3], [4]])
    command = ["verify", "--data", str(tmp_path / "d")]
    code = main(command)
    loud = capsys.readouterr()
    assert main([*command, "--log", str(tmp_path / "a.log"), "--quiet"]) == code
    quiet = capsys.readouterr()
    assert quiet.out == loud.out and "verify: 100%" in loud.err and "verify: 100%" not in quiet.err
    lines = lines_of(tmp_path / "a.log")
    assert lines[0].startswith("$ ifguide verify --data") and lines[-1] == f"exit {code}"
    assert [line for line in quiet.out.splitlines() if line.strip()] == [
        line for line in lines[1:-1] if line in quiet.out.splitlines()
    ]
    with Progress(1, "tokens", "afterwards"):
        pass
    assert "afterwards" in capsys.readouterr().err, "the silence ends with the command"


def test_faults_are_in_the_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--data", str(tmp_path / "none"), "--log", str(tmp_path / "a.log")]) == 2
    error = capsys.readouterr().err
    assert lines_of(tmp_path / "a.log")[1:] == [*error.splitlines(), "exit 2"]
