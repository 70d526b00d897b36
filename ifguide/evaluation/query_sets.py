"""Toxic and safe query sets for `ifguide score`, from scored texts, apart from the evaluation's prompts.

Sources, JSONL or rows of a table (`ifguide.data.sources.names`):
  rtp    RealToxicityPrompts: ``{"prompt": {"text", ...}, "continuation": {"text", "toxicity", ...}, ...}``
  jsonl  ``{"prompt": str, "completion": str}``, or generations: ``{"prompt": str, "continuations": [str]}``

The completion alone is scored: its tokens alone make a query's loss. Of an rtp file without a scorer the data set's own
toxicity of the continuation counts.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.sources.names import input_hash
from ifguide.data.sources.reading import read_rows
from ifguide.errors import InputError
from ifguide.evaluation.options import QueryChoice
from ifguide.evaluation.overlap import Overlap, evaluation_texts, words_of
from ifguide.generation.job import raise_faults
from ifguide.scorers.base import Scorer
from ifguide.scorers.registry import load_scorer
from ifguide.system.files import read_jsonl, write_json, write_jsonl
from ifguide.system.progress import Progress
from ifguide.system.provenance import environment, origin

_TEXTS_AT_ONCE = 2048
_DEFAULT = QueryChoice()
# what `queries.json` counts, a count of nothing included
_COUNTED = (
    "read", "duplicates", "empty", "unscored", "between", "toxic", "toxic_overlapping", "safe", "safe_overlapping",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A query that may be taken, and its own score if the data set has one."""

    prompt: str
    completion: str
    given: float | None = None


def build_queries(
    source: str,
    inputs: str | os.PathLike,
    output: str | os.PathLike,
    choice: QueryChoice = _DEFAULT,
    *,
    scorer: str | None,
    exclude: Sequence[str | os.PathLike],
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Write ``toxic.jsonl``, ``safe.jsonl`` and ``queries.json`` into the folder ``output``.

    Args:
        source: rtp or jsonl.
        inputs: the file.
        output: folder; created if missing.
        choice: which texts are toxic and which safe, and how many are taken.
        scorer: spec; None takes the data set's own scores (rtp only).
        exclude: files of evaluation prompts; JSONL with "prompt" or "text".
        device: where the scorer runs.
        progress: show a progress bar.

    Returns:
        ``queries.json``: what was read, left out and written.

    Raises:
        InputError: an unusable file or scorer, or a set without a query; nothing is written then.
        NumericsError: a scorer that failed; names the text, counted from 0 through the distinct queries.
    """
    if scorer is None and source != "rtp":
        raise InputError(f"source {source} has no scores of its own; give a scorer")
    overlap = Overlap(text for path in exclude for text in evaluation_texts(path))
    counts = Counter(dict.fromkeys(_COUNTED, 0))
    candidates = _distinct(_read(source, inputs), counts)
    loaded = load_scorer(scorer, device=device) if scorer else None
    scores = _scores(candidates, loaded, progress)
    counts["unscored"] = int(np.isnan(scores).sum())
    counts["between"] = int(((scores > choice.safe_threshold) & (scores < choice.toxic_threshold)).sum())
    sets = {
        name: _draw(candidates, np.flatnonzero(chosen), overlap, choice.most, choice.seed, counts, name)
        for name, chosen in (("toxic", scores >= choice.toxic_threshold), ("safe", scores <= choice.safe_threshold))
    }
    raise_faults([_no_queries(name, scores, counts) for name, queries in sets.items() if not queries])
    written = _write(Path(output), sets, overlap)
    report = {
        "source": source,
        "input": {"path": str(inputs), "hash": input_hash(inputs)},
        "scorer": loaded.describe() | {"main": loaded.main} if loaded else None,
        "truncated": loaded.truncated if loaded else 0,
        "toxic_threshold": choice.toxic_threshold,
        "safe_threshold": choice.safe_threshold,
        "max": choice.most,
        "seed": choice.seed,
        "exclude": [{"path": str(path), "hash": input_hash(path)} for path in exclude],
        "evaluation_texts": len(overlap),
        "counts": dict(counts),
        "written": written,
        **origin(),
        **environment(),
    }
    write_json(Path(output) / "queries.json", report)
    return {"output": str(output), **report}


def _read(source: str, path: str | os.PathLike) -> list[Candidate]:
    candidates, faults = [], []
    for place, row in read_rows(path, "input"):
        found = _of_rtp(row) if source == "rtp" else _of_jsonl(row)
        if found is None:
            wanted = (
                '"prompt" and "continuation" with their "text"'
                if source == "rtp"
                else '"prompt" and "completion" (or "continuations") that are text'
            )
            faults.append(place.message("input", f"needs {wanted}"))
        candidates += found or []
    raise_faults(faults)
    return candidates


def _of_rtp(row: dict[str, Any]) -> list[Candidate] | None:
    prompt, continuation = row.get("prompt"), row.get("continuation")
    if not (isinstance(prompt, dict) and isinstance(continuation, dict)):
        return None
    start, end, given = prompt.get("text"), continuation.get("text"), continuation.get("toxicity")
    if not (isinstance(start, str) and isinstance(end, str)):
        return None
    if given is None:
        return [Candidate(start, end)]
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        return None
    return [Candidate(start, end, float(given))]


def _of_jsonl(row: dict[str, Any]) -> list[Candidate] | None:
    prompt, completions = row.get("prompt"), row.get("continuations", [row.get("completion")])
    if not (isinstance(prompt, str) and isinstance(completions, list)):
        return None
    texts = [text for text in completions if isinstance(text, str)]
    return [Candidate(prompt, text) for text in texts] if len(texts) == len(completions) else None


def _distinct(candidates: list[Candidate], counts: Counter[str]) -> list[Candidate]:
    """Each query once, by its words, and none without a completion."""
    kept: dict[tuple, Candidate] = {}
    for candidate in candidates:
        words = words_of(candidate.completion)
        counts["read"] += 1
        if not words:
            counts["empty"] += 1
        elif kept.setdefault((words_of(candidate.prompt), words), candidate) is not candidate:
            counts["duplicates"] += 1
    return [*kept.values()]


def _scores(candidates: list[Candidate], scorer: Scorer | None, progress: bool) -> np.ndarray:
    """``[len(candidates)]``; NaN where the data set has none."""
    if scorer is None:
        return np.array([np.nan if c.given is None else c.given for c in candidates])
    scores = np.empty(len(candidates))
    with Progress(len(candidates), "texts", f"score with {scorer.name}", quiet=not progress) as bar:
        for start in range(0, len(candidates), _TEXTS_AT_ONCE):
            texts = [candidate.completion for candidate in candidates[start : start + _TEXTS_AT_ONCE]]
            scores[start : start + len(texts)] = scorer.score(texts, offset=start)[scorer.main]
            bar.update(len(texts))
    return scores


def _draw(
    candidates: list[Candidate],
    chosen: np.ndarray,
    overlap: Overlap,
    most: int | None,
    seed: int,
    counts: Counter[str],
    name: str,
) -> list[Candidate]:
    """At most ``most`` of the chosen that overlap nothing."""
    apart = [candidates[index] for index in chosen]
    apart = [c for c in apart if not overlap.with_query(c.prompt, c.completion)]
    counts[f"{name}_overlapping"], counts[name] = len(chosen) - len(apart), len(apart)
    return sorted(apart, key=lambda candidate: _rank(candidate, seed))[:most]


def _rank(candidate: Candidate, seed: int) -> bytes:
    text = f"{candidate.prompt}\0{candidate.completion}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, salt=seed.to_bytes(8, "little")).digest()


def _no_queries(name: str, scores: np.ndarray, counts: Counter[str]) -> str:
    known = scores[~np.isnan(scores)]
    span = f"scores go from {known.min():.3g} to {known.max():.3g}" if known.size else "nothing has a score"
    return (
        f"no {name} queries: of {len(scores)} distinct ones {counts[f'{name}_overlapping']} pass the threshold but "
        f"overlap the evaluation, and none else passes ({span}); give more texts or another threshold"
    )


def _write(folder: Path, sets: dict[str, list[Candidate]], overlap: Overlap) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, queries in sets.items():
        rows = [{"prompt": query.prompt, "completion": query.completion} for query in queries]
        write_jsonl(folder / f"{name}.jsonl", rows)
        # what is promised, of what lies on the disk
        written = read_jsonl(folder / f"{name}.jsonl")
        if any(overlap.with_query(row["prompt"], row["completion"]) for row in written):
            raise RuntimeError(f"{folder / name}.jsonl overlaps the evaluation")
    return {name: len(queries) for name, queries in sets.items()}
