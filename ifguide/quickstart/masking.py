"""The quickstart's masks: the guided model's, and the control's of as many tokens drawn at random.

The built-in corpus takes Algorithm 1. Own text takes tokens within spans (M3c): a classifier trained on the queries
says in which lines abuse is, influence which of their tokens teach it. Of each suspected line the half with the highest
scores is taken. docs/real_text.md has the measurements behind this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ifguide.masks import MaskOptions, build_mask
from ifguide.masks.spans.options import SpanOptions
from ifguide.selection import SelectionSettings

CLASSIFIER, SUSPECTS = "classifier", "data/suspects"
SPAN = "line"
MOST_SUSPECTED = 0.10  # of all tokens; a classifier that suspects more of the text is of no use
TOKENS_WITHIN = 0.5


def find_suspects(folder: Path, data: Path, toxic: Path, safe: Path, seed: int) -> dict[str, Any]:
    """Train the classifier on the queries and score every line of the data by it.

    Returns:
        The classifier's cross-validated quality.

    Raises:
        InputError: too few queries.
    """
    from ifguide.influence.text_scores import TextScoring, score_text
    from ifguide.scorers.classifier import train_classifier

    trained = train_classifier(toxic, safe, folder / CLASSIFIER, seed=seed)
    score_text(TextScoring(data, f"linear:{folder / CLASSIFIER}", folder / SUSPECTS, SPAN))
    return {key: trained[key] for key in ("roc_auc", "true_positive_rate", "false_positive_rate")}


def write_masks(
    folder: Path, scores: Path, mask: Path, control: Path, selection: SelectionSettings, seed: int, by_spans: bool
) -> dict[str, Any]:
    """Write both masks; returns ``fraction``, ``tokens`` and ``threshold`` (None by spans, whose mask has none).

    Args:
        selection: of Algorithm 1.
        by_spans: take tokens within the suspected lines instead.
    """
    if by_spans:
        suspects = folder / SUSPECTS
        spans = SpanOptions(
            SPAN,
            span_scores=[suspects],
            span_fraction=MOST_SUSPECTED,
            tokens_within=TOKENS_WITHIN,
            within=[(None, [suspects])],  # only lines above the classifier's own threshold
        )
        built = build_mask(scores, mask, spans=spans)
        # as many tokens anywhere: the lowest threshold makes every token a candidate
        selection = SelectionSettings(threshold_quantile=0.0, window=0, max_fraction=None, max_tokens=built["selected"])
    else:
        built = build_mask(scores, mask, selection)
    build_mask(scores, control, selection, MaskOptions(method="random", seed=seed))
    threshold = None if by_spans else built["threshold"]
    return {"fraction": built["fraction"], "tokens": built["selected"], "threshold": threshold}
