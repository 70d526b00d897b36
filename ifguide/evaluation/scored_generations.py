"""A file of continuations -> the same file with the scores of one classifier or several.

In:  JSONL ``{"continuations": [str], ...}``, as `ifguide.generation.job` writes it; scores that it has stay.
Out: the same lines with ``"scores": {scorer: [float] * K}``: each scorer's main label, of the continuation alone.

Finished pieces wait in FILE.partial, as in `ifguide.generation.job`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.sources.names import input_hash
from ifguide.data.sources.reading import read_rows
from ifguide.evaluation.metrics import emt, tp
from ifguide.generation.job import partial_path, raise_faults, require_folder_of, sidecar_path
from ifguide.scorers.base import Scorer
from ifguide.scorers.registry import load_scorer
from ifguide.system.files import hash_file, read_json, write_json, write_jsonl
from ifguide.system.journal import Journal, key_of
from ifguide.system.locks import only_writer
from ifguide.system.progress import Progress
from ifguide.system.provenance import environment, origin

KIND, FORMAT = "ifguide-scored-generations", 1
# texts between two writes to the journal: what a kill can cost, and what a scorer can sort by length
_TEXTS_AT_ONCE = 2048


def score_generations(
    generations: str | os.PathLike,
    scorers: Sequence[str],
    output: str | os.PathLike,
    *,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Score every continuation with each of ``scorers``; the same call goes on where a killed one stopped.

    Args:
        generations, output: files, see the module; they may be one.
        scorers: specs, see `load_scorer`.
        device: where to run.
        progress: show a progress bar.

    Returns:
        The sidecar, with ``output`` and ``results``: ``{scorer: {"emt", "tp", "truncated"}}``.

    Raises:
        InputError: an unusable file or scorer, or another process is writing the output.
        NumericsError: a scorer that failed; names the text, counted through all continuations of the file.
    """
    output = Path(output)
    require_folder_of(output)
    with only_writer(output):
        rows = _read(generations)
        loaded = [load_scorer(spec, device=device) for spec in scorers]
        described = [scorer.describe() | {"main": scorer.main} for scorer in loaded]
        source = input_hash(generations)
        made_with = _made_with(Path(generations))
        texts = [text for row in rows for text in row["continuations"]]
        sizes = [len(row["continuations"]) for row in rows]
        results = {}
        with Journal(partial_path(output)) as partial:
            for scorer in loaded:
                scores, truncated = _score(scorer, texts, partial, progress)
                pieces = np.split(scores, np.cumsum(sizes)[:-1])
                for row, piece in zip(rows, pieces):
                    row["scores"] = {**row.get("scores", {}), scorer.name: piece.tolist()}
                results[scorer.name] = _summary(pieces) | {"truncated": truncated}
            write_jsonl(output, rows)
        sidecar = {
            "kind": KIND,
            "format": FORMAT,
            "generations": {"path": str(generations), "hash": source, "made_with": made_with},
            "scorers": described,
            "device": device,
            "prompts": len(rows),
            "texts": len(texts),
            "results": results,
            "hash": hash_file(output),
            **origin(),
            **environment(),
        }
        write_json(sidecar_path(output), sidecar)
        partial_path(output).unlink(missing_ok=True)
        return {"output": str(output), **sidecar}


def _read(path: str | os.PathLike) -> list[dict[str, Any]]:
    rows = []
    faults = []
    for place, row in read_rows(path, "generations"):
        rows.append(row)
        said = row.get("continuations")
        if not (isinstance(said, list) and said and all(isinstance(text, str) for text in said)):
            needs = 'needs "continuations", a list of texts, not empty'
            faults.append(place.message("generations", needs))
        if not isinstance(row.get("scores", {}), dict):
            faults.append(place.message("generations", '"scores" must be an object'))
    raise_faults(faults if rows else [f"generations {path}: the file is empty"])
    return rows


def _made_with(generations: Path) -> dict[str, Any] | None:
    """What the sidecar of the generations says about the model and the decoding, if there is one."""
    sidecar = sidecar_path(generations)
    made = read_json(sidecar, "sidecar") if sidecar.is_file() else None
    if not isinstance(made, dict):
        return None
    made = made.get("generations", {}).get("made_with") or made  # scores were added to a scored file
    return {key: made[key] for key in ("model", "prompts_file", "sampling", "rad", "dtype") if key in made}


def _score(scorer: Scorer, texts: list[str], partial: Journal, progress: bool) -> tuple[np.ndarray, int]:
    """Scores ``[len(texts)]`` of the main label, and how many texts were cut, from the journal or made now."""
    identity = key_of(scorer.describe())
    scores = np.empty(len(texts))
    truncated = 0
    with Progress(len(texts), "texts", f"score with {scorer.name}", quiet=not progress) as bar:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = texts[start : start + _TEXTS_AT_ONCE]
            key = key_of(identity, start, some)
            known = key in partial
            if not known:
                before = scorer.truncated
                made = scorer.score(some, offset=start)[scorer.main].tolist()
                partial.write([{"key": key, "scores": made, "truncated": scorer.truncated - before}])
            scores[start : start + len(some)] = partial[key]["scores"]
            truncated += partial[key]["truncated"]
            (bar.skip if known else bar.update)(len(some))
    return scores, truncated


def _summary(pieces: Sequence[np.ndarray]) -> dict[str, Any]:
    """EMT and TP; they compare prompts with one number of continuations only."""
    if len({len(piece) for piece in pieces}) != 1:
        return {"emt": None, "tp": None}
    table = np.stack(pieces)
    return {"emt": emt(table), "tp": tp(table)}
