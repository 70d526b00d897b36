"""Does influence predict what training does better than a classifier, even where it finds labels worse?

    python benchmarks/validation.py runs/1 runs/2 runs/3 --workdir validation --output validation.json

Each folder is a finished quickstart (``ifguide quickstart --output runs/1 --seed 1``), with the built-in corpus or with
texts of one's own. For each of them:

1. a linear classifier is trained on the same queries that influence used, and scores every line; word hits are scored
   too (the built-in word list, or ``--words FILE``);
2. where ``--bergson DIR`` names a folder that holds bergson, its EK-FAC and its conjugate gradients score the same
   tokens for the same queries;
3. `ifguide validate-scores` judges all of them on the same retrained models: ``lds``, ``topk``, ``tail-patch``.

bergson goes into a folder of its own, without the torch that it asks for:

    pip install --no-deps --target bergson-env bergson==2.5.1 jaxtyping wadler-lindig peft petname simple-parsing \\
        docstring-parser natsort ml_dtypes torchopt optree

Everything is kept in the work folder: the same command goes on where it was stopped. ``--dry-run`` prints the cost.
The JSON holds every ρ by folder, and the mean over folders of each lead of influence with its interval.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import REPOSITORY, markdown_table, report
from validation_bergson import WAYS

METHODS = ("lds", "topk", "tail-patch")
_BERGSON = REPOSITORY / "benchmarks/validation_bergson.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="finished quickstarts")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["lds"], help="default: lds")
    parser.add_argument("--subsets", type=int, default=32, help="of lds; of tail-patch twice as many (default: 32)")
    parser.add_argument(
        "--training-seeds", type=int, default=1, metavar="N", help="2: with the ceiling, at twice the time"
    )
    parser.add_argument("--jobs", type=int, default=None, help="trainings at the same time")
    parser.add_argument("--words", type=Path, metavar="FILE", help="a word list instead of the built-in one")
    parser.add_argument("--bergson", type=Path, metavar="DIR", help="folder that bergson was installed into")
    parser.add_argument("--cg-steps", type=int, default=32)
    parser.add_argument("--factor-tokens", type=int, default=40_000, help="of bergson's curvature; as the quickstart's")
    parser.add_argument("--against", nargs="+", default=[], metavar="NAME=S",
                        help="further scores, below each folder (data/other) or absolute")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--output", metavar="FILE")
    args = parser.parse_args()
    started = time.monotonic()
    cases = [Case(args, number, folder.resolve()) for number, folder in enumerate(args.folders, 1)]
    if args.dry_run:
        for case in cases:
            case.dry_run()
        return
    folders = [case.validate() for case in cases]
    results = {"folders": folders, "together": together(folders), "minutes": 0.0}
    results["minutes"] = round((time.monotonic() - started) / 60, 1)
    report("validation", results, args.output)
    print(tables(results), file=sys.stderr)


class Case:
    """One finished quickstart."""

    def __init__(self, args: argparse.Namespace, number: int, folder: Path):
        self._args, self._folder = args, folder
        self._work = args.workdir.resolve() / f"{number}-{folder.name}"
        self._data = folder / "data/corpus_text_document"
        self._seed = int(json.loads((folder / "run.json").read_text())["settings"]["seed"])

    def dry_run(self) -> None:
        for method in self._args.methods:
            self._ifguide(*self._command(method, []), "--dry-run")

    def validate(self) -> dict[str, Any]:
        """What `validate-scores` says by each method, with the seconds of everything before it."""
        self._work.mkdir(parents=True, exist_ok=True)
        seconds: dict[str, float] = {}
        against = [*self._classifier(seconds), *self._bergson(seconds), *self._given()]
        found: dict[str, Any] = {"folder": str(self._folder), "seconds": seconds}
        for method in self._args.methods:
            self._ifguide(*self._command(method, against), "--overwrite")
            found[method] = json.loads((self._work / method / "results.json").read_text())
        return found

    def _command(self, method: str, against: Sequence[str]) -> list[str]:
        words = [
            "validate-scores", "--method", method, "--scores", str(self._folder / "data/scores"), "--run",
            str(self._folder / "checkpoints/base"), *self._queries(), "--output", str(self._work / method),
        ]  # fmt: skip
        for one in against:
            words += ["--against", one]
        if method == "lds":
            words += ["--subsets", str(self._args.subsets)]
        if method == "tail-patch":
            words += ["--subsets", str(2 * self._args.subsets)]
        elif self._args.training_seeds > 1:
            words += ["--training-seeds", *(str(self._seed + 1000 * n) for n in range(self._args.training_seeds))]
        if self._args.jobs:
            words += ["--jobs", str(self._args.jobs)]
        return words

    def _queries(self) -> list[str]:
        files = (self._folder / f"{kind}_queries.jsonl" for kind in ("toxic", "safe"))
        return [word for flag, file in zip(("--toxic-queries", "--safe-queries"), files) for word in (flag, str(file))]

    def _classifier(self, seconds: dict[str, float]) -> list[str]:
        """A classifier of the same queries, and words: one value a line."""
        classifier = self._work / "classifier"
        words = f"wordlist:{self._args.words.resolve()}" if self._args.words else "lexicon"
        self._timed(seconds, "classifier", "train-classifier", *self._queries(), "--output", str(classifier))
        named = (("classifier", f"linear:{classifier}"), ("words", words))
        for name, scorer in named:
            output = str(self._work / f"{name}-scores")
            where = ["--data", str(self._data), "--scorer", scorer, "--span", "line", "--output", output]
            self._timed(seconds, f"{name} scores", "score-text", *where)
        return [f"{name}={self._work / f'{name}-scores'}" for name, _ in named]

    def _bergson(self, seconds: dict[str, float]) -> list[str]:
        if self._args.bergson is None:
            return []
        output = self._work / "bergson"
        record = output / "seconds.json"
        settings = [str(self._args.cg_steps), str(self._args.factor_tokens)]
        if not record.is_file() or json.loads(record.read_text())["settings"] != settings:
            command = [
                sys.executable, str(_BERGSON), "--model", str(self._folder / "checkpoints/base/hf"), "--data",
                str(self._data), *self._queries(), "--output", str(output), "--cg-steps", settings[0],
                "--factor-tokens", settings[1],
            ]  # fmt: skip
            path = os.pathsep.join([str(REPOSITORY), str(self._args.bergson.resolve())])
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_environment(path))
            from ifguide.system.files import write_json

            write_json(record, {"settings": settings, **json.loads(done.stdout)})
        seconds |= {f"bergson {name}": value for name, value in json.loads(record.read_text())["seconds"].items()}
        return [f"bergson-{way}={output / way}" for way in WAYS]

    def _given(self) -> list[str]:
        found = []
        for one in self._args.against:
            name, _, path = one.partition("=")
            found.append(f"{name}={self._folder / path}")  # an absolute path stays one
        return found

    def _timed(self, seconds: dict[str, float], name: str, *words: str) -> None:
        started = time.monotonic()
        self._ifguide(*words)
        seconds[name] = round(time.monotonic() - started, 1)

    def _ifguide(self, *words: str) -> None:
        """A verb in a process of its own; what it says goes to stderr, for stdout is kept for JSON."""
        command = [sys.executable, "-m", "ifguide.cli", *words]
        subprocess.run(command, check=True, stdout=sys.stderr, cwd=REPOSITORY, env=_environment(str(REPOSITORY)))


def together(folders: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of lds and tail-patch: the mean over folders of ρ, and of the lead of influence, with 95 % intervals.

    Subsets are resampled in each folder, all rankings with the same draws, and means are taken of the draws.
    """
    import numpy as np

    from ifguide.statistics.correlation import rank_correlation_draws
    from ifguide.statistics.resampling import interval

    found: dict[str, Any] = {}
    for method in ("lds", "tail-patch"):
        of_method = [folder[method] for folder in folders if method in folder]
        if not of_method:
            continue
        names = [name for name in of_method[0]["rankings"] if all(name in one["rankings"] for one in of_method)]
        draws = np.mean(
            [
                rank_correlation_draws(
                    np.mean(one["changes"], axis=0),
                    [one["rankings"][name]["prediction"] for name in names],
                    seed=number,
                )
                for number, one in enumerate(of_method)
            ],
            axis=0,
        )  # [rankings, resamples]
        found[method] = {
            name: {
                "rho": float(np.mean([one["rankings"][name]["rho"] for one in of_method])),
                "interval": list(interval(row)),
                "lead_of_influence": float(
                    np.mean([one["rankings"][names[0]]["rho"] - one["rankings"][name]["rho"] for one in of_method])
                ),
                "lead_interval": list(interval(draws[0] - row)),
            }
            for name, row in zip(names, draws)
        }
    if curves := [folder["topk"]["rankings"] for folder in folders if "topk" in folder]:
        found["topk"] = {
            name: [
                {"share": point["share"], "change": float(np.mean([curve[name][at]["change"] for curve in curves]))}
                for at, point in enumerate(curves[0][name])
            ]
            for name in curves[0]
            if all(name in curve for curve in curves)
        }
    return found


def tables(results: dict[str, Any]) -> str:
    """Markdown for docs/validation.md."""
    parts = []
    for method, found in results["together"].items():
        if method == "topk":
            shares = [f"{point['share']:.1%}" for point in next(iter(found.values()))]
            rows = [[name, *(f"{point['change']:+.3f}" for point in points)] for name, points in found.items()]
            parts.append(markdown_table(["change of M without the highest", *shares], rows))
            continue
        rows = [
            [name, f"{one['rho']:+.3f}", _interval(one["interval"]), f"{one['lead_of_influence']:+.3f}",
             _interval(one["lead_interval"])]
            for name, one in found.items()
        ]  # fmt: skip
        parts.append(markdown_table([method, "ρ", "95 % interval", "influence minus this", "95 % interval"], rows))
    return "\n\n".join(parts)


def _interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:+.2f}, {bounds[1]:+.2f}]"


def _environment(path: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH"))))}


if __name__ == "__main__":
    main()
