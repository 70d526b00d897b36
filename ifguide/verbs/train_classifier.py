"""``ifguide train-classifier``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, folder

SUMMARY = (
    "Train a classifier of texts on the query sets (TF-IDF of words and characters, logistic regression), calibrated; "
    "print its cross-validated quality."
)
EXAMPLE = (
    "ifguide train-classifier --toxic-queries toxic.jsonl --safe-queries safe.jsonl --output runs/classifier\n"
    "  ifguide score-text --data data/corpus_text_document --scorer linear:runs/classifier --output data/suspects"
)


@dataclass(frozen=True, kw_only=True)
class TrainClassifier:
    """The options of this verb."""

    toxic_queries: str = option(metavar="FILE", kind="input", help="JSONL of prompt, completion")
    safe_queries: str = option(metavar="FILE", kind="input", help="JSONL of prompt, completion")
    output: str = option(metavar="DIR", kind="output", help="folder, the scorer linear:DIR afterwards")
    folds: int = option(5, metavar="N", help="parts of the cross-validation (default: 5)")
    seed: int = option(0, metavar="N", help="of the parts (default: 0)")


OPTIONS = TrainClassifier
WRITES = Writes(
    lambda args: folder(args.output, "config.json", ["weights.npz"]),
    named(TrainClassifier),
    keeps_result=True,
    is_replayed=True,
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.scorers.classifier import train_classifier

    asked = options_of(args, TrainClassifier)
    result = train_classifier(asked.toxic_queries, asked.safe_queries, asked.output, folds=asked.folds, seed=asked.seed)
    if not args.json:
        print(f"{result['output']}: trained on {counted(result['texts'], 'text')}, {result['positives']} of them toxic")
        print(
            "cross-validated ({folds} parts, by {parts_by}): ROC-AUC {roc_auc:.3f}, average precision "
            "{average_precision:.3f}; at 0.5 true positives {true_positive_rate:.1%}, false positives "
            "{false_positive_rate:.1%}; calibration error {calibration_error:.3f}".format(**result)
        )
        print(f"use it as the scorer linear:{result['output']}")
    return result
