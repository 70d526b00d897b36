"""The table of docs/robustness.md: how fast models learn abuse again, means over the seeds of their training.

    python benchmarks/relearn_table.py seed-1/relearn/results.json seed-2/relearn/results.json ...

Each file is the results of `ifguide attack relearn` on the same models by name, of another seed. EMT by the first
scorer after each number of steps, and for each seed the first measured step at which the base's level is reached (a
dash: never).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common import markdown_table, of_seeds, print_table_of_seeds


def table(seeds: Sequence[Mapping[str, Any]]) -> str:
    """A row for each model and set of documents.

    Raises:
        ValueError: files of other models, documents or steps.
    """
    runs = [{(run["kind"], run["documents"], run["model"]): run for run in seed["runs"]} for seed in seeds]
    if any(one.keys() != runs[0].keys() for one in runs):
        raise ValueError("the files are not of the same models and documents")
    scorer = next(iter(next(iter(runs[0].values()))["to_base"]))
    steps = [point["step"] for point in next(iter(runs[0].values()))["points"]]
    rows = []
    for kind, documents, model in sorted(runs[0], key=lambda key: (key[0] != "toxic", key[1])):
        found = [one[kind, documents, model] for one in runs]
        row = [f"{documents} {kind}", model]
        for place, step in enumerate(steps):
            points = [run["points"][place] for run in found]
            if any(point["step"] != step for point in points):
                raise ValueError("the files were measured after other steps")
            row.append(f"{sum(point['scorers'][scorer]['emt'] for point in points) / len(points):.2f}")
        row.append(of_seeds([run["to_base"][scorer]["emt"]["step"] for run in found]))
        rows.append(row)
    return markdown_table(["documents", "model", *(f"{step} steps" for step in steps), "base's level at"], rows)


if __name__ == "__main__":
    print_table_of_seeds(__doc__, table)
