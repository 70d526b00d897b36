"""Tokens that a pattern names: found in the text, without a part in τ or a mean, never selected."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.cli import main
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.sidecar import PENALTIES, read_sidecar
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import CharLevelTokenizer
from ifguide.errors import IFGuideWarning, InputError
from ifguide.masks.ignoring import HTML_ENTITIES, Ignoring
from ifguide.selection import PassageSettings, ScoredCorpus, SelectionSettings, Source, scan, select
from ifguide.selection.passages import Passages
from ifguide.selection.quantile import quantile
from tests.masks.datasets import EOD
from tests.selection.literal import literal_algorithm_1
from tests.selection.literal_passages import literal_passages
from tests.selection.test_algorithm import painted
from tests.support.datasets import write_tokens

READER = TextReader(CharLevelTokenizer())


def ignored_source(scores, starts, is_eod, ignored, chunk: int, boundaries=None) -> Source:
    tokens = np.where(is_eod, 9, 1).astype(np.uint16)
    bits = np.packbits(ignored)
    return Source([ScoredCorpus("corpus", scores, starts, tokens, 9, boundaries, bits)], chunk)


@st.composite
def inputs(draw: st.DrawFn):
    lengths = draw(st.lists(st.sampled_from([1, 2, 5, 9]), min_size=1, max_size=6))
    size = sum(lengths)
    values = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
    scores = np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    ignored = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    ignored[draw(st.integers(0, size - 1))] = False
    is_eod = np.array(draw(st.lists(st.sampled_from([False] * 5 + [True]), min_size=size, max_size=size)), bool)
    return scores, np.concatenate([[0], np.cumsum(lengths)]), is_eod, ignored, draw(st.integers(1, 12))


@settings(max_examples=300, deadline=None)
@given(inputs(), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(0, 2), st.integers(0, 20))
def test_algorithm_1_without_the_ignored_tokens(case, q, window, budget):
    """τ is the quantile of the others; the rest is as if the ignored ones were EOD tokens."""
    scores, starts, is_eod, ignored, chunk = case
    source = ignored_source(scores, starts, is_eod, ignored, chunk)
    selection = select(source, SelectionSettings(q, window, None, budget, 4))
    threshold = np.quantile(scores[~ignored].astype(np.float64), q)
    assert selection.threshold == quantile(source, q) == threshold
    # the literal loop takes its quantile of all: give it ignored scores that do not move τ
    silent = np.where(ignored, np.float32(-9), scores)
    rank = ignored.sum() + q * ((~ignored).sum() - 1)
    moved = rank / max(1, len(scores) - 1)
    if np.quantile(silent.astype(np.float64), moved) == threshold:
        expected = literal_algorithm_1(silent, starts, moved, window, budget, 4, is_eod | ignored)
        assert np.flatnonzero(painted(source, selection)).tolist() == sorted(expected)


@settings(max_examples=200, deadline=None)
@given(inputs(), st.sampled_from(["line", "window"]))
def test_means_without_the_ignored_tokens(case, kind):
    scores, starts, is_eod, ignored, chunk = case
    marks = (np.arange(len(scores)) % 4 == 3).astype(np.uint8) * 3
    found = Passages.join(
        list(scan(ignored_source(scores, starts, is_eod, ignored, chunk, marks), PassageSettings(kind, 2, 1.0)))
    )
    expected = literal_passages(scores, starts, is_eod | ignored, marks > 0, 2 if kind == "window" else None, 1.0)
    assert list(zip(found.begins.tolist(), found.scores.tolist())) == [(first, score) for first, _, score in expected]


CHARACTERS = st.sampled_from([*"ab&#1;x ", "é", "😀", "\udce9"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(CHARACTERS, max_size=14), min_size=1, max_size=4))
def test_every_byte_of_a_match_is_ignored(tmp_path_factory, documents):
    pieces = [document.encode("utf-8", "surrogateescape") for document in documents]
    folder = tmp_path_factory.mktemp("data")
    tokens = write_tokens(folder / "data", [[*piece, EOD] for piece in pieces])
    pattern = r"&#?\w+;|é+x"
    expected = []
    for piece in pieces:
        text, flags = piece.decode("utf-8", "surrogateescape"), [False] * (len(piece) + 1)
        for match in re.finditer(pattern, text):
            begin = len(text[: match.start()].encode("utf-8", "surrogateescape"))
            for at in range(len(match.group().encode("utf-8", "surrogateescape"))):
                flags[begin + at] = True
        expected += flags
    bits = Ignoring(pattern, lambda data: READER).tokens_of(tokens)
    assert np.unpackbits(bits)[: len(expected)].tolist() == expected


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("a &amp; b", ["&amp;"]),
        ("&#128514;&#x1F602;!", ["&#128514;", "&#x1F602;"]),
        ("AT&T; R&D", ["&T;"]),
        ("a & b;", []),
    ],
)
def test_html_entities(text, matches):
    found = [match.group() for match in re.finditer(HTML_ENTITIES, text)]
    assert found == [match for match in matches if len(match) > 3]


def test_the_command_leaves_entities_out_and_warns_of_them(tmp_path, capsys):
    generator = np.random.default_rng(0)
    documents = [[*b"plain words here &#128514; and more", EOD] for _ in range(60)]
    tokenizer = {"type": "CharLevelTokenizer", "eod": EOD, "fingerprint": CharLevelTokenizer().fingerprint}
    tokens = write_tokens(tmp_path / "data", documents, tokenizer=tokenizer)
    entity = np.tile(np.isin(np.arange(36), range(17, 26)), 60)
    scores = (generator.standard_normal(len(entity)) + 9 * entity).astype(np.float32)
    write_aligned(tmp_path / "S", tokens, scores, np.float32, {})
    words = ["build-mask", "--scores", str(tmp_path / "S"), "--max-fraction", "0.2", "--threshold-quantile", "0.8"]
    with pytest.warns(IFGuideWarning, match="of the selected tokens have no letter.*--ignore-pattern"):
        assert main([*words, "--window", "0", "--output", str(tmp_path / "with")]) == 0
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*no letter", IFGuideWarning)
        assert main([*words, "--ignore-pattern", "--output", str(tmp_path / "without")]) == 0
    codes = load_aligned(tmp_path / "without", tokens, PENALTIES).values
    assert codes.sum() > 300 and not codes[entity].any()
    sidecar = read_sidecar(tmp_path / "without")
    assert sidecar["parameters"]["ignored"] == 60 * 9 and sidecar["parameters"]["ignore_pattern"] == HTML_ENTITIES
    assert sidecar["threshold"] == np.quantile(scores[~entity].astype(np.float64), 0.8)
    for pattern, message in (("(", "no regular expression"), ("a*", "matches the empty text")):
        assert main([*words, "--output", str(tmp_path / "x"), "--ignore-pattern", pattern]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InputError):
        Ignoring("(").compiled()
