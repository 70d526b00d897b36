"""Windows cover every token once, and see what they must see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ifguide.data.indexed import TokenDataset
from ifguide.errors import InputError
from ifguide.influence import windows as windows_module
from ifguide.influence.batches import MAX_PADDING, NO_LABEL, collate, group_by_length, in_pieces, rows_of_a_piece
from ifguide.influence.windows import Cutting, check_tokens, cut, resolve_lengths, sample
from tests.support.datasets import random_documents, write_tokens

_LENGTHS = st.lists(st.integers(0, 70), min_size=1, max_size=12).filter(lambda lengths: sum(lengths) > 0)
_PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_PROPERTY
@given(lengths=_LENGTHS, seq_length=st.integers(1, 20), context=st.integers(0, 19), eod=st.sampled_from([0, None]))
def test_every_token_is_scored_exactly_once_with_its_own_past(tmp_path, lengths, seq_length, context, eod):
    if context >= seq_length:
        context = seq_length - 1
    dataset = write_tokens(tmp_path / "d_text_document", random_documents(lengths))
    windows = cut(dataset, eod, seq_length, context)
    count = np.zeros(dataset.num_tokens, dtype=int)
    for window in range(len(windows)):
        batch = windows.batch(np.array([window]))
        inputs, labels = batch.inputs[0].numpy(), batch.labels[0].numpy()
        assert len(inputs) <= seq_length
        places = windows.places(np.array([window]))
        np.testing.assert_array_equal(labels[labels != NO_LABEL], dataset.tokens[places])
        count[places] += 1
        document = int(windows.document[window])
        sequence = np.concatenate([[] if eod is None else [eod], dataset.document(document)]).astype(int)
        begin = int(windows.begin[window])
        np.testing.assert_array_equal(inputs, sequence[begin : begin + len(inputs)])
        assert begin == 0 or windows.first[window] - begin == context
    expected = np.ones(dataset.num_tokens, dtype=int)
    if eod is None:
        expected[dataset.starts[:-1][dataset.lengths > 0]] = 0
    np.testing.assert_array_equal(count, expected)


@_PROPERTY
@given(lengths=_LENGTHS, tokens_per_shard=st.integers(1, 60), eod=st.sampled_from([0, None]))
def test_shards_cover_the_dataset_in_order(tmp_path, lengths, tokens_per_shard, eod):
    dataset = write_tokens(tmp_path / "d_text_document", random_documents(lengths))
    windows = cut(dataset, eod, 8, 2)
    place, window = 0, 0
    for piece in windows.pieces(tokens_per_shard):
        assert (piece.start, piece.windows.start) == (place, window)
        inside = windows.of(piece)
        if len(inside):
            places = inside.places(np.arange(len(inside)))
            assert piece.start <= places.min() and places.max() < piece.stop
        place, window = piece.stop, piece.windows.stop
    assert (place, window) == (dataset.num_tokens, len(windows))


def _arrays(windows) -> list[list[int]]:
    return [getattr(windows, name).tolist() for name in ("document", "begin", "first", "end")]


@_PROPERTY
@given(
    lengths=_LENGTHS, tokens=st.integers(1, 60), eod=st.sampled_from([0, None]), seq_length=st.integers(1, 20),
    context=st.integers(0, 19), chunk=st.integers(1, 5), count=st.integers(1, 9),
)  # fmt: skip
def test_windows_of_a_piece_alone_are_those_of_the_whole(
    tmp_path, lengths, tokens, eod, seq_length, context, chunk, count
):
    """A rank that never has all windows makes the same ones: shards, the longest, the totals; with a mapped index."""
    context = min(context, seq_length - 1)
    prefix = write_tokens(tmp_path / "d_text_document", random_documents(lengths)).prefix
    windows = cut(TokenDataset.open(prefix), eod, seq_length, context)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "_DOCUMENTS", chunk)
        cutting = Cutting(TokenDataset.open(prefix, mapped=True), eod, seq_length, context)
        assert len(cutting) == len(windows)
        whole, parts = list(windows.pieces(tokens)), list(cutting.pieces(tokens))
        for one, other in zip(whole, parts, strict=True):
            assert (one.windows, one.start, one.stop) == (other.windows, other.start, other.stop)
            assert not len(windows) or one.first == other.first
            inside, alone = windows.of(one), cutting.of(other)
            assert _arrays(alone) == _arrays(inside)
            assert alone.targets.tolist() == inside.targets.tolist()
        if len(windows):
            assert cutting.longest == windows.longest
            assert _arrays(cutting.longest_ones(count)) == _arrays(windows.longest_ones(count))


def test_a_large_corpus_is_sampled_without_all_of_its_windows(dataset, monkeypatch):
    """Whole windows, seeded, enough of them, and any may be drawn; a small corpus keeps the sample that it had."""
    cutting = Cutting(dataset, 0, 8, 2)
    assert _arrays(sample(cutting, 40, 3)) == _arrays(sample(cutting.whole(), 40, 3))
    monkeypatch.setattr(windows_module, "_SAMPLED_FROM", 0)
    monkeypatch.setattr(Cutting, "whole", lambda self: pytest.fail("all windows at once"))
    monkeypatch.setattr(windows_module, "_PIECES", 5)
    some = sample(cutting, 40, 3)
    assert 40 <= some.scored.sum() < 40 + 8 and _arrays(some) == _arrays(sample(cutting, 40, 3))
    monkeypatch.undo()
    every = set(zip(*_arrays(cutting.whole()), strict=True))
    drawn = [set(zip(*_arrays(cutting.sample(40, seed)), strict=True)) for seed in range(60)]
    assert set.union(*drawn) == every and all(len(each) < len(every) for each in drawn)
    assert _arrays(cutting.sample(10**6, 0)) == _arrays(cutting.whole())


@_PROPERTY
@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=80), max_tokens=st.integers(1, 2000))
def test_batches_are_full_but_hardly_padded(lengths, max_tokens):
    lengths = np.array(lengths)
    groups = group_by_length(lengths, max_tokens, max_rows=20)
    assert sorted(np.concatenate(groups)) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * lengths[group].max()
        assert len(group) == 1 or padded <= max_tokens
        assert len(group) <= 20
        assert padded - lengths[group].sum() <= MAX_PADDING * max(padded, max_tokens / 2) + 1e-9


def test_padding_of_a_usual_corpus_is_small():
    lengths = np.random.default_rng(0).lognormal(4, 1, 1000).astype(int).clip(1, 256)
    groups = group_by_length(lengths, 4096)
    padded = sum(len(group) * lengths[group].max() for group in groups)
    assert padded < lengths.sum() / (1 - MAX_PADDING)
    assert len(groups) < 2 * lengths.sum() / 4096


def test_sample_is_seeded_and_whole(dataset):
    windows = cut(dataset, 0, 8, 2)
    some = sample(windows, 40, seed=3)
    assert 40 <= some.scored.sum() < 40 + 8
    np.testing.assert_array_equal(some.targets, sample(windows, 40, seed=3).targets)
    assert not np.array_equal(some.targets, sample(windows, 40, seed=4).targets)
    assert len(sample(windows, None, seed=3)) == len(windows)


def test_impossible_windows_are_refused():
    with pytest.raises(InputError, match="max_position_embeddings 16"):
        resolve_lengths(16, 17, None)
    with pytest.raises(InputError, match="--context 8"):
        resolve_lengths(16, 8, 8)
    assert resolve_lengths(16, None, None) == (16, 4)


def test_tokens_beyond_the_model_are_refused(dataset, monkeypatch):
    check_tokens(dataset, 256)
    check_tokens(dataset, 1 << 16, lambda: pytest.fail("no uint16 is larger"))
    with pytest.raises(InputError, match="another tokenizer"):
        check_tokens(dataset, 100)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_backward_pass_is_bounded_on_every_device(device):
    """As a forward pass is on a CPU; a single sequence is never cut."""
    assert [rows_of_a_piece(device, 16, columns, backward=True) for columns in (2048, 256, 100, 5000)] == [2, 16, 16, 1]
    assert rows_of_a_piece(device, 64, 100, backward=True) == 40
    assert rows_of_a_piece(device, 16, 2048) == (2 if device == "cpu" else 16)


def test_a_batch_in_pieces_is_the_batch():
    """Whatever the rows, a method sees each sequence once, in order, and no more tokens at a time than it should."""
    draw = np.random.default_rng(0)
    for rows, columns in ((1, 5000), (3, 3000), (9, 1000), (2, 8), (5, 4096)):
        sequences = [draw.integers(1, 9, columns) for _ in range(rows)]
        batch = collate(sequences, sequences)
        pieces = batch.pieces()
        assert torch.equal(torch.cat([piece.inputs for piece in pieces]), batch.inputs)
        assert all(len(piece.inputs) == 1 or piece.inputs.numel() <= 4096 for piece in pieces)

        @in_pieces
        def scores(self, piece):
            return piece.inputs[None] * torch.tensor([1, -1])[:, None, None]

        assert torch.equal(scores(None, batch), batch.inputs[None] * torch.tensor([1, -1])[:, None, None])
