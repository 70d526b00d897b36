from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.evaluation.overlap import Overlap, words_of


def test_words_are_normalised() -> None:
    assert words_of("  The ﬁrst\u00a0CAFÉ—isn't_it?\n") == ("the", "first", "café", "isn", "t", "it")
    assert words_of("…!?") == ()


@pytest.mark.parametrize(
    ("evaluation", "prompt", "completion", "overlaps"),
    [
        ("The man was", "the  MAN, was", " late", True),  # the same prompt
        ("The man was", "So the man was", " late", False),  # too short to mean anything inside another text
        ("The man was late again", "Yesterday the man was late", " again, he said", True),  # inside the whole query
        ("The man was late again", "Yesterday the man was", " later", False),
        ("He said that the man was late again", "the man was late", " and rude", True),  # the prompt is inside
        ("He said that the man was late again", "the man was", " late", False),
        ("the man was late", "the man", " was late", True),  # the whole query is the evaluation's
        ("theman was late now", "the man was late now", " ok", False),  # words, not letters
        ("...", "", " x", False),
        ("Tree", "", "tree", True),
    ],
)
def test_what_overlaps(evaluation: str, prompt: str, completion: str, overlaps: bool) -> None:
    assert Overlap([evaluation]).with_query(prompt, completion) is overlaps


WORDS = st.lists(st.sampled_from("abc"), max_size=9).map(" ".join)


@given(st.lists(WORDS, max_size=4), WORDS, WORDS)
def test_equals_the_literal_rule(texts: list[str], prompt: str, completion: str) -> None:
    def inside(part: str, text: str) -> bool:
        return len(part.split()) >= 4 and f" {part} " in f" {text} "

    completion = f" {completion}"
    whole = (prompt + completion).strip()
    expected = any(text and (text in (prompt, whole) or inside(text, whole) or inside(prompt, text)) for text in texts)
    assert Overlap(texts).with_query(prompt, completion) is expected
