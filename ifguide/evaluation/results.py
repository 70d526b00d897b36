"""What lm-eval logged of a task -> the task's part of ``results.json`` and its lines of ``samples.jsonl``.

Shapes: P prompts, K continuations each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ifguide.evaluation.agreement import agreement
from ifguide.evaluation.metrics import text_summary
from ifguide.evaluation.tasks.settings import RESCORED
from ifguide.scorers.stored import StoredScorer
from ifguide.statistics.proportions import proportion_interval
from ifguide.statistics.resampling import as_pairs, bootstrap, interval, recognise
from ifguide.system.files import hash_value

FORMAT = 1
KIND = "ifguide-evaluation"


def sample_rows(name: str, logged: Sequence[Mapping[str, Any]], scorers: Sequence[StoredScorer]) -> list[dict]:
    """One line a prompt, in the order of the data: what was asked, what came, and the prompt's part of every metric.

    Args:
        name: of the task.
        logged: lm-eval's samples: one for each document and filter.
        scorers: that may have scored the continuations.
    """
    rows: dict[int, dict[str, Any]] = {}
    for sample in logged:
        row = rows.get(sample["doc_id"])
        if row is None:
            row = rows[sample["doc_id"]] = _row(name, sample, scorers)
        row["metrics"] |= {
            f"{metric},{sample['filter']}": _plain(sample[metric])
            for metric in sample["metrics"]
            if not metric.endswith("_stderr")
        }
    return [rows[number] for number in sorted(rows)]


def task_result(
    task: Any,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any],
    scorers: Sequence[StoredScorer],
    seed: int,
) -> dict[str, Any]:
    """Metrics with standard errors and intervals, what was asked of the model, the fingerprint of the data, and how far
    several scorers agree.

    Args:
        task: lm-eval's.
        name: of the task.
        rows: its `sample_rows`.
        found: all that lm-eval returned.
        scorers: that may have scored the continuations.
        seed: of the bootstrap.
    """
    config = found["configs"][name]
    generates = config["output_type"] == "generate_until"
    metadata = config.get("metadata") or {}
    scored = [scorer for scorer in scorers if rows and scorer.name in rows[0].get("scores", {})]
    return {
        "setting": {
            "version": found["versions"].get(name),
            "num_fewshot": config.get("num_fewshot"),
            "repeats": config.get("repeats"),
            "generation": config.get("generation_kwargs") if generates else None,
            "prompt_scores": metadata.get("prompt_scores"),
            "scorers": [
                {"name": scorer.name, "identity": scorer.fingerprint(), **_cut(scorer, rows, metadata)}
                for scorer in scored
            ],
        },
        "data": {
            "source": metadata.get("data"),
            "prompts": len(rows),
            "available": len(task.eval_docs),
            "hash": hash_value([[row["id"], row["prompt"], row.get("target")] for row in rows]),
        },
        "metrics": _metrics(rows, found["results"][name], found["higher_is_better"].get(name) or {}, seed),
        "texts": _texts(rows),
        "agreement": agreement(rows, [scorer.name for scorer in scored], seed),
    }


def scorer_record(scorer: StoredScorer, tasks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the scorer is, and of how many texts of all ``tasks`` it read only the start."""
    parts = [one for task in tasks for one in task["setting"]["scorers"] if one["name"] == scorer.name]
    return scorer.describe() | {key: sum(part[key] for part in parts) for key in ("texts", "truncated")}


def _cut(scorer: StoredScorer, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> dict[str, int]:
    """How many texts of the task were scored, and how many of them were cut."""
    texts = [text for row in rows for text in row.get("continuations", ())]
    if metadata.get("prompt_scores") == RESCORED:
        texts += [row["prompt"] for row in rows]
    return {"texts": len(texts), "truncated": int(scorer.cut(texts).sum())}


def _row(name: str, sample: Mapping[str, Any], scorers: Sequence[StoredScorer]) -> dict[str, Any]:
    first = sample["arguments"][0]
    row: dict[str, Any] = {"task": name, "id": sample["doc_id"], "prompt": first[0]}
    document = {key: _plain(value) for key, value in dict(sample["doc"]).items() if key not in ("prompt", "id")}
    if len(first) == 2 and isinstance(first[1], dict):  # the second argument of a generation is its settings
        texts = list(sample["resps"][0])
        row["continuations"] = texts
        scores = {scorer.name: scorer.recall(texts) for scorer in scorers}
        row["scores"] = {name: values for name, values in scores.items() if values is not None}
    else:
        row["target"] = _plain(sample["target"])
        row["responses"] = _plain(sample["resps"])
    return {**row, "document": document, "metrics": {}}


def _metrics(
    rows: Sequence[Mapping[str, Any]], reported: Mapping[str, Any], higher: Mapping[str, bool | None], seed: int
) -> list[dict[str, Any]]:
    """One entry a metric and filter, in lm-eval's order."""
    entries = []
    for key, value in reported.items():
        metric, comma, pipeline = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        entry: dict[str, Any] = {
            "metric": metric,
            "filter": pipeline,
            "value": value if math.isfinite(value) else None,
            "stderr": _number(reported.get(f"{metric}_stderr,{pipeline}")),
            "interval": None,
            "transform": None,
            "prompts": 0,
            "higher_is_better": higher.get(metric),
        }
        pairs = metric_pairs(rows, key)
        if pairs is not None:
            kept = pairs[np.isfinite(pairs).all(axis=1)]
            entry["prompts"] = len(kept)
            entry["transform"] = recognise(kept, float(value)) if len(kept) else None
            if entry["transform"] and len(kept) > 1:
                draws = bootstrap(kept, entry["transform"], seed=seed)
                share = entry["transform"] == "mean" and bool(np.isin(kept, (0.0, 1.0)).all())
                # a perplexity can be beyond all numbers in some resamples, or have a square that is
                with np.errstate(over="ignore", invalid="ignore"):
                    bounds = proportion_interval(float(value), len(kept)) if share else interval(draws)
                    spread = float(draws.std(ddof=1))
                entry["interval"] = list(bounds) if np.isfinite(bounds).all() else None
                entry["stderr"] = _number(spread) if entry["stderr"] is None else entry["stderr"]
        entries.append(entry)
    return entries


def metric_pairs(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray | None:
    """``[P, 2]``: each prompt's part of the metric ``NAME,FILTER``, NaN where it has none; None if it is no number."""
    values = [row["metrics"].get(key) for row in rows]
    width = next((2 for value in values if isinstance(value, list)), 1)
    blank = [math.nan] * width
    try:
        table = np.array([blank if value is None else np.atleast_1d(value) for value in values], dtype=np.float64)
        return as_pairs(table[:, 0] if width == 1 else table)
    except (ValueError, TypeError):
        return None


def _texts(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """`text_summary` of the continuations; None for a task without any."""
    texts = [text for row in rows for text in row.get("continuations", ())]
    return text_summary(texts) if texts else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """The same as JSON can hold it: no NaN, no NumPy, no tuples."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, str | int | bool) else str(value)
