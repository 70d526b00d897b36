"""The documents to look at: their text token by token, with score, rank and selection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ifguide.data.aligned import Aligned, load_aligned, require_finite
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES, SCORES
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.errors import InputError
from ifguide.inspection.ranking import Ranking, histogram, rank_documents, ranks_among_all
from ifguide.inspection.statistics import collect
from ifguide.pages.document import ShownDocument
from ifguide.pages.inspection import Inspection, Rule
from ifguide.pages.text import densest, split_text

SHOWN_TOKENS = 4096  # of one document; of a longer one the stretch that holds the most selected tokens
SHOWN_PHRASES = 12
_INFLUENCE = "influence"  # the method of Algorithm 1, as masks record it
_FULL_COLOUR_RANK = 0.005  # share of the tokens that get the full colour: the few largest would leave all others pale


def inspect(
    data: str | Path,
    mask: str | Path,
    scores: str | Path | None,
    tokenizer: Tokenizer,
    count: int,
    document: int | None = None,
    for_page: bool = True,
) -> Inspection:
    """The ``count`` most toxic documents, or the one ``document``.

    Args:
        for_page: also read all scores and all of the mask once more, for the histogram and the phrases, which only
            the page shows.

    Raises:
        InputError: a file cannot be used, or there is no such document.
        MismatchError: mask, scores and tokens do not belong together.
    """
    tokens = TokenDataset.open(data)
    penalties = load_aligned(mask, tokens, PENALTIES)
    scored = None if scores is None else load_aligned(scores, tokens, SCORES)
    if scored is not None:
        require_finite(scored)
    if count < 1:
        raise InputError(f"--top {count}: must be at least 1")
    if document is not None and not 0 <= document < tokens.num_documents:
        raise InputError(f"--document {document}: the data has the documents 0 to {tokens.num_documents - 1}")
    ranking = rank_documents(tokens, penalties, scored, tokenizer.eod)
    chosen = ranking.order[:count].tolist() if document is None else [document]
    shown = _shown(chosen, tokens, penalties, scored, ranking, tokenizer)
    named = {"data": data, "mask": mask, "scores": scores}
    return Inspection(
        documents=shown,
        num_documents=tokens.num_documents,
        num_tokens=tokens.num_tokens,
        num_selected=int(ranking.selected.sum()),
        threshold=ranking.threshold,
        full_colour=_full_colour(scored),
        histogram=histogram(scored) if scored is not None and for_page else None,
        graded=penalties.sidecar["encoding"] == "graded",
        names={role: str(path) for role, path in named.items() if path is not None},
        rule=rule_of(penalties, ranking.threshold),
        phrases=_phrases(penalties, tokens, tokenizer) if for_page else [],
    )


def rule_of(mask: Aligned, threshold: float | None) -> Rule:
    """What the record of the mask says of how it was made; a threshold that no record has was never its reason."""
    parameters = mask.sidecar.get("parameters") or {}
    span, method = parameters.get("span"), parameters.get("method")
    if span or method != _INFLUENCE or mask.sidecar.get("threshold") is None:
        return Rule(None, 0, span, method)
    return Rule(threshold, int(parameters.get("window", 0)), None, method)


def _phrases(mask: Aligned, tokens: TokenDataset, tokenizer: Tokenizer) -> list[tuple[str, int]]:
    """The runs of selected tokens that occur most often."""
    (found,), _ = collect([mask], tokens, None, SHOWN_PHRASES)
    return [
        ("".join(text for text, _ in split_text(ids, tokenizer.token_bytes)), count)
        for ids, count in found.phrases or []
    ]


def _shown(
    chosen: Sequence[int],
    tokens: TokenDataset,
    mask: Aligned,
    scores: Aligned | None,
    ranking: Ranking,
    tokenizer: Tokenizer,
) -> list[ShownDocument]:
    parts = []
    for index in chosen:
        strengths = np.asarray(mask.dataset.document(index))
        first = densest(strengths > 0, SHOWN_TOKENS)
        parts.append(slice(first, min(first + SHOWN_TOKENS, len(strengths))))
    values = ranks = None
    if scores is not None:
        values = [np.asarray(scores.dataset.document(index)[part]) for index, part in zip(chosen, parts)]
        lengths = [len(piece) for piece in values]
        ranks = np.split(ranks_among_all(scores, np.concatenate(values)), np.cumsum(lengths)[:-1])
    token_bytes = lru_cache(maxsize=None)(tokenizer.token_bytes)
    shown = []
    for place, (index, part) in enumerate(zip(chosen, parts)):
        ids = np.asarray(tokens.document(index)[part]).tolist()
        shown.append(
            ShownDocument(
                index=index,
                measure=float(ranking.toxicity[index]),
                num_tokens=int(tokens.lengths[index]),
                num_selected=int(ranking.selected[index]),
                first=part.start,
                pieces=split_text(ids, token_bytes),
                scores=None if values is None else values[place],
                ranks=None if ranks is None else ranks[place],
                strengths=np.asarray(mask.dataset.document(index)[part]),
            )
        )
    return shown


def _full_colour(scores: Aligned | None) -> float:
    """The |score| that `_FULL_COLOUR_RANK` of all tokens reach, from evenly spaced scores: a shade needs no more."""
    if scores is None:
        return 0.0
    sample = np.asarray(scores.values[:: max(1, len(scores.values) // (1 << 20))])
    return float(np.quantile(np.abs(sample), 1 - _FULL_COLOUR_RANK))
