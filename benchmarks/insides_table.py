"""The table of docs/mechanism.md: what models hold inside, the values of the seeds of their training one after another.

    python benchmarks/insides_table.py inside/seed-?/*/results.json

Each file is the results of `ifguide analyse probe`, `drift`, `lens` or `direction` on the same models by name; those of
one analysis stand in the order of the seeds. An analysis that is not among them has no columns.

    AUC                      at the last layer, of a fresh probe and of the base's
    toxic token              the probability that the model gives at the end to the toxic token that the base would say
    most moved matrix        |ΔW|_F / |W|_F of the matrix where it is largest
    CKA                      of the last layer with the base's
    cosine                   of the model's toxic direction with the base's, at the last layer
    EMT at a                 with a times the direction, the model's own or the base's, added to what the head reads
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common import markdown_table, of_seeds, print_table_of_seeds

# column -> its analysis, and its number in what that analysis says of a model; a KeyError where it says none
COLUMNS: dict[str, tuple[str, Callable[[Any], float]]] = {
    "AUC of a fresh probe": ("probe", lambda found: found["logistic"]["values"][-1]),
    "of the base's probe": ("probe", lambda found: found["base's probe"]["values"][-1]),
    "toxic token, lens": ("lens", lambda found: found["token"]["values"][-1]),
    "most moved matrix": ("drift", lambda found: max(row["relative"] for row in found["matrices"])),
    "CKA, toxic": ("drift", lambda found: found["cka"]["toxic"]["values"][-1]),
    "CKA, safe": ("drift", lambda found: found["cka"]["safe"]["values"][-1]),
    "cosine": ("direction", lambda found: found["cosine"]),
    "EMT at 0": ("direction", lambda found: found["own"][0.0]),
    "EMT at 2, own": ("direction", lambda found: found["own"][2.0]),
    "EMT at 2, base's": ("direction", lambda found: found["base's"][2.0]),
}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each model.

    Raises:
        ValueError: files of other models, or other numbers of seeds.
    """
    models = [model["label"] for model in results[0]["models"]]
    if any([model["label"] for model in one["models"]] != models for one in results):
        raise ValueError("the files are not of the same models")
    by_analysis: dict[str, list[Any]] = {}
    for one in results:
        numbers = one["numbers"]
        found = _steered(numbers) if one["what"] == "direction" else numbers["models"]
        by_analysis.setdefault(one["what"], []).append(found)
    if len({len(seeds) for seeds in by_analysis.values()}) > 1:
        raise ValueError("the analyses are not of the same number of seeds")
    columns = {title: column for title, column in COLUMNS.items() if column[0] in by_analysis}
    rows = [
        [model, *(_cell([seed.get(model) for seed in by_analysis[what]], read) for what, read in columns.values())]
        for model in models
    ]
    return markdown_table(["model", *columns], rows)


def _steered(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Of each model its cosine with the base's direction, and EMT by scale along its own direction and the base's."""
    found: dict[str, Any] = {}
    for model, ways in numbers["models"].items():
        found[model] = {"cosine": numbers["cosines"][model]["values"][-1]}
        for way, said in ways.items():
            found[model][way] = dict(zip(numbers["scales"], said["emt"]["values"], strict=True))
    return found


def _cell(seeds: Sequence[Any], read: Callable[[Any], float]) -> str:
    """Empty where the analysis says nothing of this model, as of the base against itself."""
    try:
        return of_seeds([read(found or {}) for found in seeds], ".3g")
    except KeyError:
        return ""


if __name__ == "__main__":
    print_table_of_seeds(__doc__, table)
