"""The journal survives what a kill leaves behind, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifguide.errors import InputError, OutOfSpaceError
from ifguide.system.journal import Journal, key_of


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.write([{"key": "a", "value": "ä\n"}, {"key": "b", "value": 2}])
    whole = path.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 12, -1):
        path.write_bytes(whole[:cut])
        with Journal(path) as journal:
            assert "a" in journal and "b" not in journal and len(journal) == 1
            assert journal["a"]["value"] == "ä\n"
            journal.write([{"key": "b", "value": 2}])
        assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"key": "a"}\n{"ke\n{"key": "c"}\n')
    with pytest.raises(InputError, match="line 2 is damaged"):
        Journal(path)


def test_a_full_disk_names_the_journal(tiny_disk: Path) -> None:
    with Journal(tiny_disk / "journal.jsonl") as journal, pytest.raises(OutOfSpaceError, match=r"journal\.jsonl"):
        journal.write({"key": str(number), "value": "x" * 1000} for number in range(1000))


def test_a_key_is_of_all_its_parts() -> None:
    keys = [key_of("a", "b"), key_of("ab"), key_of("a", ["b"]), key_of(["a"], "b"), key_of("a", None)]
    assert len(set(keys)) == len(keys)
    assert key_of({"x": 1, "y": 2}) == key_of({"y": 2, "x": 1})
