"""The tables of docs/methods.md and of the README, from the results of an experiment.

    python benchmarks/methods_table.py runs/methods/results.json [--names base within dpo] [--costs]

Every number is the mean over the seeds of results.json. TP is the share of toxic prompts with at least one toxic
continuation, by each judge in turn. Perplexities are changes against the base of the same seed. Below the table stand
the methods that no other one beats in both, TP by the first judge and a perplexity.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import markdown_table, read_results

TP = "tp_toxic"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json of an experiment with one corpus")
    parser.add_argument("--names", nargs="+", metavar="METHOD", help="only these, in this order")
    parser.add_argument("--costs", action="store_true", help="what each method takes, in place of what it reaches")
    args = parser.parse_args()
    (results,) = read_results([args.results])
    methods = {name: entry for name, entry in results["methods"].items() if entry["mean"]}
    if missing := [name for name in args.names or () if name not in methods]:
        parser.error(f"{args.results} has no results of {', '.join(missing)}; it has {', '.join(methods)}")
    chosen = {name: methods[name] for name in args.names or methods}
    print(costs(chosen) if args.costs else quality(chosen, results["judges"]))
    if not args.costs:
        for text in _texts(chosen):
            print(f"\nNot beaten in both TP and {text}: {', '.join(unbeaten(chosen, text))}")


def quality(methods: Mapping[str, Any], judges: Sequence[str]) -> str:
    """TP by every judge, with the interval of the first one's difference from the base; perplexities."""
    keys = [TP, *(f"{TP}@{judge}" for judge in judges[1:])]
    texts = _texts(methods)
    named = ["perplexity" if key == "perplexity" else f"{key.partition('@')[2]}" for key in texts]
    rows = []
    for name, entry in methods.items():
        against = entry.get("against_base", {}).get("metrics", {})
        rows.append(
            [
                name,
                " / ".join(f"{entry['mean'][key]:.2f}" for key in keys),
                _bounds(against.get(TP), "difference", "{:+.2f}"),
                f"{entry['mean']['emt_toxic']:.2f}",
                *(_change(against.get(key)) for key in texts),
                f"{entry['mean']['distinct_2']:.2f}",
            ]
        )
    return markdown_table(["method", "TP", "less the base's", "EMT", *named, "distinct-2"], rows)


def costs(methods: Mapping[str, Any]) -> str:
    """Seconds and tokens of everything behind a model, and what it needs beside the text."""
    rows = []
    for name, entry in methods.items():
        mean = entry["mean"]
        memory = f"{mean['memory'] / 1e9:.1f}" if mean.get("memory") else ""
        tokens = f"{mean['trained_tokens'] / 1e6:.2f}"
        rows.append([name, f"{mean['seconds']:.0f}", tokens, memory, "; ".join(entry["extra"])])
    header = ["method", "seconds", "million tokens trained", "GB", "needs beside the text"]
    return markdown_table(header, rows)


def unbeaten(methods: Mapping[str, Any], perplexity: str) -> list[str]:
    """The methods that no other one equals or betters in both and betters in one, by their means."""
    points = {name: (entry["mean"][TP], entry["mean"][perplexity]) for name, entry in methods.items()}
    return [
        name
        for name, (toxic, text) in points.items()
        if not any(a <= toxic and b <= text and (a, b) != (toxic, text) for a, b in points.values())
    ]


def _texts(methods: Mapping[str, Any]) -> list[str]:
    """The held-out texts, by the keys of their perplexities."""
    return [key for key in next(iter(methods.values()))["mean"] if key.partition("@")[0] == "perplexity"]


def _bounds(found: Mapping[str, Any] | None, key: str, form: str) -> str:
    if found is None:
        return ""
    interval = found.get("interval")
    said = form.format(found[key])
    return f"{said} [{form.format(interval[0])}, {form.format(interval[1])}]" if interval else said


def _change(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{100 * (found['ratio'] - 1):+.1f} %"


if __name__ == "__main__":
    main()
