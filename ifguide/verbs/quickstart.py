"""``ifguide quickstart``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of, same_as
from ifguide.errors import InputError
from ifguide.quickstart.prepare import FILES
from ifguide.quickstart.settings import QuickstartSettings
from ifguide.system.files import read_json
from ifguide.system.outputs import Output
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Run the whole job on real text: corpus, base model, influence, mask, guided and control model, report."
EXAMPLE = "ifguide quickstart --output quickstart-output --seed 1"


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The options of this verb."""

    output: Path = same_as(QuickstartSettings, "output")
    seed: int = same_as(QuickstartSettings, "seed")
    skip_preflight: bool = option(
        False, one_of="preflight",
        help="start at once; by default every stage runs first on a toy, once in an environment, for under a minute",
    )  # fmt: skip
    preflight_only: bool = option(
        False, one_of="preflight", help="run the toy, whether or not it ran, and stop"
    )  # fmt: skip
    corpus_only: bool = option(
        False, one_of="preflight",
        help="write texts, queries, prompts and the judge trained on them, and stop: what a plan of `ifguide "
        "experiment` reads",
    )  # fmt: skip
    small: bool = option(False, help="with --corpus-only: a tenth of the built-in corpus")
    input: Path | None = same_as(QuickstartSettings, "input")
    toxic_queries: Path | None = same_as(QuickstartSettings, "toxic_queries")
    safe_queries: Path | None = same_as(QuickstartSettings, "safe_queries")
    scorer: str | None = same_as(QuickstartSettings, "scorer")

    def settings(self) -> QuickstartSettings:
        """
        Raises:
            InputError: options that do not go together, or files that are not there.
        """
        return QuickstartSettings(
            self.output, self.seed, self.input, self.toxic_queries, self.safe_queries, self.scorer
        )  # fmt: skip


OPTIONS = Quickstart
WRITES = Writes(
    lambda args: None if args.preflight_only else _output(args),  # a preflight writes nothing there
    named(Quickstart),
    result=lambda args, record: _result(args, record),
    is_replayed=True,
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.quickstart import toy
    from ifguide.quickstart.pipeline import run_quickstart
    from ifguide.system.processes import keep_freed_memory

    def say(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    keep_freed_memory()
    asked = options_of(args, Quickstart)
    settings = asked.settings()
    if asked.small and not asked.corpus_only:
        raise InputError("--small is of --corpus-only; give that too, or leave it out")

    if asked.preflight_only:
        found = toy.check_here(asked.scorer, say)
        say(f"every stage works here; the toy took {found['seconds']:.0f} s")
        return found

    if asked.corpus_only:
        return _corpus_only(settings, args)

    def check() -> None:
        if not asked.skip_preflight:
            toy.check_apart(settings, say)

    results = run_quickstart(settings, say, check)
    if not args.json:
        from ifguide.pages.table import models_of, results_table

        print(results_table(results))
        if cut := sum(results[name].get("truncated", 0) for name in models_of(results)):
            print(f"\n{counted(cut, 'continuation')} longer than the judge reads: judged by the start.")
        if caution := results["judge"].get("warning"):
            print(f"\nWARNING: {caution}.")
        print(f"\nreport: {asked.output / 'report.html'}   numbers: {asked.output / 'results.json'}")
    return results


def _corpus_only(settings: QuickstartSettings, args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import replace

    from ifguide.quickstart.prepare import SMALL, CorpusSettings, write_corpus_alone

    if args.scorer:
        raise InputError("--scorer judges models, and --corpus-only makes none; leave one of them out")
    sizes = replace(SMALL if args.small else CorpusSettings(), seed=args.seed)
    given = settings.input, settings.toxic_queries, settings.safe_queries
    whole = (given[0], given[1], given[2]) if given[0] and given[1] and given[2] else None
    found = write_corpus_alone(args.output, sizes, whole)
    if not args.json:
        print(f"{found['output']}: {counted(found['counts']['documents'], 'document')}, queries, prompts and a judge")
    return found


def _result(args: argparse.Namespace, record: dict[str, Any]) -> dict[str, Any]:
    if args.corpus_only:
        return {"output": str(args.output), "counts": record["counts"], "judge": record["judge"]}
    return read_json(args.output / "results.json", "results")


def _output(args: argparse.Namespace) -> Output:
    """The folder; it is finished when the record is there, and all that its stages made."""
    if args.corpus_only:
        texts = [name for key, name in FILES.items() if key != "planted"]  # own text has no such file
        return folder(args.output, "corpus.json", [*texts, "judge/config.json", "judge/weights.npz"])
    stages = args.output / "stages.json"
    known = read_json(stages, "stage record") if stages.is_file() else {}
    made = [name for stage in known.values() for name in stage["outputs"]] if isinstance(known, dict) else []
    return folder(args.output, "run.json", ["results.json", *made], ["stages.json"])
