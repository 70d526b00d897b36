"""Words for groups of people: whole words, and the list of the package."""

from __future__ import annotations

import pytest

from ifguide.data.text.terms import Terms
from ifguide.errors import InputError


def test_terms_are_whole_words_in_any_case() -> None:
    terms = Terms(["woman", "old people"])
    assert terms.are_in("A WOMAN's hat") and terms.are_in("Old people, too") and terms.are_in("“woman”")
    assert not terms.are_in("womanly") and not terms.are_in("old  people") and not terms.are_in("")


def test_the_list_of_the_package() -> None:
    terms = Terms.read()
    assert len(terms) == len(set(terms.words)) > 100
    assert all(word == word.lower().strip() for word in terms.words)
    assert terms.are_in("a Jewish family") and not terms.are_in("a black car")
    with pytest.raises(InputError, match="does not exist"):
        Terms.read("/nonexistent/list.txt")
