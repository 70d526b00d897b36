"""Evaluations of several models on the same prompts, side by side: `ifguide compare`.

Two models are compared prompt by prompt: the prompts are resampled, both models with the same draws, and the difference
of the metric is taken in each resample. What makes a prompt hard for both cancels, so the interval of the difference is
narrower than the two models' own intervals suggest.

Shapes: P prompts, M models, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError, MismatchError
from ifguide.evaluation.metrics import worst_continuation
from ifguide.evaluation.results import FORMAT, KIND, metric_pairs
from ifguide.models.folder import same_fingerprint
from ifguide.pages.text import unlike_names
from ifguide.scorers.lexicon import LexiconScorer
from ifguide.statistics.resampling import RESAMPLES, Floats, bootstrap, interval, statistic
from ifguide.system.files import read_json, read_jsonl

# of fewer prompts that differ, even all may favour one model by chance: 2 * 0.5^5 > 5 % (sign test)
_FEWEST_DIFFERING = 6


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        label: short name, unlike those of the other runs.
        folder: that `ifguide evaluate` wrote.
        results: what its ``results.json`` holds.
        rows: lines of its ``samples.jsonl``, by task.
    """

    label: str
    folder: Path
    results: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]


def compare(folders: Sequence[str | Path], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """`compare_runs` of the evaluations in ``folders``.

    Raises:
        InputError: as `load_runs` and `compare_runs`.
        MismatchError: as `compare_runs`.
    """
    return compare_runs(load_runs(folders), resamples, seed)


def compare_runs(runs: Sequence[Run], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Compare evaluations: every metric of every task that all of them have.

    Args:
        runs: as `load_runs` gives them.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{"models": [...], "tasks": {name: [metric]}, "samples": {name: what was drawn or None}, "settings": {name:
        what was asked}, "texts": {name: [of each model, how many texts are empty and distinct-2]}, "warnings": [...],
        "left_out": [...], ...}``. Each metric has the ``values`` of the
        models in their order, and ``pairs``: ``first``, ``second``, ``difference`` (first - second), its ``interval``,
        ``share_first_better`` of the resamples (ties count half), ``differing_prompts``, and ``verdict``: first,
        second or unsure.

    Raises:
        InputError: too few resamples, or no task in common.
        MismatchError: other prompts, other settings or another scorer; says what differs.
    """
    if resamples < 100:
        raise InputError(f"--resamples {resamples} are too few for a 95 % interval; give at least 100")
    shared = [name for name in runs[0].results["tasks"] if all(name in run.results["tasks"] for run in runs[1:])]
    if not shared:
        had = "; ".join(f"{run.label} has {', '.join(run.results['tasks'])}" for run in runs)
        raise InputError(f"the runs have no task in common: {had}")
    _require_same(runs, shared)
    every = dict.fromkeys(name for run in runs for name in run.results["tasks"])
    return {
        "models": [{"label": run.label, "folder": str(run.folder), **_model(run.results["model"])} for run in runs],
        "tasks": {name: list(_metrics(runs, name, resamples, seed)) for name in shared},
        "samples": {name: runs[0].results["tasks"][name].get("sample") for name in shared},
        "settings": {name: runs[0].results["tasks"][name]["setting"] for name in shared},
        "texts": {name: [run.results["tasks"][name].get("texts") for run in runs] for name in shared},
        "warnings": _warnings(runs, shared),
        "left_out": [name for name in every if name not in shared],
        "resamples": resamples,
        "seed": seed,
    }


def texts_side_by_side(runs: Sequence[Run], count: int = 20) -> dict[str, dict[str, Any]]:
    """What the models say to the same prompts: each one's worst continuation by the first scorer that judged all.

    Args:
        runs: that `compare_runs` has accepted.
        count: prompts, evenly spaced over those of a task.

    Returns:
        ``{task: {"scorer", "prompts": of the task, "rows": [{"prompt", "said": [(text, score) of each model]}]}}``,
        without the tasks that generate nothing or that nobody judged.
    """
    found = {}
    for name in runs[0].results["tasks"]:
        rows = [run.rows.get(name, []) for run in runs]
        if not all(some and some[0].get("continuations") and some[0].get("scores") for some in rows):
            continue
        scorer = next((key for key in rows[0][0]["scores"] if all(key in some[0]["scores"] for some in rows)), None)
        if scorer is None:
            continue
        places = np.unique(np.linspace(0, len(rows[0]) - 1, min(count, len(rows[0]))).round().astype(int))
        shown = [
            {
                "prompt": rows[0][place]["prompt"],
                "said": [
                    worst_continuation(some[place]["continuations"], some[place]["scores"][scorer]) for some in rows
                ],
            }
            for place in places.tolist()
        ]
        found[name] = {"scorer": scorer, "prompts": len(rows[0]), "rows": shown}
    return found


def load_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read evaluations and name them by their folders: by as much of the path as tells them apart, and without the
    end that all of them have.

    Raises:
        InputError: fewer than two folders, one without a finished evaluation, or one given twice.
    """
    if len(folders) < 2:
        raise InputError("give at least two folders that `ifguide evaluate` wrote")
    paths = [Path(folder).absolute() for folder in folders]
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise InputError(f"{', '.join(twice)} is given twice")
    return [_load(path, label) for path, label in zip(paths, _labels(paths))]


def paired_difference(
    first: Floats, second: Floats, transform: str, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, Floats]:
    """Difference of a metric, first - second, and its value in each resample of the prompts.

    Args:
        first, second: pairs ``[P, 2]`` of the same prompts, see `ifguide.statistics.resampling`.
        transform: key of `TRANSFORMS`.

    Returns:
        The difference, and ``draws[R]``.
    """
    draws = bootstrap(np.stack([first, second], axis=1), transform, resamples, seed)
    return statistic(first, transform) - statistic(second, transform), draws[:, 0] - draws[:, 1]


def share_better(draws: Floats, higher_is_better: bool) -> float:
    """Share of ``draws[R]`` of a difference that speak for the first; ties count half."""
    good = draws > 0 if higher_is_better else draws < 0
    return float(good.mean() + 0.5 * (draws == 0).mean())


def _metrics(runs: Sequence[Run], task: str, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """The metrics of a task that all runs have and that follow from the samples."""
    known = [
        {(entry["metric"], entry["filter"]): entry for entry in run.results["tasks"][task]["metrics"]} for run in runs
    ]
    for key, entry in known[0].items():
        others = [found.get(key) for found in known]
        higher = entry["higher_is_better"]
        if higher is None or any(other is None or other["transform"] != entry["transform"] for other in others):
            continue
        if entry["transform"] is None:
            continue
        pairs = _finite_pairs(runs, task, ",".join(key))
        yield {
            "metric": entry["metric"],
            "filter": entry["filter"],
            "higher_is_better": higher,
            "prompts": len(pairs[0]),
            "values": [other["value"] for other in others if other is not None],
            "intervals": [other["interval"] for other in others if other is not None],
            "pairs": [
                _pair(runs, pairs, (i, j), entry["transform"], higher, resamples, seed)
                for i, j in combinations(range(len(runs)), 2)
            ],
        }


def _pair(
    runs: Sequence[Run],
    pairs: Sequence[Floats],
    which: tuple[int, int],
    transform: str,
    higher_is_better: bool,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    i, j = which
    difference, draws = paired_difference(pairs[i], pairs[j], transform, resamples, seed)
    share = share_better(draws, higher_is_better)
    differing = int((pairs[i] != pairs[j]).any(axis=1).sum())
    low, high = interval(draws)
    sure = not low <= 0 <= high and differing >= _FEWEST_DIFFERING
    return {
        "first": runs[i].label,
        "second": runs[j].label,
        "difference": difference,
        "interval": [low, high],
        "share_first_better": share,
        "differing_prompts": differing,
        "verdict": ("first" if share > 0.5 else "second") if sure else "unsure",
    }


def _finite_pairs(runs: Sequence[Run], task: str, key: str) -> list[Floats]:
    """``[M]`` arrays ``[P, 2]`` of the prompts that belong to the metric: the same ones in every run.

    Raises:
        MismatchError: a prompt belongs to it in one run and not in another.
    """
    found = [metric_pairs(run.rows[task], key) for run in runs]
    arrays = [pairs for pairs in found if pairs is not None]
    kept = [np.isfinite(pairs).all(axis=1) for pairs in arrays]
    for run, mask in zip(runs[1:], kept[1:], strict=True):
        differing = np.flatnonzero(mask != kept[0])
        if differing.size:
            raise MismatchError(
                f"task {task}, metric {key}: {differing.size} prompts belong to it in one of {runs[0].label} and "
                f"{run.label} only, the first is number {int(differing[0])}; were the prompts rescored?"
            )
    return [pairs[mask] for pairs, mask in zip(arrays, kept)]


def _require_same(runs: Sequence[Run], tasks: Sequence[str]) -> None:
    """All faults at once: what differs between the first run and each other one."""
    first = runs[0]
    faults = []
    for run in runs[1:]:
        for task in tasks:
            ours, theirs = first.results["tasks"][task], run.results["tasks"][task]
            differing = [
                f"{key} {_said(ours['setting'].get(key))} against {_said(theirs['setting'].get(key))}"
                for key in ours["setting"]
                if key != "scorers" and ours["setting"].get(key) != theirs["setting"].get(key)
            ]
            differing += _scorer_faults(ours["setting"]["scorers"], theirs["setting"]["scorers"])
            samples = [task.get("sample") for task in (ours, theirs)]
            if samples[0] != samples[1]:
                differing.append("the sample of the prompts: " + " against ".join(map(_sample_said, samples)))
            elif ours["data"]["hash"] != theirs["data"]["hash"]:
                differing.append(_first_difference(first.rows[task], run.rows[task]))
            if differing:
                faults.append(f"{first.label} and {run.label} differ in {task}: {'; '.join(differing)}")
    if faults:
        raise MismatchError("\n".join(faults))


def _sample_said(sample: Mapping[str, Any] | None) -> str:
    return f"--limit {sample['prompts']} --limit-seed {sample['seed']}" if sample else "all of them"


def _warnings(runs: Sequence[Run], tasks: Sequence[str]) -> list[str]:
    """What has to be said of the scorers that judged the compared tasks."""
    judged = {
        scorer["name"] for run in runs for name in tasks for scorer in run.results["tasks"][name]["setting"]["scorers"]
    }
    # evaluations of earlier versions carry no warnings
    said = {LexiconScorer.name: LexiconScorer.warning}
    said |= {s["name"]: s["warning"] for run in runs for s in run.results.get("scorers", ()) if s.get("warning")}
    return [warning for name, warning in said.items() if name in judged]


def _scorer_faults(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Nothing, if one scorer or more judged both; those that judged one of them are left out."""
    identities = {scorer["name"]: scorer["identity"] for scorer in theirs}
    shared = [scorer for scorer in ours if scorer["name"] in identities]
    if (ours or theirs) and not shared:
        named = (", ".join(scorer["name"] for scorer in some) or "no scorer" for some in (ours, theirs))
        return [f"judged by {' against '.join(named)}"]
    return [
        f"{scorer['name']} is another classifier of that name"
        for scorer in shared
        if not same_fingerprint(identities[scorer["name"]], scorer["identity"])
    ]


def _first_difference(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} prompts against {len(theirs)}"
    for one, other in zip(ours, theirs):
        if any(one.get(key) != other.get(key) for key in ("id", "prompt", "target")):
            return f"prompt {one['id']}, {one['prompt'][:40]!r} against {other['prompt'][:40]!r}"
    return "the prompts"


def _load(folder: Path, label: str) -> Run:
    path = folder / "results.json"
    if not path.is_file():
        raise InputError(
            f"{folder} holds no finished evaluation: it has no results.json (`ifguide evaluate` writes it)"
        )
    results = read_json(path, "evaluation")
    if not isinstance(results, dict) or results.get("kind") != KIND:
        raise InputError(f"{path} is not written by `ifguide evaluate`")
    if results.get("format") != FORMAT:
        raise InputError(f"{path} has format {results.get('format')}, this version reads {FORMAT}; evaluate again")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in results["tasks"]}
    for row in read_jsonl(folder / "samples.jsonl", "samples"):
        rows.setdefault(str(row.get("task")), []).append(row)
    for name, task in results["tasks"].items():
        if len(rows[name]) != task["data"]["prompts"]:
            raise InputError(
                f"{folder / 'samples.jsonl'} has {len(rows[name])} lines of task {name}, results.json says "
                f"{task['data']['prompts']}; run the evaluation again, it will continue"
            )
    return Run(label, folder, results, rows)


def _labels(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as few as make all labels unlike; without what all paths end in, such as ``hf``."""
    shared = 0
    while len({path.parts[-1 - shared :] for path in paths}) == 1:
        shared += 1
    return unlike_names([Path(*path.parts[: len(path.parts) - shared]) for path in paths])


def _model(about: Mapping[str, Any]) -> dict[str, Any]:
    """Of which model a run is, for the page."""
    return {
        "model": about["path"],
        **({"hash": about["identity"][:16]} if "identity" in about else {}),  # earlier versions did not say
        **{key: about.get(key) for key in ("dtype", "seed", "rad")},
    }


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_said(item)}" for key, item in value.items()) + ")"
    return "none" if value is None else str(value)
