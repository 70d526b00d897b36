"""Conditional training: the tokens with a tag before every span, ``<|bad|>`` where its score is high.

The others have ``<|good|>``. A model that learned what follows each tag is asked for what follows ``<|good|>``
(``generate --condition``). Tags are tokens of their own, so the tagged documents are longer: scores, masks and
boundaries of the plain tokens do not belong to them, and are refused there. What lines up with the tagged tokens is the
mask of the tags themselves. Trained with ``penalty_lambda: 0`` it leaves the tags out of the loss, so that a model
learns from them and not to write them.

Shapes: D documents, N tokens, P spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.config.options import option
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.passages.boundaries import find_boundaries
from ifguide.data.sidecar import BOUNDARIES, SCORES, read_sidecar
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tags import BAD, GOOD
from ifguide.errors import ConfigError, InputError
from ifguide.masks.filtering import write_documents
from ifguide.selection import Passages, PassageSettings, ScoredCorpus, Source, scan
from ifguide.selection.settings import WINDOW
from ifguide.system.files import folder_faults, hash_value
from ifguide.system.provenance import origin

_SCORER_THRESHOLD = 0.5
_EVERY_LENGTH = float(np.nextafter(0, 1))  # a κ that changes no score, and leaves no short span out


@dataclass(frozen=True)
class TagOptions:
    """Which spans are bad, and what stands before them.

    Attributes:
        span: ``line`` or ``sentence``.
        threshold: a span whose score exceeds it is bad; None for the scorer's own (influence has none).
        good, bad: tokens by their names, or ids: of the vocabulary, or spare ones between it and the padded embedding.
    """

    span: str = option("line", choices=("line", "sentence"), help="what a tag stands before (default: line)")
    threshold: float | None = option(
        None, metavar="X", help="a span whose mean score is above X is bad (default: the scorer's own threshold)"
    )
    good: str = option(GOOD, metavar="TOKEN", help=f"before harmless spans: a name or an id (default: {GOOD})")
    bad: str = option(BAD, metavar="TOKEN", help=f"before the others (default: {BAD})")


def build_tags(
    scores: str | Path,
    output: str | Path,
    options: TagOptions | None = None,
    *,
    data_prefix: str | Path | None = None,
    mask_output: str | Path | None = None,
    reader_of: Callable[[str], TextReader] = TextReader.of_data,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write ``output.{bin,idx,json}``.

    Args:
        scores: aligned scores, one a token; a span has their mean.
        data_prefix: the tokens, if they moved since they were scored.
        mask_output: write the mask of the tags, aligned with ``output``.
        reader_of: the text reader of the tokens, for the names of tags and for boundaries that are not known yet.

    Returns:
        ``output``, ``documents``, ``tokens``, ``spans``, ``bad`` (spans), ``bad_tokens``, ``threshold``, ``ids``.

    Raises:
        InputError: files, tags or options that cannot be used; nothing is written then.
        NumericsError: a score is NaN or infinite.
        OutOfSpaceError: the disk is full; earlier files are untouched.
    """
    options = options or TagOptions()
    outputs = {"--output": output, **({"--mask-output": mask_output} if mask_output is not None else {})}
    if faults := [fault for flag, path in outputs.items() for fault in folder_faults(flag, path)]:
        raise ConfigError(faults)
    aligned = load_aligned(scores, None, SCORES)
    prefix = data_prefix or aligned.sidecar.get("data_prefix")
    if prefix is None or not Path(f"{prefix}.idx").exists():
        raise InputError(f"the tokens that {aligned.prefix} scored are not at {prefix}; say where with --data")
    tokens = TokenDataset.open(prefix)
    aligned = load_aligned(scores, tokens, SCORES)
    good, bad = _ids(options, tokens, reader_of)
    threshold = _threshold(options, aligned.sidecar)
    settings = PassageSettings.parse(options.span, _EVERY_LENGTH, positive=False)
    assert settings.kind != WINDOW
    boundaries = load_aligned(find_boundaries(tokens, reader_of, quiet).prefix, tokens, BOUNDARIES)
    eod = (read_sidecar(tokens.prefix).get("tokenizer") or {}).get("eod", aligned.sidecar.get("eod"))
    corpus = ScoredCorpus(aligned.prefix, aligned.values, aligned.starts, tokens.tokens, eod, boundaries.values)
    spans = Passages.join(list(scan(Source([corpus]), settings)))
    assert spans.sizes is not None  # lines and sentences have sizes
    places, marks, size = spans.begins, spans.scores > threshold, spans.sizes
    tags = np.where(marks, bad, good).astype(tokens.dtype)
    starts = tokens.starts
    lengths = (tokens.lengths + np.diff(np.searchsorted(places, starts))).astype(tokens.lengths.dtype)
    counts = {"documents": len(lengths), "tokens": int(lengths.sum()), "spans": len(places), "bad": int(marks.sum())}
    counts |= {"bad_tokens": int(size[marks].sum())}
    parameters = {
        "method": "tags", "span": options.span, "threshold": threshold, "good": good, "bad": bad,
    }  # fmt: skip
    record = {
        "parameters": parameters,
        "counts": counts,
        "scores": {"prefix": str(Path(aligned.prefix).absolute()), "fingerprint": aligned.sidecar["fingerprint"]},
        "identity": hash_value([parameters, aligned.sidecar["fingerprint"]]),
        **origin(),
    }
    write_documents(output, tokens, lengths, _tagged(tokens, places, tags), record)
    result = {"output": str(output), **counts, "threshold": threshold, "ids": {"good": good, "bad": bad}}
    if mask_output is not None:
        whole = TokenDataset.open(output)
        selected = {"tokens": counts["tokens"], "selected": len(places)}
        sidecar = {**record, "encoding": "binary", "counts": selected}
        write_aligned(mask_output, whole, _marked(tokens, places), np.uint8, sidecar)
        result["mask"] = str(mask_output)
    return result


def _tagged(tokens: TokenDataset, places: NDArray[np.int64], tags: NDArray) -> Iterator[NDArray]:
    """Each document's ids with its tags among them; ``places`` are global positions, before which the tags stand."""
    firsts = np.searchsorted(places, tokens.starts)
    for number in range(tokens.num_documents):
        mine = slice(firsts[number], firsts[number + 1])
        ids = np.asarray(tokens.document(number))
        yield np.ascontiguousarray(np.insert(ids, places[mine] - tokens.starts[number], tags[mine]))


def _marked(tokens: TokenDataset, places: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """1 where `_tagged` puts a tag."""
    firsts = np.searchsorted(places, tokens.starts)
    for number in range(tokens.num_documents):
        at = places[firsts[number] : firsts[number + 1]] - tokens.starts[number]
        yield np.insert(np.zeros(int(tokens.lengths[number]), np.uint8), at, 1)


def _ids(options: TagOptions, tokens: TokenDataset, reader_of: Callable[[str], TextReader]) -> tuple[int, int]:
    """
    Raises:
        InputError: a tag that is no token, ends documents, does not fit the dataset's type, or is the other one.
    """
    tokenizer = reader_of(tokens.prefix).tokenizer
    found = []
    for flag, name in (("--good", options.good), ("--bad", options.bad)):
        number = tokenizer.token_id(name)
        if number is None and name.isdecimal():
            number = int(name)
        if number is None:
            raise InputError(
                f"{flag} {name}: the vocabulary of {tokens.prefix} has no such token; name one that it has, or a spare "
                f"id from {tokenizer.vocab_size} on that the model's padded embedding has"
            )
        if number == tokenizer.eod or number > np.iinfo(tokens.dtype).max:
            why = "ends documents" if number == tokenizer.eod else f"does not fit into {tokens.dtype}"
            raise InputError(f"{flag} {name}: id {number} {why}; name another token")
        found.append(number)
    if found[0] == found[1]:
        raise InputError(f"--good and --bad are both id {found[0]}; a model could not tell them apart")
    return found[0], found[1]


def _threshold(options: TagOptions, sidecar: dict[str, Any]) -> float:
    if options.threshold is not None:
        return options.threshold
    if "scorer" not in sidecar:
        raise InputError("influence has no threshold of its own; give --threshold")
    return float(sidecar["scorer"].get("threshold", _SCORER_THRESHOLD))
