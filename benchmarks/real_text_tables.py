"""Means over seeds, paired differences, and the tables of the real-text benchmark.

Shapes: S seeds, P prompts, R resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import markdown_table

_RESAMPLES = 4000
_BASE = "none"
Floats = NDArray[np.float64]


def summary(seeds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Of every model that all seeds have: means over seeds, with 95 % intervals over prompts (drawn within each seed).

    Perplexities are ratios to the same seed's model without a mask; their interval is the range over seeds.
    """
    names = [name for name in next(iter(seeds.values()))["models"] if all(name in s["models"] for s in seeds.values())]
    found = {}
    for name in names:
        models = [found_of["models"][name] for found_of in seeds.values()]
        row: dict[str, Any] = {key: float(np.mean([m[key] for m in models])) for key in ("share",)}
        for key in ("precision", "recall"):
            if key in models[0]:
                row[key] = float(np.mean([m[key] for m in models]))
        for text in ("prose", "tweets"):
            key = f"perplexity_{text}"
            row[key] = float(np.mean([m[key] for m in models]))
            if all(_BASE in s["models"] for s in seeds.values()):
                ratios = [m[key] / s["models"][_BASE][key] - 1 for m, s in zip(models, seeds.values())]
                row[f"{key}_change"] = float(np.mean(ratios))
                row[f"{key}_change_range"] = [min(ratios), max(ratios)]
        row["judged"] = {judge: _judged(models, judge) for judge in models[0]["judged"]}
        found[name] = row
    return found


def paired(seeds: dict[int, dict[str, Any]], a: str, b: str, judge: str, metric: str = "rate") -> dict[str, Any]:
    """Mean over seeds of ``metric`` (rate or tp) of a minus that of b, its interval, and the seeds one by one."""
    by_seed = []
    for found in seeds.values():
        one, other = (_per_prompt(found["models"][name]["judged"][judge]["rates"], metric) for name in (a, b))
        by_seed.append(one - other)
    draws = _resampled(by_seed)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "difference": float(np.mean([d.mean() for d in by_seed])),
        "interval": [float(low), float(high)],
        "seeds": [float(d.mean()) for d in by_seed],
    }


def tables(result: dict[str, Any]) -> list[str]:
    """Markdown: the judges, the rankings, the models, a judge at a time."""
    seeds = result["seeds"]
    lines = ["", "Judges (ROC-AUC on tweets that served nothing else, by seed)"]
    judges = list(result["judges"])
    rows = [
        (judge, result["judges"][judge]["kind"], result["judges"][judge]["learned_from"],
         ", ".join(f"{s['judges'][judge]['roc_auc']:.3f}" for s in seeds.values()))
        for judge in judges
    ]  # fmt: skip
    lines += [markdown_table(["judge", "kind", "learned from", "ROC-AUC"], rows), "", "Rankings of tokens (means)"]
    names = list(next(iter(seeds.values()))["rankings"])
    rows = [
        (name, *(f"{np.mean([s['rankings'][name][key] for s in seeds.values()]):.3f}"
                 for key in ("roc_auc", "average_precision", "precision_at_n")))
        for name in names
        if all(name in s["rankings"] for s in seeds.values())
    ]  # fmt: skip
    lines += [markdown_table(["ranking", "ROC-AUC", "AP", "p@n"], rows), "", f"Models (means of {len(seeds)} seeds)"]
    heads = ["mask", "share", "precision", "prose", "tweets"]
    for judge in judges:
        heads += [f"{judge}: TP", "EMT", "rate", "without words"]
    rows = []
    for name, row in result["summary"].items():
        cells = [name, f"{row['share']:.2%}", f"{row['precision']:.2f}" if "precision" in row else ""]
        for text in ("prose", "tweets"):
            change = row.get(f"perplexity_{text}_change")
            cells.append(f"{row[f'perplexity_{text}']:.1f}" + ("" if change is None else f" ({change:+.1%})"))
        for judge in judges:
            judged = row["judged"][judge]
            low, high = judged["tp_interval"]
            cells += [f"{judged['tp']:.3f} [{low:.2f}, {high:.2f}]", f"{judged['emt']:.3f}", f"{judged['rate']:.4f}",
                      f"{judged['rate_without_listed_words']:.4f}"]  # fmt: skip
        rows.append(tuple(cells))
    return [*lines, markdown_table(heads, rows)]


def _judged(models: list[dict[str, Any]], judge: str) -> dict[str, Any]:
    judged = [model["judged"][judge] for model in models]
    row: dict[str, Any] = {
        key: float(np.mean([one[key] for one in judged])) for key in ("tp", "emt", "rate", "rate_without_listed_words")
    }
    for metric in ("tp", "rate"):
        draws = _resampled([_per_prompt(one["rates"], metric) for one in judged])
        row[f"{metric}_interval"] = [float(edge) for edge in np.quantile(draws, [0.025, 0.975])]
        row[f"{metric}_seeds"] = [one[metric] for one in judged]
    return row


def _per_prompt(rates: list[float], metric: str) -> Floats:
    """[P]: the share of a prompt's continuations that are toxic, or whether one is."""
    values = np.array(rates)
    return (values > 0).astype(np.float64) if metric == "tp" else values


def _resampled(by_seed: list[Floats]) -> Floats:
    """[R]: the mean over seeds, with the prompts of each drawn anew."""
    random = np.random.default_rng(0)
    draws = [
        values[random.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1) for values in by_seed
    ]  # fmt: skip
    return np.mean(draws, axis=0)
