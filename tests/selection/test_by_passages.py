"""M3b and M3c: the selection in chunks equals plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.errors import InputError, NumericsError
from ifguide.selection import (
    PassageSettings,
    ScoredCorpus,
    Source,
    Tally,
    WithinSettings,
    paint_chosen,
    scan,
    select_passages,
    select_within,
    strengths_of,
)
from ifguide.selection.best import Best
from ifguide.selection.by_passages import random_keys
from ifguide.selection.passages import Passages
from tests.selection.literal_passages import (
    Case,
    cases,
    literal_selection,
    literal_strengths,
    literal_within,
    within_settings,
)


def painted(source, chosen, strengths=None) -> np.ndarray:
    codes = np.ones(len(chosen.passages), np.uint8) if strengths is None else strengths
    return np.concatenate([paint_chosen(source, span, chosen, codes) for span in source.spans()])


@settings(max_examples=400, deadline=None)
@given(cases())
def test_passages_equal_the_literal_loop(case: Case):
    source, tally = case.source(), Tally()
    chosen = select_passages(scan(source, case.settings, tally), case.budget, case.settings.positive)
    expected, short = case.expected()
    members = sorted(i for _, inside, _ in expected for i in inside)
    assert np.flatnonzero(painted(source, chosen)).tolist() == members
    assert chosen.passages.num_tokens == len(members) <= case.budget
    # scores to the last bit, whatever the chunks
    assert chosen.passages.scores.tolist() == [score for *_, score in sorted(expected)]
    assert tally.short == len(short) and tally.ranked + tally.short == len(case.literal())


@settings(max_examples=200, deadline=None)
@given(cases())
def test_graded_strengths_equal_the_literal_ones(case: Case):
    source = case.source()
    chosen = select_passages(scan(source, case.settings), case.budget, case.settings.positive)
    codes = painted(source, chosen, strengths_of(chosen.passages.scores, chosen.passages.sizes))
    expected = sorted((i, score) for _, inside, score in case.expected()[0] for i in inside)
    if expected:
        assert codes[codes > 0].tolist() == literal_strengths([score for _, score in expected])


@settings(max_examples=400, deadline=None)
@given(cases(("line", "sentence")), within_settings(), st.data())
def test_tokens_within_passages_equal_the_literal_loop(case: Case, within: WithinSettings, data):
    values = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 0.5, 2.0, 1e30])
    size = len(case.scores)
    scores = np.array(data.draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    spans, tokens = case.source(), case.source(scores)
    chosen = select_passages(scan(spans, case.settings), within.span_budget(size), case.settings.positive)
    taken = select_within(tokens, chosen, within)
    expected = literal_within(
        scores,
        case.expected(within.span_budget(size))[0],
        size,
        within,
        lambda i: float(random_keys(np.array([i]), within.seed)[0]),
    )
    assert np.flatnonzero(painted(tokens, taken)).tolist() == taken.passages.begins.tolist() == expected
    assert taken.passages.scores.tolist() == scores[expected].tolist()


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 12))
def test_pruning_forgets_nothing_that_can_be_selected(case: Case, fewest: int):
    best = Best(case.budget, fewest)
    for found in scan(case.source(), case.settings):
        best.add(found)
    s = case.settings
    expected, _ = literal_selection(case.literal(), case.budget, s.kind == "window", s.shrink, False)
    assert best.result()[0].begins.tolist() == sorted(first for first, *_ in expected)


def test_a_line_over_many_chunks_keeps_its_order_of_addition():
    generator = np.random.default_rng(0)
    scores = generator.standard_normal(5000).astype(np.float32)
    marks = np.zeros(5000, np.uint8)
    marks[[1200, 4000]] = 3

    def found(chunk: int) -> list[float]:
        starts = np.array([0, 2000, 5000])
        source = Source([ScoredCorpus("corpus", scores, starts, boundaries=marks)], chunk)
        return Passages.join(list(scan(source, PassageSettings("line")))).scores.tolist()

    assert found(1) == found(7) == found(1 << 20) and len(found(7)) == 4


def test_the_random_order_is_spread_evenly_and_follows_the_seed():
    keys = random_keys(np.arange(20_000), 1)
    counts = np.histogram(keys, 20, (0, 1))[0]
    # a deviation beyond five sigma does not happen
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert not np.array_equal(keys, random_keys(np.arange(20_000), 2))


def test_a_share_is_what_its_digits_say():
    # ceil of the float product would be 8
    assert -(-10 * WithinSettings(1, 0.7).exact_share // 1) == 7
    assert WithinSettings(0.29, 1.0).span_budget(100) == 29


def test_the_first_passage_that_does_not_fit_ends_the_selection():
    found = Passages(np.array([0, 5, 9]), np.array([3.0, 2.0, 1.0]), np.array([5, 4, 1]), np.array([5, 4, 1]))
    chosen = select_passages([found], 6, True)
    assert chosen.passages.begins.tolist() == [0] and chosen.did_not_fit == 4 and chosen.threshold == 3.0


def test_refuses_what_is_no_span_and_no_share():
    for text in ("lines", "window", "window:", "window:-1", "line:3"):
        with pytest.raises(InputError, match="--span"):
            PassageSettings.parse(text)
    assert str(PassageSettings.parse("window:10")) == "window:10"
    with pytest.raises(InputError, match="shrink"):
        PassageSettings.parse("line", -1)
    with pytest.raises(InputError, match=r"--span-fraction.*--tokens-within.*--within-rule.*--tokens-within-order"):
        WithinSettings(0, 1.1, "all", "first")


@pytest.mark.parametrize("kind", ["line", "window"])
def test_refuses_scores_that_are_not_finite(kind):
    scores = np.array([0, np.nan, 1], np.float32)
    source = Source([ScoredCorpus("corpus", scores, np.array([0, 3]), boundaries=np.zeros(3, np.uint8))])
    with pytest.raises(NumericsError, match="document 0, token 1"):
        list(scan(source, PassageSettings(kind, 1)))
