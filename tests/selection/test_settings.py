"""The parameters of Algorithm 1: all faults at once, and the budget in tokens."""

from __future__ import annotations

import pytest

from ifguide.errors import InputError
from ifguide.selection.settings import SelectionSettings


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"threshold_quantile": 1.0}, "threshold quantile must be in [0, 1), got 1.0"),
        ({"threshold_quantile": float("nan")}, "threshold quantile must be in [0, 1), got nan"),
        ({"window": -1}, "window must be at least 0, got -1"),
        ({"unit_tokens": 0}, "unit tokens must be at least 1, got 0"),
        ({"max_fraction": 1.5}, "max fraction must be in [0, 1], got 1.5"),
        ({"max_fraction": None, "max_tokens": -1}, "max tokens must be at least 0, got -1"),
        ({"max_fraction": None}, "exactly one of max fraction and max tokens"),
        ({"max_tokens": 5}, "exactly one of max fraction and max tokens"),
    ],
)
def test_each_fault_is_named(values: dict, says: str) -> None:
    with pytest.raises(InputError) as caught:
        SelectionSettings(**values)
    assert says in str(caught.value) and ";" not in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InputError, match=r"threshold quantile .*; window .*; unit tokens .*; max fraction"):
        SelectionSettings(threshold_quantile=-1, window=-1, unit_tokens=0, max_fraction=-0.1)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    assert SelectionSettings(threshold_quantile=0, window=0, unit_tokens=1, max_fraction=0).budget(10) == 0
    assert SelectionSettings(max_fraction=1.0).budget(10) == 10


def test_the_budget_is_rounded_down_or_as_given() -> None:
    assert SelectionSettings(max_fraction=0.02).budget(149) == 2
    assert SelectionSettings(max_fraction=0.02).budget(49) == 0
    assert SelectionSettings(max_fraction=None, max_tokens=7).budget(3) == 7
