"""Lines and sentences end where a plain walk over the characters says, whatever the tokens cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.passages.bits import LINE_END, SENTENCE_END
from ifguide.data.passages.cutting import TokenText, boundaries_of
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import CharLevelTokenizer

CLOSERS = "\"')]}»”’›」』）】》"
STOPS, WIDE = ".!?", "。！？"


@pytest.fixture(scope="module")
def text() -> TokenText:
    return TokenText(TextReader(CharLevelTokenizer()))


def literal(document: str) -> tuple[set[int], set[int]]:
    """(places of characters that end a line, that end a sentence)."""
    lines = {i for i, c in enumerate(document) if c == "\n"}
    sentences = set(lines)
    i = 0
    while i < len(document):
        if document[i] in WIDE:
            while i + 1 < len(document) and document[i + 1] in WIDE + STOPS + CLOSERS:
                i += 1
            sentences.add(i)
        elif document[i] in STOPS and (i == 0 or document[i - 1] not in STOPS):
            j = i
            while j + 1 < len(document) and document[j + 1] in STOPS:
                j += 1
            while j + 1 < len(document) and document[j + 1] in CLOSERS:
                j += 1
            if j + 1 == len(document) or document[j + 1].isspace():
                sentences.add(j)
                i = j
        i += 1
    return lines, sentences


def found(documents: list[str], text: TokenText) -> list[tuple[set[int], set[int]]]:
    """As `literal`, of each document, by the bytes of its characters."""
    pieces = [document.encode() for document in documents]
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    marks = boundaries_of(np.frombuffer(b"".join(pieces), np.uint8), starts, text)
    result = []
    for document, begin in zip(documents, starts):
        ends = np.cumsum([len(character.encode()) for character in document]) + begin - 1
        own = marks[ends.astype(int)]
        result.append((set(np.flatnonzero(own & LINE_END).tolist()), set(np.flatnonzero(own & SENTENCE_END).tolist())))
    assert sum(len(a | b) for a, b in result) == np.count_nonzero(marks), "a mark inside a character"
    return result


CHARACTERS = st.sampled_from([*"ab \n\t.!?\"')", "é", "。", "！", "”", "」", "\u3000", "\xa0", "😀"])


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text(CHARACTERS, min_size=1, max_size=12), min_size=1, max_size=4))
def test_equals_the_plain_walk(text, documents):
    assert found(documents, text) == [literal(document) for document in documents]


@pytest.mark.parametrize(
    ("document", "sentences"),
    [
        ("Hi. Yes", ["Hi.", " Yes"]),
        ('He said "no!" Then 3.5 came.', ['He said "no!"', " Then 3.5 came."]),
        ("www.example.com is down...", ["www.example.com is down..."]),
        ("(What?!) Good", ["(What?!)", " Good"]),
        ("一。二！」三", ["一。", "二！」", "三"]),
        ("one\ntwo", ["one\n", "two"]),
    ],
)
def test_sentences_as_a_reader_cuts_them(text, document, sentences):
    (_, ends), *_ = found([document], text)
    cuts = [0, *sorted(end + 1 for end in ends), len(document)]
    assert [document[a:b] for a, b in itertools.pairwise(cuts) if a < b] == sentences


def test_an_eod_token_counts_as_a_newline_wherever_it_stands(text):
    ids = np.frombuffer(b"ab.\0cd\0", np.uint8)
    assert boundaries_of(ids, np.array([0, 7]), text).tolist() == [0, 0, 2, 3, 0, 0, 3]


def test_a_token_of_several_characters_ends_what_its_bytes_end():
    class Pairs(CharLevelTokenizer):
        vocab_size = 6
        eod = None

        def token_bytes(self, index: int) -> bytes:
            return [b"Hello", b". W", b"orld", b"!\n\n", b"", b"."][index]

    pairs = TokenText(TextReader(Pairs()))
    # an id beyond the vocabulary (padding) and one without text end nothing
    ids = np.array([0, 1, 2, 4, 3, 9, 0, 5])
    assert boundaries_of(ids, np.array([0, 6, 8]), pairs).tolist() == [0, 2, 0, 0, 3, 0, 0, 2]


def test_many_stops_take_no_quadratic_time(text):
    document = ("." * 200_000 + "x").encode()
    assert not boundaries_of(np.frombuffer(document, np.uint8), np.array([0, len(document)]), text).any()
