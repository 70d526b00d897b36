"""Which documents a cascade scores exactly, and what its final scores are: against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ifguide.errors import InputError
from ifguide.influence.cascade.choice import (
    AUDITED,
    CHOSEN,
    REJECTED,
    Choice,
    calibrate,
    choose,
    combine,
    states_from_text,
)
from ifguide.influence.options import CascadeSettings
from ifguide.influence.windows import cut
from ifguide.selection import ScoredCorpus, SelectionSettings, Source
from tests.support.datasets import random_documents, write_tokens

_PROPERTY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_LENGTHS = st.lists(st.integers(0, 40), min_size=3, max_size=25).filter(lambda lengths: sum(n > 0 for n in lengths) > 2)


def make_source(scores, lengths, tokens=None, eod=None, chunk=1 << 19):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Source([ScoredCorpus("corpus", np.asarray(scores, np.float32), starts, tokens, eod)], chunk)


def literal_order(scores, lengths, q, unit_tokens, eligible):
    """Units [begin, end) by descending R of the scores above the q-quantile, then by their highest score."""
    threshold = np.quantile(scores.astype(np.float64), q)
    units, count, total, peak = [], [], [], []
    begin = 0
    for length in lengths:
        for low in range(begin, begin + length, unit_tokens):
            high = min(low + unit_tokens, begin + length)
            toxic = [float(scores[i]) for i in range(low, high) if float(scores[i]) > threshold and eligible[i]]
            units.append((low, high))
            count.append(float(len(toxic)))
            total.append(float(np.sum(toxic)))
            peak.append(max(float(score) for score in scores[low:high]))
        begin += length

    def normalise(values):
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.0 for value in values]

    c, f = normalise(count), normalise(total)
    r = [2 * a * b / (a + b) if a + b else 0.0 for a, b in zip(c, f)]
    return [units[u] for u in sorted(range(len(units)), key=lambda u: (-r[u], -peak[u], u))]


@_PROPERTY
@given(
    lengths=_LENGTHS, seed=st.integers(0, 99), keep=st.floats(0.05, 0.9), unit_tokens=st.sampled_from([7, 100]),
    chunk=st.sampled_from([5, 64, 1 << 19]), q=st.sampled_from([0.5, 0.9, 0.97]),
)  # fmt: skip
def test_chooses_the_units_that_rank_first(lengths, seed, keep, unit_tokens, chunk, q):
    rng = np.random.default_rng(seed)
    size = sum(lengths)
    scores = rng.standard_normal(size).astype(np.float32)
    tokens = rng.integers(0, 4, size)
    selection = SelectionSettings(threshold_quantile=q, unit_tokens=unit_tokens)
    expected, used = [], 0
    order = literal_order(scores, lengths, 1 - 2 * (1 - q), unit_tokens, tokens != 0)
    for begin, end in order:
        if used + end - begin > keep * size:
            break
        used += end - begin
        expected.append((begin, end))
    source = make_source(scores, lengths, tokens, 0, chunk)
    choice = choose(source, CascadeSettings(keep, 0.1, 3, selection))
    starts = choice.starts
    chosen = [(int(starts[u]), int(starts[u + 1])) for u in np.flatnonzero(choice.states == CHOSEN)]
    assert chosen == sorted(expected)
    assert sorted(zip(starts[:-1].tolist(), starts[1:].tolist())) == sorted(order)
    rest = [end - begin for begin, end in order if (begin, end) not in expected]
    audited = int((choice.states == AUDITED).sum())
    assert audited == min(len(rest), max(1, round(0.1 * size / np.mean(rest))))


def test_the_audit_is_fair_and_depends_on_its_seed_alone():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 30, 60)
    source = make_source(rng.standard_normal(lengths.sum()), lengths)
    states = np.array([choose(source, CascadeSettings(0.3, 0.1, seed)).states for seed in range(400)])
    np.testing.assert_array_equal(states[7], choose(source, CascadeSettings(0.3, 0.1, 7)).states)
    assert len(np.unique(states == CHOSEN, axis=0)) == 1
    outside = states[0] != CHOSEN
    shares = (states[:, outside] == AUDITED).mean(axis=0)
    expected = (states[0] == AUDITED).sum() / outside.sum()
    # every unit by itself: five standard errors
    assert np.abs(shares - expected).max() < 5 * np.sqrt(expected * (1 - expected) / 400)


@_PROPERTY
@given(lengths=_LENGTHS, eod=st.sampled_from([0, None]), seed=st.integers(0, 99), unit_tokens=st.sampled_from([6, 100]))
def test_windows_are_those_that_score_a_token_of_an_exact_unit(tmp_path, lengths, eod, seed, unit_tokens):
    dataset = write_tokens(tmp_path / "d_text_document", random_documents(lengths))
    choice = random_choice(dataset, unit_tokens, seed)
    windows = cut(dataset, eod, 8, 3)
    known = choice.exact_tokens(0, dataset.num_tokens)
    expected = [w for w in range(len(windows)) if known[windows.places(np.array([w]))].any()]
    np.testing.assert_array_equal(choice.windows(windows), expected)


def random_choice(dataset, unit_tokens, seed):
    starts = []
    for begin, length in zip(dataset.starts, dataset.lengths):
        starts += range(int(begin), int(begin + length), unit_tokens)
    states = np.random.default_rng(seed).integers(0, 3, len(starts)).astype(np.uint8)
    states[:2] = [AUDITED, REJECTED]
    return Choice(np.array([*starts, dataset.num_tokens]), states)


@_PROPERTY
@given(lengths=_LENGTHS, seed=st.integers(0, 99), chunk=st.sampled_from([3, 17, 1000]), disk=st.booleans())
def test_final_scores_are_exact_or_calibrated(tmp_path, lengths, seed, chunk, disk):
    dataset = write_tokens(tmp_path / "d_text_document", random_documents(lengths))
    choice = random_choice(dataset, 9, seed)
    rng = np.random.default_rng(seed)
    cheap, exact = (rng.standard_normal(dataset.num_tokens).astype(np.float32) for _ in range(2))
    audited = np.concatenate(
        [np.arange(choice.starts[u], choice.starts[u + 1]) for u in np.flatnonzero(choice.states == AUDITED)]
    )
    # what no exact pass wrote must not matter
    known = np.repeat(choice.states != REJECTED, np.diff(choice.starts))
    hidden = np.where(known, exact, np.nan).astype(np.float32)
    if disk:
        cheap.tofile(tmp_path / "cheap.bin")
        cheap = np.memmap(tmp_path / "cheap.bin", np.float32, "r")
    calibration = calibrate(cheap, hidden, choice)
    final = np.concatenate(list(combine(cheap, hidden, choice, calibration, chunk)))
    c, e = np.sort(cheap[audited]), np.sort(exact[audited])
    np.testing.assert_array_equal(final[known], exact[known])
    np.testing.assert_allclose(final[~known], np.interp(cheap, c, e)[~known], rtol=1e-5, atol=1e-6)
    assert calibration.tokens == len(audited)
    if len(audited) > 1:
        assert calibration.correlation == pytest.approx(np.corrcoef(cheap[audited], exact[audited])[0, 1], abs=1e-5)


def test_calibration_keeps_order_and_the_tail_of_many_tokens():
    rng = np.random.default_rng(0)
    size = 50_000
    exact = (rng.standard_t(3, size) * 10).astype(np.float32)
    cheap = np.round(exact / 50 + rng.standard_normal(size), 1).astype(np.float32)  # many equal scores
    choice = Choice(np.arange(0, size + 1, 100), np.full(size // 100, AUDITED, np.uint8))
    calibration = calibrate(cheap, exact, choice)
    assert (np.diff(calibration.cheap) > 0).all() and (np.diff(calibration.exact) >= 0).all()
    assert len(calibration.cheap) < 5000
    mapped = calibration(np.random.default_rng(1).choice(cheap, 20_000))
    for q in (0.01, 0.5, 0.9, 0.99):
        share = (exact <= np.quantile(mapped, q)).mean()
        assert abs(share - q) < 0.06 * min(1, 4 * q * (1 - q)) + 0.02


def test_states_survive_a_json_file():
    states = np.random.default_rng(0).integers(0, 3, 5000).astype(np.uint8)
    choice = Choice(np.arange(5001), states)
    np.testing.assert_array_equal(states_from_text(choice.to_text()), states)


def test_refuses_what_is_no_cascade():
    with pytest.raises(InputError, match=r"--cascade-keep 0.*--cascade-audit 1.5.*--cascade-seed -1"):
        CascadeSettings(keep=0, audit=1.5, seed=-1)
