"""Work shared by processes that torchrun starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ifguide.system.ranks import Ranks
from tests.support.launching import printed_by, start, torchrun

WORKER = Path(__file__).with_name("ranks_worker.py")


def test_one_process_needs_no_others() -> None:
    ranks = Ranks()
    prepared = []
    ranks.jobs["add"] = lambda amount: prepared.append(amount) or (lambda piece: piece + amount)
    assert list(ranks.map("add", (10,), [1, 2, 3])) == [11, 12, 13]
    assert prepared == [10], "prepared once"
    assert list(ranks.map("add", (20,), [])) == [] and prepared == [10]
    ranks.dismiss()


def test_an_exception_of_this_process_keeps_its_type() -> None:
    ranks = Ranks()
    ranks.jobs["divide"] = lambda: lambda piece: 1 // piece
    with pytest.raises(ZeroDivisionError):
        list(ranks.map("divide", (), [1, 0]))


@pytest.mark.slow
def test_two_ranks(tmp_path: Path) -> None:
    """Pieces are dealt out and come back in order; a fault of any rank is rank 0's, and leaves all usable."""
    logs = tmp_path / "logs"
    started = start([*torchrun(2, logs), WORKER, tmp_path / "found.json"], tmp_path)
    started.communicate(timeout=120)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["multiplied"] == [[[2 * piece, piece % 2] for piece in range(5)], [[0, 0]], []]
    assert found["refuse (2, 3)"] == ["NumericsError", "piece 2 is not finite"], "the first, as in one process"
    assert found["refuse (3,)"] == ["NumericsError", "piece 3 is not finite"]
    assert found["unprepared ()"] == ["InputError", "no model\nno data"]
    kind, said = found["broken ()"]
    assert kind == "RuntimeError" and said.startswith("on rank 1:") and "ZeroDivisionError" in said
    assert found["again"] == [[0, 0], [1, 1]]
    assert started.returncode != 0
    assert [printed_by(logs, rank) for rank in range(2)] == ["worker: rank 0 has enough\n", ""]
