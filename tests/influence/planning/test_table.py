"""A plan as text: nothing that was counted is left out, and numbers keep their size."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ifguide.influence.planning.table import duration, render

PLAN: dict[str, Any] = {
    "model": {
        "architecture": "gpt_neox", "parameters": 70_400_000, "tracked_layers": 24, "tracked_weights": 18_900_000,
    },
    "data": {"documents": 1200, "tokens": 34567, "windows": 80, "overlap": 0.125, "padding": 0.031},
    "settings": {"seq_length": 512, "device": "cuda", "ranks": 2, "disk": "runs"},
    "limits": {"host": 8e9, "device": 16e9, "disk": 100e9},
    "memory": [
        {
            "job": "score", "phase": "scoring pass", "device_bytes": 5e9, "host_bytes": 2e9,
            "device": {"small part": 1e9, "large part": 4e9, "nothing": 0},
        },
    ],
    "disk": [
        {"job": "fit-factors", "name": "covariances", "bytes": 3e9, "temporary": True},
        {"job": "score", "name": "scores", "bytes": 1e9, "temporary": False},
    ],
    "operations": [
        {"job": "score", "phase": "direction", "operations": 1_234_000, "per_token": 999, "seconds": 3.0},
        {"job": "score", "phase": "scoring pass (jvp)", "operations": 5.5e15, "per_token": 2e9, "seconds": None},
    ],
    "timing": {"jvp": {"rows": 4, "columns": 512, "seconds": 0.25, "tokens_per_second": 8192.0}},
    "seconds": 7300.0,
}  # fmt: skip


def test_everything_that_was_counted_is_said() -> None:
    lines = render(PLAN).splitlines()
    assert lines[0] == "model    gpt_neox, 70.4 M parameters, 24 tracked layers with 18.9 M weights"
    assert "1,200 documents, 34,567 tokens in 80 windows of up to 512: 12.5% more by overlap, 3.1% padding" in lines[1]
    assert "GPU memory, one process, 2 processes (there is 16 GB)" in lines
    assert [line.split()[0] for line in lines if line.startswith("      ")] == ["large", "small"], "nothing is no part"
    disk = [line.split() for line in lines if "GB" in line and ("covariances" in line or "scores" in line)]
    assert [(words[1], words[-2]) for words in disk] == [("covariances", "3"), ("scores", "1")]
    assert "(temporary)" in disk[0] and "(temporary)" not in disk[1]
    assert lines[-2] == "timed: a batch of 4 x 512 by jvp in 0.25 s, 8,192 tokens/s"
    assert lines[-1] == "in all about 2.0 h"


def test_operations_stand_under_their_headings() -> None:
    lines = render(PLAN).splitlines()
    (heading,) = (line for line in lines if line.startswith("work"))
    first, second = (line for line in lines if line.startswith("  score: direction") or "(jvp)" in line)
    for column, cells in {
        "operations": ("1.23 M", "5.5e+15"),
        "per token": ("999", "2 G"),
        "time": ("3.0 s", ""),
    }.items():
        end = heading.index(column) + len(column)
        assert [line[:end].rstrip().endswith(cell) for line, cell in zip((first, second), cells)] == [True, True]


def test_on_a_cpu_memory_is_that_of_the_machine() -> None:
    plan = copy.deepcopy(PLAN)
    plan["settings"] |= {"device": "cpu", "ranks": 1}
    plan["timing"], plan["seconds"] = None, None
    text = render(plan)
    assert "\nmemory, one process (there is 8 GB)\n" in text and "host" not in text
    assert "timed" not in text and "in all" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (119.9, "119.9 s"),
        (120.0, "2.0 min"),
        (7199.0, "120.0 min"),
        (7200.0, "2.0 h"),
        (2e5, "2.3 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
