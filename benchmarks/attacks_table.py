"""The tables of docs/robustness.md but relearning's: what attacks bring back, the seeds' values one after another.

    python benchmarks/attacks_table.py seed-?/orthogonalise/results.json
    python benchmarks/attacks_table.py seed-?/prompts/results.json
    python benchmarks/attacks_table.py seed-?/gcg/results.json

Each file is the results of one of `ifguide attack orthogonalise`, `prompts` or `gcg` on the same models by name. EMT by
the first scorer, a row for each model, a column for each way of attack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common import markdown_table, of_seeds, print_table_of_seeds


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """
    Raises:
        ValueError: files of other models, attacks or ways.
    """
    seeds = [_READ[one["attack"]](one) for one in results]
    if len({one["attack"] for one in results}) > 1 or any(list(seed) != list(seeds[0]) for seed in seeds):
        raise ValueError("the files are not of one attack on the same models in the same ways")
    models = list(dict.fromkeys(model for model, _ in seeds[0]))
    ways = list(dict.fromkeys(way for _, way in seeds[0]))
    cells = {key: of_seeds([seed[key] for seed in seeds], ".2f") for key in seeds[0]}
    return markdown_table(
        ["model", *ways], [[model, *(cells.get((model, way), "") for way in ways)] for model in models]
    )


Found = dict[tuple[str, str], float]
"""(model, way of attack) -> EMT."""


def _directions(result: Mapping[str, Any]) -> Found:
    found = {}
    for run in result["runs"]:
        way = run["direction"] if run["remove"] is None else f"{run['direction']}, {run['remove']}"
        found[run["model"], way] = next(iter(run["scorers"].values()))["emt"]
    return found


def _prompts(result: Mapping[str, Any]) -> Found:
    """The groups of all categories."""
    groups = [group for group in result["groups"] if group["category"] == "all"]
    return {(group["model"], group["frame"]): next(iter(group["scorers"].values()))["emt"]["value"] for group in groups}


def _suffixes(result: Mapping[str, Any]) -> Found:
    return {
        (model, way): next(iter(found["scorers"].values()))["emt"]
        for model, ways in result["models"].items()
        for way, found in ways["ways"].items()
    }


_READ = {"attack-orthogonalise": _directions, "attack-prompts": _prompts, "attack-gcg": _suffixes}


if __name__ == "__main__":
    print_table_of_seeds(__doc__, table)
