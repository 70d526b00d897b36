"""Rankings, ranks and histograms against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifguide.data.aligned import Aligned, load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.inspection import ranking
from ifguide.inspection.ranking import histogram, rank_documents, ranks_among_all, selected_per_document
from tests.support.datasets import random_documents, write_tokens

LENGTHS = [5, 0, 40, 1, 16, 17, 9, 0, 3, 30]
EOD = 7


class Corpus:
    def __init__(self, folder: Path, seed: int, parameters: dict | None = None, threshold: float | None = 0.5):
        generator = np.random.default_rng(seed)
        self.tokens: TokenDataset = write_tokens(folder / "d_text_document", random_documents(LENGTHS, seed, vocab=12))
        count = self.tokens.num_tokens
        self.values = generator.normal(size=count).round(1).astype(np.float32)  # rounded: ties
        self.codes = (generator.random(count) < 0.3).astype(np.uint8)
        write_aligned(folder / "s", self.tokens, self.values, np.float32, {})
        sidecar = {"encoding": "binary", "parameters": parameters or {}, "threshold": threshold}
        write_aligned(folder / "m", self.tokens, self.codes, np.uint8, sidecar)
        self.scores: Aligned = load_aligned(folder / "s", self.tokens, "scores")
        self.mask: Aligned = load_aligned(folder / "m", self.tokens, "penalties")

    def literal_r(self, threshold: float, unit_tokens: int, eod: int | None) -> list[float]:
        """R of each document: the largest of its units."""
        units = []
        for document in range(self.tokens.num_documents):
            start, end = map(int, self.tokens.starts[document : document + 2])
            for first in range(start, end, unit_tokens):
                places = [
                    at for at in range(first, min(first + unit_tokens, end))
                    if self.values[at] > threshold and self.tokens.tokens[at] != eod
                ]  # fmt: skip
                units.append((document, len(places), sum(float(self.values[at]) for at in places)))
        lows = [min(unit[key] for unit in units) for key in (1, 2)]
        spans = [max(unit[key] for unit in units) - low for key, low in zip((1, 2), lows)]
        best = [0.0] * self.tokens.num_documents
        for document, *measures in units:
            c, f = ((value - low) / span if span else 0.0 for value, low, span in zip(measures, lows, spans))
            best[document] = max(best[document], 2 * c * f / (c + f) if c + f else 0.0)
        return best


@pytest.fixture(params=[1, 1 << 22])
def chunks(request, monkeypatch) -> None:
    monkeypatch.setattr(ranking, "_CHUNK", request.param)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("include_eod", [False, True])
def test_documents_are_ranked_by_r(tmp_path: Path, seed: int, include_eod: bool) -> None:
    corpus = Corpus(tmp_path, seed, {"unit_tokens": 12, "include_eod": include_eod})
    found = rank_documents(corpus.tokens, corpus.mask, corpus.scores, EOD)
    expected = corpus.literal_r(0.5, 12, None if include_eod else EOD)
    np.testing.assert_allclose(found.toxicity, expected, atol=1e-6)
    assert found.threshold == 0.5
    assert sorted(found.order.tolist()) == list(range(len(LENGTHS)))
    assert list(found.toxicity[found.order]) == sorted(found.toxicity, reverse=True)


def test_a_mask_from_elsewhere_has_the_usual_threshold(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, 0, threshold=None)
    found = rank_documents(corpus.tokens, corpus.mask, corpus.scores, None)
    assert found.threshold == np.quantile(corpus.values.astype(np.float64), 0.99)


def test_without_scores_the_selected_share_decides(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, 1)
    found = rank_documents(corpus.tokens, corpus.mask, None, None)
    shares = [
        float(corpus.codes[start:end].mean()) if end > start else 0.0
        for start, end in zip(corpus.tokens.starts, corpus.tokens.starts[1:])
    ]
    assert found.toxicity.tolist() == shares and found.threshold is None
    assert found.order.tolist() == sorted(range(len(shares)), key=lambda index: (-shares[index], index))


def test_selected_per_document(tmp_path: Path, chunks: None) -> None:
    corpus = Corpus(tmp_path, 2)
    expected = [
        int(corpus.codes[start:end].sum()) for start, end in zip(corpus.tokens.starts, corpus.tokens.starts[1:])
    ]
    assert selected_per_document(corpus.mask, corpus.tokens.starts).tolist() == expected


def test_ranks_count_the_larger_scores(tmp_path: Path, chunks: None) -> None:
    corpus = Corpus(tmp_path, 3)
    asked = corpus.values[::3]
    expected = [1 + sum(value > one for value in corpus.values) for one in asked]
    assert ranks_among_all(corpus.scores, asked).tolist() == expected


def test_the_histogram_counts_every_score(tmp_path: Path, chunks: None) -> None:
    corpus = Corpus(tmp_path, 4)
    found = histogram(corpus.scores)
    counts, edges = np.histogram(corpus.values, len(found.counts))
    assert found.counts.tolist() == counts.tolist()
    assert (found.low, found.high) == (edges[0], edges[-1])


def test_equal_scores_have_a_histogram_too(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "d", random_documents([4]))
    write_aligned(tmp_path / "s", tokens, np.full(4, 2.5, np.float32), np.float32, {})
    found = histogram(load_aligned(tmp_path / "s", tokens, "scores"))
    assert found.counts.sum() == 4 and found.low < 2.5 < found.high
