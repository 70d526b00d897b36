"""Why a mask ends under its budget, and the flag that is named for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ifguide.masks.shortfall import of_documents, of_selection, of_words
from ifguide.selection import SelectionSettings


def part(name: str | None = None, **settings: Any) -> Any:
    return SimpleNamespace(name=name, settings=SelectionSettings(**settings))


def selected(count: int, budget: int = 1000, toxic: int = 40) -> dict[str, int]:
    return {"selected": count, "budget": budget, "toxic": toxic}


def test_a_full_budget_needs_no_word() -> None:
    assert of_selection(part(), 3, selected(1000)) == []
    assert of_documents(part(), {"tokens_removed": 1000, "budget": 1000}) == []
    assert of_words(9, 9) == []


@pytest.mark.parametrize(
    ("settings", "has", "has_not"),
    [
        ({}, "and their neighbours are all in; a lower --threshold-quantile (now 0.99) or", ""),
        ({"window": 0}, "the 40 tokens above the threshold are all in;", "neighbours"),
        ({"threshold_quantile": 0}, "a larger --window selects more", "--threshold-quantile"),
    ],
)  # fmt: skip
def test_too_few_toxic_tokens(settings: dict, has: str, has_not: str) -> None:
    (line,) = of_selection(part(**settings), 40, selected(120))
    assert line.startswith("120 tokens are selected of a budget of 1,000: ") and has in line
    assert not has_not or has_not not in line


@pytest.mark.parametrize(
    ("one", "flag"),
    [
        (part(), "a larger --max-fraction"), (part(max_fraction=None, max_tokens=1000), "a larger --max-tokens"),
        (part("insult"), "a larger share in --category"),
    ],
)  # fmt: skip
def test_what_did_not_fit_names_the_budget(one: Any, flag: str) -> None:
    (line,) = of_selection(one, 39, selected(998))
    assert flag in line and "do not fit whole" in line and line.startswith("insult: ") == (one.name == "insult")
    counts = {"tokens_removed": 900, "budget": 1000, "documents_removed": 3, "documents_toxic": 4}
    (line,) = of_documents(one, counts)
    assert flag in line and "the next document does not fit whole" in line
    (line,) = of_documents(one, counts | {"documents_removed": 4})
    assert "a lower --threshold-quantile drops more" in line and flag not in line


def test_a_word_list_that_is_too_short() -> None:
    (line,) = of_words(1200, 3400)
    assert line.startswith("1,200 tokens are selected where --method influence selects 3,400")
    assert line.endswith("a longer --wordlist selects more")
