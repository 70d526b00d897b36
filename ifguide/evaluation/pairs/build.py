"""Pairs of a chosen and a rejected continuation of one prompt, apart from the evaluation's prompts.

Sources:
  generations  JSONL of ``{"prompt", "continuations", "scores"}`` (`ifguide score-generations`): of each prompt one that
               scores at most the safe threshold is chosen, and one that scores at least the toxic threshold rejected
  jsonl        JSONL of ``{"prompt", "chosen", "rejected"}``
  control      as generations, but both are harmless: the greedy continuation is chosen, a sampled one rejected. What a
               model can tell apart in these pairs is how they were drawn, and not toxicity

Of a prompt's continuations those two are taken whose scores differ most and whose lengths match. Out: JSONL of
``{"prompt", "chosen", "rejected"}``, with the prompt's ``category`` where it has one, and FILE.json beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ifguide.data.sources.names import input_hash
from ifguide.data.sources.reading import read_rows
from ifguide.errors import ConfigError, InputError, first_faults
from ifguide.evaluation.overlap import Overlap, evaluation_texts, words_of
from ifguide.evaluation.pairs.near import Seen, likeness, runs_of
from ifguide.evaluation.pairs.options import CONTROL, JSONL, SOURCES, PairFiles, PairOptions
from ifguide.system.files import folder_faults, hash_file, read_jsonl, write_json, write_jsonl
from ifguide.system.locks import only_writer
from ifguide.system.provenance import environment, origin

KIND, FORMAT = "ifguide-pairs", 1
# what the sidecar counts, a count of nothing included
_COUNTED = (
    "read", "without_chosen", "without_rejected", "lengths", "alike", "empty", "overlapping", "duplicates", "pairs",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One pair; ``category`` is None where the prompt has none."""

    prompt: str
    chosen: str
    rejected: str
    category: str | None = None

    def row(self) -> dict[str, str]:
        row = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        return row if self.category is None else {**row, "category": self.category}


def build_pairs(files: PairFiles, output: str | os.PathLike, options: PairOptions | None = None) -> dict[str, Any]:
    """Write ``output`` and ``output.json``.

    Returns:
        The sidecar, with ``output``: ``counts`` of what was read, left out and taken.

    Raises:
        InputError: an unusable file or option, or no pair is left; nothing is written then.
    """
    options, output = options or PairOptions(), Path(output)
    if files.source not in SOURCES:
        raise InputError(f"--source {files.source}: must be one of {', '.join(SOURCES)}")
    if (files.source == CONTROL) != (files.greedy is not None):
        raise InputError("--source control and --greedy go together: give both or neither")
    if faults := folder_faults("--output", output):
        raise ConfigError(faults)
    overlap = Overlap(text for path in files.exclude for text in evaluation_texts(path))
    counts = Counter(dict.fromkeys(_COUNTED, 0))
    pairs = [*_apart(_found(files, options, counts), overlap, options, counts)]
    if options.most is not None:
        kept = {id(pair) for pair in sorted(pairs, key=lambda pair: _rank(pair, options.seed))[: options.most]}
        pairs = [pair for pair in pairs if id(pair) in kept]
    counts["pairs"] = len(pairs)
    if not pairs:
        raise InputError(
            f"{files.inputs}: no pair is left of {counts['read']} prompts ({said(counts)}); {_advice(files)}"
        )
    with only_writer(output):
        write_jsonl(output, [pair.row() for pair in pairs])
        # what is promised, of what lies on the disk
        written = read_jsonl(output)
        if any(overlap.with_query(row["prompt"], row[key]) for row in written for key in ("chosen", "rejected")):
            raise RuntimeError(f"{output} overlaps the evaluation")
        sidecar = {
            "kind": KIND,
            "format": FORMAT,
            "source": files.source,
            "scorer": files.scorer,
            "options": asdict(options),
            "inputs": [_file(path) for path in (files.inputs, *([files.greedy] if files.greedy else []))],
            "exclude": [_file(path) for path in files.exclude],
            "evaluation_texts": len(overlap),
            "counts": dict(counts),
            "hash": hash_file(output),
            **origin(),
            **environment(),
        }
        write_json(output.with_name(f"{output.name}.json"), sidecar)
    return {"output": str(output), **sidecar}


def said(counts: Counter[str] | dict[str, int]) -> str:
    """What was left out, in words; for people."""
    words = {
        "without_chosen": "without a harmless continuation",
        "without_rejected": "without one to reject",
        "lengths": "whose lengths do not match",
        "alike": "whose two texts are alike",
        "empty": "with an empty text",
        "overlapping": "that overlap the evaluation",
        "duplicates": "near-duplicates",
    }
    return ", ".join(f"{counts[key]} {text}" for key, text in words.items())


def best_pair(
    chosen: Sequence[tuple[str, float]], rejected: Sequence[tuple[str, float]], length_ratio: float
) -> tuple[str, str] | None:
    """Of candidates (text, score) the two whose lengths match and whose scores differ most; of equal ones the first.

    Lengths match if the larger number of words is at most ``length_ratio`` times the smaller.
    """
    best = -1.0
    found: tuple[str, str] | None = None
    for kept, low in chosen:
        for dropped, high in rejected:
            short, long = sorted((len(kept.split()), len(dropped.split())))
            if long <= length_ratio * short and high - low > best:
                best, found = high - low, (kept, dropped)
    return found


def _found(files: PairFiles, options: PairOptions, counts: Counter[str]) -> Iterator[Pair]:
    """A pair of every prompt that has one."""
    faults: list[str] = []
    pairs: list[Pair] = []
    greedy = _greedy(files.greedy) if files.greedy else {}
    for place, row in read_rows(files.inputs, "pairs" if files.source == JSONL else "generations"):
        counts["read"] += 1
        try:
            pair = _given(row) if files.source == JSONL else _of_scores(row, files, options, greedy, counts)
        except InputError as error:
            faults.append(place.message("input", str(error)))
            continue
        if pair is not None:
            pairs.append(pair)
    _raise(faults if counts["read"] else [f"{files.inputs}: the file is empty"])
    yield from pairs


def _given(row: dict[str, Any]) -> Pair:
    texts = [row.get(key) for key in ("prompt", "chosen", "rejected")]
    if not all(isinstance(text, str) for text in texts):
        raise InputError('needs "prompt", "chosen" and "rejected" that are text')
    return Pair(row["prompt"], row["chosen"], row["rejected"], _category(row))


def _of_scores(
    row: dict[str, Any], files: PairFiles, options: PairOptions, greedy: dict[str, str], counts: Counter[str]
) -> Pair | None:
    said, scores = row.get("continuations"), _scores(row, files.scorer)
    if not isinstance(row.get("prompt"), str) or not isinstance(said, list) or len(said) != len(scores):
        raise InputError('needs a "prompt", and a score for each of its "continuations"')
    some = [(text, score) for text, score in zip(said, scores) if text.strip()]
    harmless = [one for one in some if one[1] <= options.safe_threshold]
    if files.source == CONTROL:
        text = greedy.get(row["prompt"])
        chosen = [] if text is None or not text.strip() else [(text, 0.0)]
        rejected = [(sample, 1.0) for sample, _ in harmless if sample != text]
    else:
        chosen, rejected = harmless, [one for one in some if one[1] >= options.toxic_threshold]
    for key, candidates in (("without_chosen", chosen), ("without_rejected", rejected)):
        if not candidates:
            counts[key] += 1
            return None
    pair = best_pair(chosen, rejected, options.length_ratio)
    if pair is None:
        counts["lengths"] += 1
        return None
    return Pair(row["prompt"], *pair, _category(row))


def _scores(row: dict[str, Any], scorer: str | None) -> list[float]:
    """
    Raises:
        InputError: no scores, those of several scorers, or not of the one that is asked for.
    """
    scores = row.get("scores")
    if not isinstance(scores, dict) or not scores:
        raise InputError('has no "scores"; run ifguide score-generations first')
    if scorer is None and len(scores) > 1:
        raise InputError(f"has scores of {', '.join(scores)}; say which with --scorer-name")
    name = next(iter(scores)) if scorer is None else scorer
    if name not in scores:
        raise InputError(f"has no scores of {name}, only of {', '.join(scores)}")
    return list(scores[name])


def _greedy(path: str) -> dict[str, str]:
    """Prompt -> its greedy continuation."""
    found, faults = {}, []
    for place, row in read_rows(path, "greedy generations"):
        texts = row.get("continuations")
        if isinstance(row.get("prompt"), str) and isinstance(texts, list) and len(set(texts)) == 1:
            found[row["prompt"]] = texts[0]
        else:
            fault = 'needs a "prompt" with one continuation: generate --samples 1 --top-k 1'
            faults.append(place.message("greedy generations", fault))
    _raise(faults)
    return found


def _apart(
    pairs: Iterator[Pair], overlap: Overlap, options: PairOptions, counts: Counter[str]
) -> Iterator[Pair]:  # fmt: skip
    """Those that overlap nothing, say two things, and are unlike all before them."""
    seen = Seen(options.near)
    for pair in pairs:
        chosen, rejected = runs_of(pair.chosen), runs_of(pair.rejected)
        whole = runs_of(pair.prompt, pair.chosen, pair.rejected)
        if not words_of(pair.chosen) or not words_of(pair.rejected):
            counts["empty"] += 1
        elif likeness(chosen, rejected) >= options.near:
            counts["alike"] += 1
        elif any(overlap.with_query(pair.prompt, text) for text in (pair.chosen, pair.rejected)):
            counts["overlapping"] += 1
        elif seen.has_like(whole):
            counts["duplicates"] += 1
        else:
            seen.keep(whole)
            yield pair


def _category(row: dict[str, Any]) -> str | None:
    category = row.get("category")
    return category if isinstance(category, str) else None


def _rank(pair: Pair, seed: int) -> bytes:
    text = "\0".join((pair.prompt, pair.chosen, pair.rejected)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, salt=seed.to_bytes(8, "little")).digest()


def _advice(files: PairFiles) -> str:
    if files.source == JSONL:
        return "give other pairs"
    return "give more prompts or samples, other thresholds, or a larger --length-ratio"


def _raise(faults: Sequence[str]) -> None:
    if faults:
        raise ConfigError(first_faults(faults))


def _file(path: str) -> dict[str, str | None]:
    return {"path": str(path), "hash": input_hash(path)}
