"""Whether the arguments of `ifguide.masks.build_masks` fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifguide.config.options import option
from ifguide.data.aligned import ENCODINGS
from ifguide.errors import ConfigError, InputError
from ifguide.masks.ignoring import Ignoring
from ifguide.masks.inputs import BehaviourScores
from ifguide.masks.spans.options import SpanOptions
from ifguide.masks.words import WordList
from ifguide.selection.documents import RANKINGS, WORDS, R
from ifguide.system.files import folder_faults

METHODS = ("influence", "classifier", "random", "wordlist", "document")


@dataclass(frozen=True)
class MaskOptions:
    """How masks are made.

    Attributes:
        encoding: ``binary`` or ``graded`` (strength by score; ``influence`` only).
        method: ``influence`` is Algorithm 1, or with spans what those say; ``classifier`` is the same with spans and
            scores of a classifier. Controls with exactly as many tokens as Algorithm 1 selects: ``random`` draws them;
            ``wordlist`` takes tokens of listed words, in documents shuffled by the seed (fewer, if there are fewer).
            ``document`` drops whole documents within the budget.
        rank_by: of ``document``, one of `RANKINGS`: R of Algorithm 1, the sum or the mean of the scores (``toxic``: the
            sum of scores along the toxic queries alone), the highest score (``scorer``), or the share of listed words.
        seed: of ``random`` and ``wordlist``.
    """

    encoding: str = option("binary", choices=ENCODINGS, help="default: binary")
    method: str = option(
        "influence", choices=METHODS,
        help="classifier: spans by the scores of --scorer; random, wordlist: controls of the same size as Algorithm "
        "1's mask; document: whole documents, by --rank-by",
    )  # fmt: skip
    rank_by: str = option(
        R, choices=RANKINGS,
        help="of --method document: R of Algorithm 1 (default; documents without a toxic token stay), sum or mean of "
        "the scores, toxic (the sum, of scores by score --toxic-alone), scorer (a document's worst piece, of scores by "
        "score-text --span window:512), words (share of tokens in --wordlist)",
    )  # fmt: skip
    seed: int = option(0, help="of --method random and wordlist (default: 0)")


def check_arguments(
    behaviours: Sequence[BehaviourScores],
    outputs: Sequence[str | Path],
    options: MaskOptions,
    words: WordList | None,
    data_prefixes: Sequence[str | Path] | None,
    filtered_outputs: Sequence[str | Path],
    spans: SpanOptions | None = None,
    ignoring: Ignoring | None = None,
) -> None:
    """
    Raises:
        InputError: arguments that do not fit together, all faults at once.
    """
    method, encoding = options.method, options.encoding
    faults = []
    if method not in METHODS:
        faults.append(f"unknown method '{method}'; one of {', '.join(METHODS)}")
    if encoding not in ENCODINGS:
        faults.append(f"unknown encoding '{encoding}'; one of {', '.join(ENCODINGS)}")
    by_scores = method in ("influence", "classifier")
    if not by_scores and encoding == "graded":
        faults.append(f"--encoding graded grades by score, which --method {method} does not select by; use binary")
    if options.rank_by not in RANKINGS:
        faults.append(f"unknown ranking '{options.rank_by}' of documents; one of {', '.join(RANKINGS)}")
    if options.rank_by != R and method != "document":
        faults.append(f"--rank-by {options.rank_by} ranks documents; give --method document")
    if (method == "wordlist" or options.rank_by == WORDS) != (words is not None):
        faults.append("--method wordlist or --rank-by words and a word list go together: give both or neither")
    if filtered_outputs and method != "document":
        faults.append("--filtered-output writes what --method document leaves; give that method")
    if method == "document" and len(behaviours) > 1:
        faults.append("--method document ranks by one direction; leave out --category")
    if not outputs and not filtered_outputs:
        faults.append("nothing to write: give --output")
    corpora = len(behaviours[0].scores)
    for behaviour in behaviours[1:]:
        if len(behaviour.scores) != corpora:
            faults.append(
                f"behaviour {behaviour.name} names {len(behaviour.scores)} score datasets, {behaviours[0].name} names "
                f"{corpora}; every behaviour names the scores of the same corpora, in the same order"
            )
    for flag, given in (("--output", outputs), ("--data", data_prefixes), ("--filtered-output", filtered_outputs)):
        if given and len(given) != corpora:
            faults.append(f"{flag} names {len(given)} datasets for {corpora} corpora; give as many as score datasets")
    read = [*(data_prefixes or ()), *(spans.prefixes if spans else ())]
    faults += _output_faults(behaviours, outputs, filtered_outputs, read)
    if ignoring is not None:
        if method == "wordlist":
            faults.append("--ignore-pattern says what has no part in a mask by scores; leave out --method wordlist")
        try:
            ignoring.compiled()
        except InputError as error:
            faults.append(str(error))
    if spans is not None:
        if not by_scores:
            faults.append(f"--span selects by scores; --method {method} does not: leave one of them out")
        faults += spans.faults(behaviours)
    elif method == "classifier":
        faults.append("--method classifier selects by spans; give --span")
    if len({behaviour.name for behaviour in behaviours}) < len(behaviours):
        faults.append("two behaviours have the same name; give each its own")
    if len(faults) == 1:
        raise InputError(faults[0])
    if faults:
        raise ConfigError(faults)


def _output_faults(
    behaviours: Sequence[BehaviourScores],
    outputs: Sequence[str | Path],
    filtered_outputs: Sequence[str | Path],
    read: Sequence[str | Path],
) -> list[str]:
    """An output without a folder, or that would replace an input or another output."""
    faults = []
    taken = {Path(prefix).absolute() for behaviour in behaviours for prefix in behaviour.scores}
    taken |= {Path(prefix).absolute() for prefix in read}
    for flag, prefixes in (("--output", outputs), ("--filtered-output", filtered_outputs)):
        for prefix in prefixes:
            path = Path(prefix).absolute()
            faults += folder_faults(flag, prefix)
            if path in taken:
                faults.append(f"{flag} {prefix} is the name of an input or of another output; choose another")
            taken.add(path)
    return faults
