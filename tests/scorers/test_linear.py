from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest

from ifguide.errors import InputError
from ifguide.scorers.linear import LinearConfig, LinearScorer, features, train_linear
from ifguide.scorers.registry import load_scorer

PLAIN = ["the", "report", "was", "sent", "to", "our", "office", "on", "monday", "read", "it", "with", "care", "before"]
RUDE = ["idiot", "moron", "scum", "trash"]


def corpus(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Word salads; half of them hold a rude word."""
    draw = random.Random(seed)
    texts, labels = [], []
    for index in range(count):
        words = [draw.choice(PLAIN) + draw.choice(["", "s", "ing", "ed"]) for _ in range(draw.randint(4, 16))]
        if index % 2:
            words.insert(draw.randint(0, len(words)), draw.choice(RUDE))
        texts.append(" ".join(words))
        labels.append(index % 2)
    return texts, labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("linear") / "classifier"
    return folder, train_linear(*corpus(1200), folder)


def test_learns_and_reports_what_it_saved(trained: tuple[Path, dict]) -> None:
    folder, report = trained
    assert report["train_texts"] + report["heldout_texts"] == 1200
    assert 0.15 < report["heldout_texts"] / 1200 < 0.25
    assert report["accuracy"] > 0.97 and report["roc_auc"] > 0.99
    assert json.loads((folder / "config.json").read_text())["report"] == report
    scorer = load_scorer(f"linear:{folder}")
    assert scorer.labels == ("toxicity",)
    kind, rude, empty = scorer.score(["the report was read", "you absolute idiot", ""])["toxicity"]
    assert kind < 0.3 < 0.7 < rude and 0.0 < empty < 1.0


def test_report_is_measured_on_texts_held_out(tmp_path: Path) -> None:
    texts, labels = corpus(600)
    noise = random.Random(1)
    labels = [label if noise.random() < 0.8 else 1 - label for label in labels]  # no model can do better than 0.8
    report = train_linear(texts, labels, tmp_path)
    assert 0.6 < report["accuracy"] < 0.9
    scores = LinearScorer(tmp_path).score(texts)["toxicity"]
    assert ((scores >= 0.5) == np.array(labels)).mean() > report["accuracy"]  # it has seen most of these


def test_figures_by_hand(trained: tuple[Path, dict], tmp_path: Path) -> None:
    texts, labels = corpus(400, seed=3)
    report = train_linear(texts, labels, tmp_path, holdout=0.5)
    from ifguide.scorers.linear import _held_out

    held = [i for i, text in enumerate(texts) if _held_out(text, 0.5, 0)]
    scores = LinearScorer(tmp_path).score([texts[i] for i in held])["toxicity"]
    truth = [labels[i] for i in held]
    said = [score >= 0.5 for score in scores]
    assert report["heldout_texts"] == len(held)
    assert report["accuracy"] == sum(s == t for s, t in zip(said, truth)) / len(held)
    assert report["false_positive_rate"] == sum(s and not t for s, t in zip(said, truth)) / truth.count(0)
    assert report["true_positive_rate"] == sum(s and t for s, t in zip(said, truth)) / truth.count(1)
    assert report["brier"] == pytest.approx(np.mean([(s - t) ** 2 for s, t in zip(scores, truth)]), abs=1e-12)
    gap = 0.0
    for low in range(10):
        inside = [(s, t) for s, t in zip(scores, truth) if low <= s * 10 < low + 1 or (low == 9 and s == 1.0)]
        if inside:
            mean_score, mean_truth = np.mean([s for s, _ in inside]), np.mean([t for _, t in inside])
            gap += len(inside) / len(held) * abs(mean_score - mean_truth)
    assert report["calibration_error"] == pytest.approx(gap, abs=1e-12)


def test_copies_of_a_text_stay_on_one_side(tmp_path: Path) -> None:
    texts, labels = corpus(300)
    report = train_linear(texts, labels, tmp_path)
    twice = train_linear(texts + [text.upper() for text in texts], labels * 2, tmp_path)
    assert twice["heldout_texts"] == 2 * report["heldout_texts"]


def test_deterministic_to_the_byte(trained: tuple[Path, dict], tmp_path: Path) -> None:
    folder, report = trained
    assert train_linear(*corpus(1200), tmp_path) == report
    for name in ("config.json", "weights.npz"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_score_equals_the_formula(trained: tuple[Path, dict]) -> None:
    folder, _ = trained
    texts = corpus(20, seed=9)[0]
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        coefficients, intercept = arrays["coefficients"].astype(float), float(arrays["intercept"])
    margins = features(texts, LinearConfig()).toarray().astype(float) @ coefficients + intercept
    assert LinearScorer(folder).score(texts)["toxicity"] == pytest.approx(1 / (1 + np.exp(-margins)), abs=1e-5)


def test_feature_blocks_can_be_switched_off(tmp_path: Path) -> None:
    texts, labels = corpus(300)
    words_only = LinearConfig(word_features=1 << 12, char_features=0, word_ngrams=(1, 1))
    train_linear(texts, labels, tmp_path, label="rude", config=words_only)
    scorer = LinearScorer(tmp_path)
    assert scorer.config == words_only and scorer.labels == ("rude",)
    with pytest.raises(InputError, match="needs word_features"):
        features(texts, LinearConfig(word_features=0, char_features=0))


def test_scores_thousands_of_texts_a_second(trained: tuple[Path, dict]) -> None:
    scorer = LinearScorer(trained[0])
    texts = corpus(3000, seed=4)[0]
    started = time.process_time()
    scorer.score(texts)
    assert 3000 / (time.process_time() - started) > 1000


@pytest.mark.parametrize(
    ("texts", "labels", "options", "message"),
    [
        (["a", "b"], [0], {}, "one label a text"),
        (["a", "b"], [0, 2], {}, "label 1 is 2"),
        (["a", "b"], [0.0, float("nan")], {}, "label 1 is nan"),
        (["a", "b", "c"], [1, 1, 1], {}, "need both classes"),
        ([], [], {}, "need both classes"),
        (["a", "b"], [0, 1], {"holdout": 0.0}, "holdout"),
    ],
)
def test_training_input_that_cannot_be_used(
    texts: list, labels: list, options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train_linear(texts, labels, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_used(trained: tuple[Path, dict], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        LinearScorer(tmp_path)
    config = (trained[0] / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match="missing or another one's"):
        LinearScorer(tmp_path)
    (tmp_path / "weights.npz").write_bytes((trained[0] / "weights.npz").read_bytes()[:-1])
    with pytest.raises(InputError, match="missing or another one's"):
        LinearScorer(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "other"}')
    with pytest.raises(InputError, match="format 1"):
        LinearScorer(tmp_path)
