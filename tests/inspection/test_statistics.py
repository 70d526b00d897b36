"""The counts against literal loops, whatever the chunks."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.aligned import Aligned, load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.errors import InputError
from ifguide.inspection.statistics import Overlap, Phrases, collect
from tests.support.datasets import write_mask, write_tokens

LENGTHS = [7, 0, 1, 33, 1, 20, 0, 64, 5]


class Data:
    def __init__(self, folder: Path, seed: int, density: float = 0.4):
        generator = np.random.default_rng(seed)
        self.tokens: TokenDataset = write_tokens(
            folder / "d_text_document", [generator.integers(0, 6, length) for length in LENGTHS]
        )
        count = self.tokens.num_tokens
        self.values = generator.normal(size=count).astype(np.float32)
        write_aligned(folder / "s", self.tokens, self.values, np.float32, {})
        self.scores = load_aligned(folder / "s", self.tokens, "scores")
        self.codes = [
            np.where(generator.random(count) < density, generator.integers(1, 256, count), 0).astype(np.uint8)
            for _ in range(3)
        ]
        self.masks: list[Aligned] = []
        for number, codes in enumerate(self.codes):
            write_mask(folder / f"m{number}", self.tokens, codes, "graded")
            self.masks.append(load_aligned(folder / f"m{number}", self.tokens, "penalties"))

    def documents(self) -> list[range]:
        starts = self.tokens.starts.tolist()
        return [range(start, end) for start, end in pairwise(starts)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_literal_loops(tmp_path: Path, seed: int, chunk: int) -> None:
    data = Data(tmp_path, seed)
    found, overlaps = collect(data.masks, data.tokens, data.scores, 50, chunk)
    ids = data.tokens.tokens.tolist()
    for statistics, codes in zip(found, data.codes):
        deciles, all_deciles, offsets, all_offsets = Counter(), Counter(), Counter(), Counter()
        selected_ids, phrases, shares = Counter(), Counter(), []
        for document in data.documents():
            shares.append(sum(codes[at] > 0 for at in document) / max(1, len(document)))
            run: list[int] = []
            for offset, at in enumerate(document):
                decile, bin_ = 10 * offset // len(document), offset.bit_length()
                all_deciles[decile] += 1
                all_offsets[bin_] += 1
                if codes[at]:
                    deciles[decile] += 1
                    offsets[bin_] += 1
                    selected_ids[ids[at]] += 1
                    run.append(ids[at])
                elif run:
                    phrases[tuple(run)] += 1
                    run = []
            if run:
                phrases[tuple(run)] += 1
        selected = codes > 0
        assert statistics.num_selected == selected.sum() and statistics.num_tokens == len(codes)
        assert statistics.strength == pytest.approx(codes[selected].mean())
        assert statistics.shares.tolist() == shares
        assert statistics.selected_by_decile.tolist() == [deciles[d] for d in range(10)]
        assert statistics.tokens_by_decile.tolist() == [all_deciles[d] for d in range(10)]
        assert statistics.selected_by_offset.tolist() == [offsets[b] for b in range(8)]
        assert statistics.tokens_by_offset.tolist() == [all_offsets[b] for b in range(8)]
        assert statistics.selected_by_id is not None and statistics.tokens_by_id is not None
        assert statistics.selected_by_id.tolist() == [selected_ids[index] for index in range(6)]
        assert statistics.tokens_by_id.tolist() == [ids.count(index) for index in range(6)]
        expected = sorted(phrases.items(), key=lambda item: (-item[1], item[0]))[:50]
        assert statistics.phrases == expected and statistics.phrases_missed == 0
        assert statistics.scores == pytest.approx(
            {"selected_mean": data.values[selected].mean(), "other_mean": data.values[~selected].mean()}, rel=1e-5
        )
    for (first, second), overlap in overlaps.items():
        one, two = data.codes[first] > 0, data.codes[second] > 0
        measures = overlap.measures()
        assert measures["jaccard"] == pytest.approx((one & two).sum() / (one | two).sum())
        assert measures["of_first"] == pytest.approx(two[one].mean())
        assert measures["of_second"] == pytest.approx(one[two].mean())
        assert measures["phi"] == pytest.approx(np.corrcoef(one, two)[0, 1])
    assert len(overlaps) == 3


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full_masks(tmp_path: Path, density: float) -> None:
    data = Data(tmp_path, 2, density)
    found, overlaps = collect(data.masks[:2], data.tokens, None, 50, 9)
    filled = [length for length in LENGTHS if length]
    assert found[0].num_selected == density * sum(LENGTHS)
    assert found[0].phrases is not None
    assert sum(count for _, count in found[0].phrases) == density * len(filled)
    assert found[0].share_histogram() == [9 - density * 7, *[0] * 9, density * 7]
    measures = overlaps[0, 1].measures()
    assert measures["phi"] is None and measures["jaccard"] == (1 if density else None)


def test_without_tokens_the_rest_is_known(tmp_path: Path) -> None:
    data = Data(tmp_path, 3)
    (known,), _ = collect(data.masks[:1], data.tokens, None, 5)
    (found,), _ = collect(data.masks[:1], None, None, 5)
    assert found.phrases is None and found.selected_by_id is None and found.scores is None
    assert found.selected_by_decile.tolist() == known.selected_by_decile.tolist()


def test_a_share_lies_in_its_bin(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "d", [np.arange(10)] * 11)
    codes = np.concatenate([np.arange(10) < count for count in range(11)]).astype(np.uint8)
    write_mask(tmp_path / "m", tokens, codes)
    (found,), _ = collect([load_aligned(tmp_path / "m", tokens, "penalties")], tokens, None, 5)
    assert found.share_histogram() == [1] * 11


def test_phrase_counts_are_bounded_and_honest() -> None:
    """With room for ten of hundreds, frequent phrases survive and no count is off by more than is said."""
    generator = np.random.default_rng(0)
    drawn = (generator.zipf(1.5, 5000) % 500).astype(np.int64)
    small, exact = Phrases(limit=10), Phrases()
    for number in drawn:
        small.add(np.array([number]).tobytes())
        exact.add(np.array([number]).tobytes())
    true = dict(exact.most_common(500))
    assert exact.missed == 0 and true == Counter((int(number),) for number in drawn)
    kept = dict(small.most_common(500))
    assert len(kept) <= 10 and small.missed > 0
    assert all(true[key] - small.missed <= count <= true[key] for key, count in kept.items())
    assert {key for key, count in true.items() if count > small.missed} <= set(kept)


def test_large_corpora_do_not_overflow() -> None:
    measures = Overlap(both=10**9, first=2 * 10**9, second=10**9, tokens=10**11).measures()
    assert measures["phi"] == pytest.approx(0.7035, abs=1e-3)


def test_an_absurd_id_is_refused(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "d", [np.arange(3)])
    write_mask(tmp_path / "m", tokens, np.ones(3))
    mask = load_aligned(tmp_path / "m", tokens, "penalties")
    values = np.array([1, 2**30, 3], np.int32)
    broken = TokenDataset(tokens.prefix, values.dtype, tokens.lengths, tokens.starts, tokens.doc_idx, values)
    with pytest.raises(InputError, match=f"token id {2**30}"):
        collect([mask], broken, None, 5)
