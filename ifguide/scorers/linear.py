"""A small text classifier on hashed n-grams: trained in seconds, thousands of texts a second, no network.

Features: word 1- to 3-grams and character 3- to 5-grams inside words, hashed, each block of unit length, side by side;
with ``tf_idf`` each counts the more, the fewer texts have it. Model: logistic regression. Saved as a folder
`config.json` + `weights.npz` (no pickle), so that loading runs no code.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError
from ifguide.scorers.base import Scorer
from ifguide.system.files import atomic_path, hash_file, hash_value, read_json, write_json

FORMAT = 2
_READABLE = (1, FORMAT)  # 1 knows no TF-IDF
_CALIBRATION_BINS = 10


@dataclass(frozen=True)
class LinearConfig:
    """How texts become features, and how strongly the weights are held back.

    Attributes:
        word_features: buckets of the word n-grams, 0 for none.
        word_ngrams: shortest and longest word n-gram.
        char_features: buckets of the character n-grams, 0 for none.
        char_ngrams: shortest and longest character n-gram.
        inverse_regularisation: scikit-learn's C.
        tf_idf: weigh each feature by its inverse document frequency in the training texts.
    """

    word_features: int = 1 << 18
    word_ngrams: tuple[int, int] = (1, 3)
    char_features: int = 1 << 17
    char_ngrams: tuple[int, int] = (3, 5)
    inverse_regularisation: float = 10.0
    tf_idf: bool = False

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> LinearConfig:
        """The inverse of ``dataclasses.asdict`` through JSON, which has no tuples."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
        return cls(**values)


class LinearScorer(Scorer):
    """A classifier that `train_linear` or `ifguide.scorers.classifier` saved.

    Raises:
        InputError: not such a folder, or its two files do not belong together.
    """

    def __init__(self, folder: str | os.PathLike):
        folder = Path(folder)
        saved = read_json(folder / "config.json", "linear classifier")
        if not isinstance(saved, dict) or saved.get("kind") != "ifguide-linear" or saved.get("format") not in _READABLE:
            raise InputError(f"linear classifier {folder}: config.json is not of format 1 or {FORMAT}; train it again")
        weights = folder / "weights.npz"
        if not weights.is_file() or hash_file(weights) != saved["weights_hash"]:
            raise InputError(f"linear classifier {folder}: weights.npz is missing or another one's; train it again")
        try:
            with np.load(weights, allow_pickle=False) as arrays:
                self._coefficients, self._intercept = arrays["coefficients"], float(arrays["intercept"])
                self._idf = arrays.get("idf")
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise InputError(
                f"linear classifier {folder}: weights.npz cannot be read ({error}); train it again"
            ) from error
        self.config = LinearConfig.from_json(saved["features"])
        self.labels = (saved["label"],)
        # of `ifguide.scorers.classifier`: its cross-validated quality
        self.report: dict[str, Any] = saved.get("report") or {}
        self.name = f"linear:{folder}"
        self._fingerprint = hash_value([saved["features"], saved["weights_hash"]])

    def fingerprint(self) -> str | None:
        return self._fingerprint

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        margin = features(texts, self.config, self._idf) @ self._coefficients + self._intercept
        return {self.labels[0]: sigmoid(margin)}


def learned_from(spec: str | None) -> frozenset[str]:
    """Hashes of the query files that the classifier of ``linear:FOLDER`` was trained on, as far as it records them;
    none for another scorer."""
    kind, _, folder = (spec or "").partition(":")
    path = Path(folder) / "config.json"
    if kind != "linear" or not path.is_file():
        return frozenset()
    saved = read_json(path, "linear classifier")
    inputs = saved.get("inputs") if isinstance(saved, dict) else None
    return frozenset(one["hash"] for one in inputs or () if one.get("hash"))


def train_linear(
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    output: str | os.PathLike,
    *,
    label: str = "toxicity",
    holdout: float = 0.2,
    seed: int = 0,
    config: LinearConfig | None = None,
) -> dict[str, Any]:
    """Train on part of the texts, measure on the others, save to the folder ``output``.

    A text is held out by the hash of its lower-cased content: copies of one text never sit on both sides, and the split
    does not depend on the order. What is saved is the very model that was measured.

    Args:
        texts: short texts.
        labels: 1 (or True) where ``label`` holds, else 0.
        output: folder to write; created if missing.
        label: name of the score.
        holdout: share of distinct texts to measure on, inside (0, 1).
        seed: of the split.
        config: features and regularisation.

    Returns:
        The report, also saved in config.json: counts, and held-out ``accuracy``, ``false_positive_rate`` and
        ``true_positive_rate`` at 0.5, ``roc_auc``, ``brier`` and ``calibration_error`` (expected, ten equal bins).

    Raises:
        InputError: labels that do not fit the texts, or one class only on one side of the split.
    """
    from sklearn.linear_model import LogisticRegression

    config = config or LinearConfig()
    y = _binary(labels, len(texts))
    if not 0.0 < holdout < 1.0:
        raise InputError(f"holdout {holdout} must be inside (0, 1)")
    held = np.array([_held_out(text, holdout, seed) for text in texts], dtype=bool)
    for side, part in (("training", y[~held]), ("held-out", y[held])):
        if part.size == 0 or part.min() == part.max():
            raise InputError(f"the {side} texts ({part.size}) need both classes; give more texts or another holdout")
    x = features(texts, config)
    model = LogisticRegression(C=config.inverse_regularisation, max_iter=200, tol=1e-3)
    model.fit(x[~held], y[~held])
    coefficients = model.coef_[0].astype(np.float32)
    intercept = float(model.intercept_[0])
    report = {
        "train_texts": int((~held).sum()),
        "train_positives": int(y[~held].sum()),
        "heldout_texts": int(held.sum()),
        "heldout_positives": int(y[held].sum()),
        **quality(sigmoid(x[held] @ coefficients + intercept), y[held]),
    }
    save_linear(Path(output), coefficients, intercept, label, config, report)
    return report


def features(texts: Sequence[str], config: LinearConfig, idf: np.ndarray | None = None):
    """Sparse feature matrix ``[len(texts), word_features + char_features]``, float32.

    Args:
        idf: float32[word_features + char_features], with ``tf_idf``.
    """
    return joined(feature_blocks(texts, config), idf)


def feature_blocks(texts: Sequence[str], config: LinearConfig) -> list[Any]:
    """The words' and the characters' part of `features`; with ``tf_idf`` plain counts, for `joined`."""
    from sklearn.feature_extraction.text import HashingVectorizer

    norm = None if config.tf_idf else "l2"
    shared = {"alternate_sign": False, "norm": norm, "lowercase": True, "dtype": np.float32}
    blocks = []
    if config.word_features:
        # words of one letter and punctuation marks count: abuse is often spelt with them
        words = HashingVectorizer(
            n_features=config.word_features, ngram_range=config.word_ngrams, token_pattern=r"\w+|[^\w\s]", **shared
        )
        blocks.append(words.transform(texts))
    if config.char_features:
        characters = HashingVectorizer(
            n_features=config.char_features, ngram_range=config.char_ngrams, analyzer="char_wb", **shared
        )
        blocks.append(characters.transform(texts))
    if not blocks:
        raise InputError("a linear classifier needs word_features or char_features")
    return blocks


def joined(blocks: Sequence[Any], idf: np.ndarray | None):
    """Blocks side by side, each row of each weighted by ``idf`` and brought to unit length."""
    from scipy.sparse import hstack
    from sklearn.preprocessing import normalize

    if idf is None:
        return hstack(blocks, format="csr")
    weighted, start = [], 0
    for block in blocks:
        block = block.copy()
        block.data *= idf[start + block.indices]
        weighted.append(normalize(block, copy=False))
        start += block.shape[1]
    return hstack(weighted, format="csr")


def save_linear(
    folder: Path,
    coefficients: np.ndarray,
    intercept: float,
    label: str,
    config: LinearConfig,
    report: dict[str, Any],
    idf: np.ndarray | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that `LinearScorer` loads; ``about``: further fields of its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.npz"
    with atomic_path(weights) as temporary, open(temporary, "wb") as stream:
        arrays: dict[str, Any] = {"coefficients": coefficients, "intercept": np.float64(intercept)}
        np.savez(stream, **(arrays if idf is None else {**arrays, "idf": idf}))
    # written last and holding the hash: a folder half old, half new does not load
    write_json(
        folder / "config.json",
        {
            "kind": "ifguide-linear",
            "format": FORMAT,
            "label": label,
            "features": asdict(config),
            "weights_hash": hash_file(weights),
            "report": report,
            **(about or {}),
        },
    )


def quality(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of probabilities [T] against the truth [T]: shares at 0.5, ROC-AUC, Brier score, calibration error (ten bins)."""
    from sklearn.metrics import roc_auc_score

    said = scores >= 0.5
    bins = np.minimum((scores * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gaps = [abs(float((scores[bins == b] - truth[bins == b]).sum())) for b in range(_CALIBRATION_BINS)]
    return {
        "accuracy": float((said == truth).mean()),
        "false_positive_rate": float(said[truth == 0].mean()),
        "true_positive_rate": float(said[truth == 1].mean()),
        "roc_auc": float(roc_auc_score(truth, scores)),
        "brier": float(((scores - truth) ** 2).mean()),
        "calibration_error": sum(gaps) / len(scores),
    }


def _binary(labels: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    y = np.asarray(labels)
    if y.shape != (count,):
        raise InputError(f"labels of shape {y.shape} for {count} texts: give one label a text")
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if wrong.size:
        raise InputError(f"label {int(wrong[0])} is {y[wrong[0]]}; labels are 0 or 1")
    return y.astype(np.int64)


def _held_out(text: str, holdout: float, seed: int) -> bool:
    digest = hashlib.blake2b(text.lower().encode(), digest_size=8, salt=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") < holdout * 2.0**64


def sigmoid(margin: np.ndarray) -> np.ndarray:
    """1 / (1 + e⁻ᵐ), float64."""
    from scipy.special import expit

    return expit(margin.astype(np.float64))
