"""A classifier from query sets: what a user who has queries can have in seconds.

TF-IDF of words and characters with logistic regression, calibrated and measured by cross-validation: every text is
judged by a model that saw neither it nor any text with the same prompt, unless a few prompts stand before all texts of
both kinds. What is saved is a model of all texts, with the calibration in its weights.

Shapes: T texts, F features.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.sources.names import input_record
from ifguide.data.sources.reading import read_rows
from ifguide.errors import ConfigError, InputError, first_faults
from ifguide.scorers.linear import (
    LinearConfig,
    feature_blocks,
    joined,
    quality,
    save_linear,
    sigmoid,
)
from ifguide.system.provenance import origin

FOLDS = 5
THRESHOLD = 0.5


def train_classifier(
    toxic: str | os.PathLike,
    safe: str | os.PathLike,
    output: str | os.PathLike,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    config: LinearConfig | None = None,
) -> dict[str, Any]:
    """Train on both query sets and write a folder that ``linear:FOLDER`` names.

    Args:
        toxic, safe: JSONL of prompt, completion (and weight); a text is both together.
        folds: parts of the cross-validation; texts with one prompt stay in one part, or equal ones (`_tell_nothing`).
        seed: of the parts.

    Returns:
        ``output``, ``texts``, ``positives``, ``folds``, ``parts_by`` ("prompt" or "text": what keeps texts in one part)
        and the cross-validated quality of the calibrated probabilities: ``roc_auc``, ``average_precision``, ``brier``,
        ``calibration_error``, and at 0.5 ``accuracy``, ``true_positive_rate``, ``false_positive_rate``.

    Raises:
        InputError: a file that cannot be used, or too few texts of either kind, or texts that nothing tells apart.
    """
    config = replace(config or LinearConfig(), tf_idf=True)
    texts, weights, labels, part, parts_by = _divided(toxic, safe, folds, seed)
    blocks = feature_blocks(texts, config)
    margins = np.zeros(len(texts))
    for fold in range(folds):
        train = part != fold
        idf = _idf(blocks, train)
        x = joined(blocks, idf)
        coefficients, intercept = _fit(x[train], labels[train], weights[train], config.inverse_regularisation)
        margins[~train] = x[~train] @ coefficients + intercept
    # the calibration of each part is that of the others, so that its quality is measured on what it did not see
    probabilities = np.zeros(len(texts))
    for fold in range(folds):
        slope, offset = _calibration(margins[part != fold], labels[part != fold])
        probabilities[part == fold] = sigmoid(slope * margins[part == fold] + offset)
    report: dict[str, Any] = {"texts": len(texts), "positives": int(labels.sum()), "folds": folds, "seed": seed}
    report |= {"parts_by": parts_by} | _measured(probabilities, labels)

    idf = _idf(blocks, np.ones(len(texts), bool))
    coefficients, intercept = _fit(joined(blocks, idf), labels, weights, config.inverse_regularisation)
    slope, offset = _calibration(margins, labels)
    if not slope:
        raise InputError(
            f"a classifier does not tell these toxic queries from the safe ones (cross-validated ROC-AUC "
            f"{report['roc_auc']:.2f}); give more queries, and such that differ in what they say"
        )
    save_linear(
        Path(output),
        (slope * coefficients).astype(np.float32),
        slope * intercept + offset,
        "toxicity",
        config,
        report,
        idf,
        {
            "threshold": THRESHOLD,
            "inputs": [input_record(path) for path in (toxic, safe)],
            **origin(),
        },
    )
    return {"output": os.fspath(output), **report}


def check_queries(toxic: str | os.PathLike, safe: str | os.PathLike, *, folds: int = FOLDS, seed: int = 0) -> None:
    """Refuse at once what `train_classifier` would refuse before it learns.

    Raises:
        InputError: a file that cannot be used, or too few different prompts for the cross-validation.
    """
    _divided(toxic, safe, folds, seed)


def _divided(
    toxic: str | os.PathLike, safe: str | os.PathLike, folds: int, seed: int
) -> tuple[list[str], NDArray, NDArray, NDArray[np.int64], str]:
    """(texts, weights[T], labels[T], parts of the cross-validation [T], what keeps texts in one part)."""
    if folds < 2:
        raise InputError(f"--folds {folds}: must be at least 2")
    texts, prompts, weights, labels = _read([(toxic, 1), (safe, 0)])
    by_text = _tell_nothing(prompts, labels, folds)
    groups = [text.strip().lower() for text in texts] if by_text else prompts
    return texts, weights, labels, _parts(groups, labels, folds, seed), "text" if by_text else "prompt"


def _read(sets: Sequence[tuple[str | os.PathLike, int]]) -> tuple[list[str], list[str], NDArray, NDArray]:
    """(texts, their prompts, weights[T], labels[T])."""
    texts: list[str] = []
    prompts: list[str] = []
    weights: list[float] = []
    labels: list[int] = []
    faults: list[str] = []
    for path, label in sets:
        what = f"{'toxic' if label else 'safe'} queries"
        count = 0
        for place, row in read_rows(path, what):
            count += 1
            prompt, completion, weight = row.get("prompt"), row.get("completion"), row.get("weight", 1.0)
            if not (isinstance(prompt, str) and isinstance(completion, str)):
                faults.append(place.message(what, '"prompt" and "completion" must be text'))
                continue
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                faults.append(place.message(what, f"weight {weight!r} must be a positive number"))
                continue
            texts.append(prompt + completion)
            prompts.append(prompt.strip().lower() or texts[-1].lower())
            weights.append(float(weight))
            labels.append(label)
        if not count:
            faults.append(f"no {what}: {path} is empty; write lines with a prompt and a completion")
    if faults:
        raise ConfigError(first_faults(faults))
    return texts, prompts, np.array(weights), np.array(labels)


def _tell_nothing(prompts: Sequence[str], labels: NDArray, folds: int) -> bool:
    """Whether there are fewer prompts than parts, and each stands before texts of both kinds.

    One prompt before all queries ("A comment:") leaves no parts to make by prompt. Such prompts tell nothing of the
    kind, so that a text may be judged by others of its prompt.
    """
    kinds: dict[str, set[int]] = {}
    for prompt, label in zip(prompts, labels.tolist()):
        kinds.setdefault(prompt, set()).add(label)
    return len(kinds) < folds and all(len(found) == 2 for found in kinds.values())


def _parts(groups: Sequence[str], labels: NDArray, folds: int, seed: int) -> NDArray[np.int64]:
    """The part of each text: texts of one group together, both kinds spread evenly.

    Raises:
        InputError: a part would leave the others without one of the kinds.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)

    def order(group: str) -> tuple[float, bytes]:
        digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8, salt=seed.to_bytes(8, "little"))
        return float(np.mean(labels[members[group]])), digest.digest()

    part = np.zeros(len(groups), np.int64)
    for number, group in enumerate(sorted(members, key=order)):
        part[members[group]] = number % folds
    for fold in range(folds):
        inside = labels[part == fold]
        if not len(inside) or len(set(labels[part != fold].tolist())) < 2:
            raise InputError(
                f"{len(members)} different prompts are too few for a cross-validation in {folds} parts; give the "
                "queries more prompts, or toxic and safe ones the same few, or take fewer --folds"
            )
    return part


def _idf(blocks: Sequence[Any], rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    """ln((1 + T) / (1 + texts that have the feature)) + 1 over the texts ``rows``, float32[F]."""
    found = [np.bincount(block[rows].indices, minlength=block.shape[1]) for block in blocks]
    return (np.log((1 + int(rows.sum())) / (1 + np.concatenate(found))) + 1).astype(np.float32)


def _fit(x: Any, labels: NDArray, weights: NDArray, c: float) -> tuple[NDArray[np.float64], float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=300, tol=1e-4)
    model.fit(x, labels, sample_weight=weights)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _calibration(margins: NDArray, labels: NDArray) -> tuple[float, float]:
    """(slope, offset) of Platt's scaling: logistic regression on the margins with his smoothed targets, which keep it
    finite where the kinds do not overlap. The slope is 0 where higher margins are no sign of a positive."""
    from sklearn.linear_model import LogisticRegression

    positives = int(labels.sum())
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    model = LogisticRegression(C=1e6, max_iter=1000)
    x = np.concatenate([margins, margins])[:, None]
    y = np.repeat([1, 0], len(margins))
    model.fit(x, y, sample_weight=np.concatenate([target, 1 - target]))
    if model.coef_[0, 0] <= 0:  # the margins say nothing, so that the share of positives is all that is known
        return 0.0, float(np.log(positives / (len(labels) - positives)))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _measured(probabilities: NDArray, labels: NDArray) -> dict[str, float]:
    from sklearn.metrics import average_precision_score

    precision = float(average_precision_score(labels, probabilities))
    return {**quality(probabilities, labels), "average_precision": precision}
