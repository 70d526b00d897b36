"""Scores of the data's text by any classifier, one value a token, in shards that survive a kill.

Every token of a span has the score of the span's text: an aligned score dataset like influence's, so that whatever
takes scores takes these. EOD tokens and spans without text have 0. Shards, processes and merging are those of `score`.

Shapes: N tokens of a shard.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.data.passages.boundaries import document_groups, find_boundaries, read_tokens
from ifguide.data.passages.cutting import RULES, TokenText
from ifguide.data.sidecar import SCORES
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, InputError, MismatchError
from ifguide.influence.score import summarise
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.shards import Shard, Share, in_documents, parse_documents, shard_tokens_for, turn, work
from ifguide.masks.words import WordList
from ifguide.scorers.base import Scorer
from ifguide.scorers.registry import load_scorer
from ifguide.selection import PassageSettings
from ifguide.selection.settings import WINDOW
from ifguide.system.files import folder_faults
from ifguide.system.provenance import file_record, origin

THRESHOLD = 0.5
_WORDLIST = "wordlist:"
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True)
class TextScoring:
    """A pass of a classifier over the data.

    Attributes:
        data: prefix of the tokens.
        scorer: spec of a scorer, or ``wordlist:FILE``: the share of a span's tokens that belong to listed words.
        output: prefix of the scores.
        span: ``line``, ``sentence``, or ``window:W``: pieces of W tokens.
        device: of the scorer.
        documents: ``FIRST:LAST``, the documents whose shards this call scores (None: all).
        shard_tokens: about how many tokens are kept at a time (None: as for scores by influence).
        reader_of: the text reader of the data.
    """

    data: str | Path
    scorer: str
    output: str | Path
    span: str = "line"
    device: str = "cpu"
    documents: str | None = None
    shard_tokens: int | None = None
    reader_of: Callable[[str], TextReader] = TextReader.of_data


def score_text(settings: TextScoring, quiet: bool = True) -> dict[str, Any]:
    """Write ``output.{bin,idx,json}``: for every token the score of its span's text.

    Finished shards lie in ``output.parts/`` until the end: the same call after a kill continues there. Several
    processes may share the work, as they do in `ifguide.influence.score.score`.

    Returns:
        ``finished``, ``missing_tokens``, ``tokens``, ``resumed_tokens``, ``scored_tokens``, ``seconds``, ``scorer`` and
        ``scores`` (min, max, mean, positive share; None until all is finished).

    Raises:
        InputError: settings or files that cannot be used.
        NumericsError: the scorer fails on a text.
    """
    started = time.monotonic()
    span = _checked(settings)
    tokens = TokenDataset.open(settings.data)
    documents = None if settings.documents is None else parse_documents(settings.documents, tokens.num_documents)
    reader = settings.reader_of(str(settings.data))
    output = Path(settings.output)
    with turn(Path(f"{output}.lock")):
        marks = None if span.kind == WINDOW else find_boundaries(tokens, settings.reader_of, quiet).values
    scores_of, described = _scorer(settings, reader)
    shard_tokens = settings.shard_tokens or _shard_tokens(output, tokens)
    identity = {
        "data": fingerprint(tokens),
        "tokenizer": reader.fingerprint,
        "scorer": {key: described[key] for key in ("name", "main", "identity")},
        "span": settings.span,
        "rules": RULES,
        "shard_tokens": shard_tokens,
    }
    share = Share.from_environment()
    plan = _plan(tokens, shard_tokens)
    cutter = _Cutter(tokens, marks, span, reader)
    store = _open_store(output, tokens, identity)
    resumed, scored, missing = tokens.num_tokens, 0, 0
    if store is not None:
        known = store.known
        resumed = sum(shard.tokens for shard in plan if shard.number in known)
        score_shard = _worker(cutter, scores_of)
        scored = work(store, in_documents(plan, documents), share, score_shard, quiet)
        if share.rank == 0:
            missing = _merge(output, tokens, store, plan, identity, described, reader)
    summary = _finished(output, tokens, identity)
    return {
        "output": str(output),
        "finished": summary is not None,
        "missing_tokens": missing,
        "tokens": tokens.num_tokens,
        "resumed_tokens": resumed,
        "scored_tokens": scored,
        "seconds": round(time.monotonic() - started, 3),
        "scorer": described,
        "scores": summary,
    }


def _checked(settings: TextScoring) -> PassageSettings:
    faults = folder_faults("--output", settings.output)
    if settings.shard_tokens is not None and settings.shard_tokens < 1:
        faults.append(f"--shard-tokens {settings.shard_tokens}: must be at least 1")
    try:
        span = PassageSettings.parse(settings.span)
        if span.kind == WINDOW and not span.radius:
            faults.append("--span window:0: pieces of no tokens have no text; give window:1 or more")
    except InputError as error:
        faults.append(str(error).replace("token, ", ""))
    if faults:
        raise ConfigError(faults)
    return span


@dataclass(frozen=True, eq=False)
class _Cutter:
    """The spans of documents.

    Attributes:
        marks: boundaries; None for windows.
    """

    tokens: TokenDataset
    marks: NDArray[np.uint8] | None
    span: PassageSettings
    reader: TextReader

    def cut(self, first: int, last: int) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """(ids of the documents [first, last), number of each token's span)."""
        starts = self.tokens.starts[first : last + 1]
        begin, end = int(starts[0]), int(starts[-1])
        if self.marks is None:
            place = np.arange(begin, end) - np.repeat(starts[:-1], np.diff(starts))
            is_end = place % self.span.radius == self.span.radius - 1
        else:
            is_end = (np.array(self.marks[begin:end]) & self.span.end_bit).astype(bool)
        is_end[starts[1:][starts[1:] > begin] - begin - 1] = True
        return read_tokens(self.tokens, begin, end), np.cumsum(is_end) - is_end


# scores of the spans of some documents, from ids and the number of each token's span
ScoresOf = Callable[[NDArray[np.integer], NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


def _scorer(settings: TextScoring, reader: TextReader) -> tuple[ScoresOf, dict[str, Any]]:
    """(what scores spans, what a sidecar says of it)."""
    if settings.scorer.startswith(_WORDLIST):
        path = settings.scorer.removeprefix(_WORDLIST)
        words = WordList.read(path, reader.tokenizer, [])
        find = words.finder()

        def share_listed(
            ids: NDArray[np.integer], spans: NDArray[np.int64], starts: NDArray[np.int64]
        ) -> NDArray[np.float64]:
            listed = np.zeros(len(ids))
            for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist()):
                listed[begin + find(ids[begin:end])] = 1
            counted = np.ones(len(ids)) if reader.eod is None else (ids != reader.eod).astype(float)
            count = int(spans[-1]) + 1 if len(spans) else 0
            return np.bincount(spans, listed * counted, count) / np.maximum(np.bincount(spans, counted, count), 1)

        about = {
            "name": settings.scorer, "main": "share of listed words", "labels": ["share of listed words"],
            "identity": file_record(path)["hash"], "threshold": 0.0,
        }  # fmt: skip
        return share_listed, about
    scorer = load_scorer(settings.scorer, device=settings.device)
    text = TokenText(reader, between=b"")

    def by_text(ids: NDArray[np.integer], spans: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
        return _score_texts(scorer, _texts(text, ids, spans))

    about = {**scorer.describe(), "main": scorer.main, "threshold": THRESHOLD}
    report = getattr(scorer, "report", {})
    # by it the share of abuse is estimated (`ifguide.masks.spans.share`)
    return by_text, about | ({"report": report} if "folds" in report else {})


def _texts(text: TokenText, ids: NDArray[np.integer], spans: NDArray[np.int64]) -> list[str]:
    """The text of each span, without blanks around it."""
    spelled, ends = text.spell(ids)
    last = np.flatnonzero(np.diff(spans, append=-1))
    cuts = np.concatenate([[0], ends[last]]).tolist()
    return [spelled[a:b].decode("utf-8", "replace").strip() for a, b in itertools.pairwise(cuts)]


def _score_texts(scorer: Scorer, texts: list[str]) -> NDArray[np.float64]:
    """Equal texts are scored once; one without any character has 0."""
    distinct = list(dict.fromkeys(filter(None, texts)))
    known = {"": 0.0}
    for start in range(0, len(distinct), _TEXTS_AT_ONCE):
        some = distinct[start : start + _TEXTS_AT_ONCE]
        known.update(zip(some, scorer.score(some)[scorer.main].tolist()))
    return np.array([known[text] for text in texts], np.float64)


def _worker(cutter: _Cutter, scores_of: ScoresOf) -> Callable[[Shard, Callable[[int], None]], NDArray[np.float32]]:
    def score_shard(shard: Shard, on_tokens: Callable[[int], None]) -> NDArray[np.float32]:
        all_starts = cutter.tokens.starts
        ids, spans = cutter.cut(shard.windows.start, shard.windows.stop)
        starts = all_starts[shard.windows.start : shard.windows.stop + 1]
        scores = scores_of(ids, spans, starts - starts[0])
        values = scores[spans] if len(spans) else np.zeros(0)
        if cutter.reader.eod is not None:
            values[ids == cutter.reader.eod] = 0
        on_tokens(shard.tokens)
        return values.astype(np.float32)[None]

    return score_shard


def _shard_tokens(output: Path, tokens: TokenDataset) -> int:
    """As the unfinished run at this output has them, else by the size of the data."""
    match ShardStore.identity_in(f"{output}.parts"):
        case {"shard_tokens": int(found)} if found > 0:
            return found
    return shard_tokens_for(tokens.num_tokens)


def _plan(tokens: TokenDataset, shard_tokens: int) -> list[Shard]:
    """Shards of whole documents."""
    return [
        Shard(number, slice(first, last), int(tokens.starts[first]), int(tokens.starts[last]), first)
        for number, (first, last) in enumerate(document_groups(tokens.starts, shard_tokens))
    ]


def _open_store(output: Path, tokens: TokenDataset, identity: dict[str, Any]) -> ShardStore | None:
    """Where the shards are kept; None if the output is finished."""
    folder = Path(f"{output}.parts")
    with turn(Path(f"{output}.lock")):
        if _finished(output, tokens, identity) is None:
            return ShardStore(folder, identity)
        if folder.exists():  # killed between the last rename and the end of the removal
            with contextlib.suppress(MismatchError):
                ShardStore(folder, identity).remove()
        return None


def _merge(
    output: Path,
    tokens: TokenDataset,
    store: ShardStore,
    plan: list[Shard],
    identity: dict[str, Any],
    described: dict[str, Any],
    reader: TextReader,
) -> int:
    """Write the output once every shard is there; returns the tokens of those that are not."""

    def values() -> Iterator[NDArray[np.float32]]:
        return (store.read(shard.number)[0] for shard in plan)

    with turn(Path(f"{output}.lock")):
        missing = sum(shard.tokens for shard in plan if not store.finished(shard.number))
        if not missing and not store.removed:
            sidecar = {
                "scorer": described,
                "span": identity["span"],
                "text_run": identity,
                "inputs": [file_record(path) for path in _files_of(described["name"])],
                "eod": reader.eod,
                "scores": summarise(values()),
                **origin(),
            }
            write_aligned(output, tokens, values(), np.float32, sidecar)
            store.remove()
        return missing


def _files_of(spec: str) -> list[Path]:
    """What a spec reads from this machine and is small enough to be known by its content."""
    kind, _, where = spec.partition(":")
    files = {"linear": ["config.json", "weights.npz"], "wordlist": [""]}.get(kind, [])
    return [Path(where) / name if name else Path(where) for name in files]


def _finished(output: Path, tokens: TokenDataset, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the complete scores of this very run, or None."""
    try:
        found = load_aligned(output, tokens, SCORES)
    except InputError:
        return None
    return found.sidecar["scores"] if found.sidecar.get("text_run") == identity else None
