"""The scores and tokens that a mask is built from, opened and checked before any long work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.data.aligned import Aligned, load_aligned
from ifguide.data.fingerprint import differences
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES, read_sidecar
from ifguide.errors import ConfigError, InputError, MismatchError
from ifguide.masks.ignoring import Ignoring
from ifguide.selection import ScoredCorpus, SelectionSettings, Source


@dataclass(frozen=True)
class BehaviourScores:
    """Scores along one direction, selected from with a budget of their own.

    Attributes:
        name: of the behaviour; "" where there is only one.
        scores: prefixes, one a corpus.
        settings: of Algorithm 1.
    """

    name: str
    scores: Sequence[str | Path]
    settings: SelectionSettings


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a mask is built from.

    Attributes:
        scores: by behaviour, then by corpus.
        tokens: by corpus; None where they are not needed.
        sources: by behaviour.
    """

    scores: list[list[Aligned]]
    tokens: list[TokenDataset | None]
    sources: list[Source]

    def score_records(self) -> list[dict[str, Any]]:
        """Every score dataset, as a sidecar names it."""
        return [
            {"prefix": str(Path(aligned.prefix).absolute()), "fingerprint": aligned.sidecar["fingerprint"]}
            for row in self.scores
            for aligned in row
        ]


def open_inputs(
    behaviours: Sequence[BehaviourScores],
    data_prefixes: Sequence[str | Path] | None,
    needs_tokens: bool,
    ignoring: Ignoring | None = None,
    quiet: bool = True,
) -> Inputs:
    """
    Args:
        data_prefixes: the tokens of each corpus, if they moved since they were scored.
        needs_tokens: whether they are read even if EOD tokens are not left out.
        ignoring: tokens that count for nothing.

    Raises:
        InputError: files that cannot be used, scores of different tokens; all faults at once.
    """
    include_eod = all(behaviour.settings.include_eod for behaviour in behaviours)
    faults: list[InputError] = []
    scores: list[list[Aligned]] = []
    for behaviour in behaviours:
        scores.append([])
        for prefix in behaviour.scores:
            with _collect(faults):
                scores[-1].append(load_aligned(prefix, None, SCORES))
    _raise(faults)
    for row in scores[1:]:
        for first, other in zip(scores[0], row):
            with _collect(faults):
                _same_tokens(first, other)
    tokens: list[TokenDataset | None] = []
    eods: list[int | None] = []
    for k, aligned in enumerate(scores[0]):
        with _collect(faults):
            tokens.append(_open_tokens(aligned, data_prefixes[k] if data_prefixes else None, include_eod, needs_tokens))
            eods.append(None if include_eod else _eod_of(aligned, tokens[-1]))
    _raise(faults)
    ignored = [None if ignoring is None or data is None else ignoring.tokens_of(data, quiet) for data in tokens]
    sources = [
        Source(
            [
                ScoredCorpus(
                    aligned.prefix,
                    aligned.values,
                    aligned.starts,
                    None if data is None else data.tokens,
                    eod,
                    ignored=bits,
                )
                for aligned, data, eod, bits in zip(row, tokens, eods, ignored)
            ]
        )
        for row in scores
    ]
    return Inputs(scores, tokens, sources)


def _open_tokens(
    scores: Aligned, given: str | Path | None, include_eod: bool, needed: bool
) -> TokenDataset | None:  # fmt: skip
    """The tokens that ``scores`` belong to, or None if nothing asks for them."""
    if include_eod and not needed and given is None:
        return None
    prefix = given or scores.sidecar.get("data_prefix")
    if prefix is None or not Path(f"{prefix}.idx").exists():
        hint = "" if needed else ", or count EOD tokens like any other with --include-eod"
        raise InputError(f"the tokens that {scores.prefix} scored are not at {prefix}; say where with --data{hint}")
    tokens = TokenDataset.open(prefix)
    load_aligned(scores.prefix, tokens, SCORES)
    return tokens


def _eod_of(scores: Aligned, tokens: TokenDataset | None) -> int | None:
    """The id that ends a document; None where the vocabulary has none.

    Raises:
        InputError: nothing says which.
    """
    # preprocess records the id; for data made elsewhere the scoring pass recorded the one it used
    tokenizer = {} if tokens is None else read_sidecar(tokens.prefix).get("tokenizer") or {}
    for record in (tokenizer, scores.sidecar):
        if "eod" in record:
            return record["eod"]
    raise InputError(
        f"nothing says which token ends a document: neither the sidecar of {scores.prefix} nor that of its tokens; "
        "count EOD tokens like any other with --include-eod"
    )


def _same_tokens(first: Aligned, other: Aligned) -> None:
    changes = differences(first.sidecar.get("data") or {}, other.sidecar.get("data") or {})
    if changes:
        raise MismatchError(
            f"scores {first.prefix} and {other.prefix} are of different tokens ({'; '.join(changes)}); "
            "behaviours are scores of the same corpora, in the same order"
        )


@contextmanager
def _collect(faults: list[InputError]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        faults.append(error)


def _raise(faults: list[InputError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ConfigError(dict.fromkeys(map(str, faults)))
