"""Documents as JSON: what the page's script reads is what was given."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from ifguide.pages.document import ShownDocument, documents_json

HEAD = {"tokens": 100, "full": 2.0, "graded": True}


@pytest.fixture
def document() -> ShownDocument:
    return ShownDocument(
        index=7,
        measure=1.23456,
        num_tokens=9,
        num_selected=4,
        first=2,
        pieces=[("</script>", 1), ("😀", 4), ("\x00a", 1)],
        scores=np.array([0.1, -2.0, 0.3, 0.4, 0.0, 1e-7], np.float32),
        ranks=np.array([5, 100, 4, 3, 99, 50]),
        strengths=np.array([0, 51, 51, 255, 0, 255], np.uint8),
        planted=np.array([True, True, False, False, False, True]),
    )


def test_every_field_comes_back(document: ShownDocument) -> None:
    text = documents_json(HEAD, [document])
    assert "</script" not in text and "\x00" not in text
    value = json.loads(text)
    assert value["head"] == HEAD
    (one,) = value["shown"]
    assert one["text"] == "</script>😀␀a" and one["many"] == {"1": 4}
    assert np.frombuffer(base64.b64decode(one["cut"]), "<u2").tolist() == [9, 2, 2], "in the units of the script"
    assert np.frombuffer(base64.b64decode(one["s"]), "<f4").tolist() == document.scores.tolist()
    assert np.frombuffer(base64.b64decode(one["rank"]), "<u4").tolist() == document.ranks.tolist()
    assert one["runs"] == [[1, 3, 51], [3, 4, 255], [5, 6, 255]]
    assert one["planted"] == [[0, 2, 1], [5, 6, 1]]
    assert {key: one[key] for key in "irnkf"} == {"i": 7, "r": 1.235, "n": 9, "k": 4, "f": 2} and one["shown"] == 6


def test_what_is_not_known_is_left_out(document: ShownDocument) -> None:
    plain = replace(document, scores=None, ranks=None, planted=None)
    (one,) = json.loads(documents_json(HEAD, [plain]))["shown"]
    assert not {"s", "rank", "planted"} & one.keys()


def test_places_among_more_scores_than_32_bits_count(document: ShownDocument) -> None:
    far = replace(document, ranks=document.ranks + (1 << 33))
    (one,) = json.loads(documents_json(HEAD | {"tokens": 1 << 34}, [far]))["shown"]
    assert np.frombuffer(base64.b64decode(one["rank"]), "<f8").tolist() == far.ranks.tolist()


def test_no_documents() -> None:
    assert json.loads(documents_json(HEAD, []))["shown"] == []


def test_spans_cover_the_tokens(document: ShownDocument) -> None:
    assert document.spans() == [("</script>", slice(0, 1)), ("😀", slice(1, 5)), ("\x00a", slice(5, 6))]
