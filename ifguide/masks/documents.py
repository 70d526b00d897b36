"""Document-level removal: which documents, by which ranking (`ifguide.selection.documents`)."""

from __future__ import annotations

from dataclasses import asdict

from ifguide.errors import InputError
from ifguide.masks.inputs import BehaviourScores, Inputs
from ifguide.masks.outcome import Outcome
from ifguide.masks.shortfall import of_documents
from ifguide.masks.words import WordList
from ifguide.selection import paint_documents, ranked_documents
from ifguide.selection.documents import TOXIC, WORDS, R, document_values, drop_documents, word_shares
from ifguide.system.progress import Progress


def choose_documents(
    behaviour: BehaviourScores, inputs: Inputs, rank_by: str, words: WordList | None, progress: Progress
) -> Outcome:
    """The documents that removal drops.

    Args:
        rank_by: see `ifguide.masks.arguments.MaskOptions`.
        words: of ``words``.

    Raises:
        InputError: scores that are not along the toxic queries alone, where those are asked for.
        NumericsError: a score is NaN or infinite.
    """
    source, settings = inputs.sources[0], behaviour.settings
    if rank_by == R:
        dropped, counts, threshold = ranked_documents(source, settings, lambda span: progress.update(len(span)))
    else:
        if rank_by == TOXIC:
            _require_toxic_alone(inputs)
        if rank_by == WORDS:
            assert words is not None  # `check_arguments` saw to that
            values = word_shares(source, words.finder())
            progress.update(source.num_tokens)
        else:
            values = document_values(source, rank_by, lambda span: progress.update(len(span)))
        # a document without a listed word is not what a list of words removes
        above = 0.0 if rank_by == WORDS else float("-inf")
        dropped, counts = drop_documents(source, values, settings.budget(source.num_tokens), above)
        threshold = float(values[dropped].min()) if len(dropped) else 0.0
    about = {"threshold": threshold, "counts": counts, "parameters": asdict(settings)}
    return Outcome(
        lambda span: paint_documents(source, span, dropped),
        {behaviour.name: about},
        [],
        dropped,
        of_documents(behaviour, counts),
    )


def _require_toxic_alone(inputs: Inputs) -> None:
    for scores in inputs.scores[0]:
        run = scores.sidecar.get("run", {})
        if "toxic_queries" not in run or "safe_queries" in run:
            raise InputError(
                f"--rank-by toxic: {scores.prefix} was not scored along toxic queries alone; score it with "
                "--toxic-alone, or take --rank-by sum"
            )
