"""``ifguide analyse``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ifguide.analysis.options import ANALYSES, PARTS, Analyse, require_options
from ifguide.config.options import given, named, option, options_of
from ifguide.system.outputs import Source
from ifguide.verbs.writes import Writes, folder, source

SUMMARY = (
    "Look inside models: did they never learn abuse, or do they only not say it? "
    + " ".join(f"{name}: {text}." for name, text in ANALYSES.items())
)  # fmt: skip
EXAMPLE = (
    "ifguide analyse lens --models base=models/base guided=models/guided --toxic-queries toxic.jsonl "
    "--scorer detoxify:unbiased --output runs/lens"
)


@dataclass(frozen=True, kw_only=True)
class AnalyseWhat(Analyse):
    """The options of this verb: those of all analyses, and which of them it is."""

    what: str = option(flags=["what"], choices=tuple(ANALYSES), metavar="WHAT", help=f"one of {', '.join(ANALYSES)}")


OPTIONS = AnalyseWhat
WRITES = Writes(
    lambda args: folder(args.output, "results.json", ["run.json", "report.html"], ["journal.jsonl"]),
    named(AnalyseWhat),
    sources=lambda args: _models(args),
    settle=lambda args, settings: _settle(args, settings),
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.analysis.job import analyse
    from ifguide.analysis.report import verdicts
    from ifguide.system.processes import keep_freed_memory

    asked = options_of(args, Analyse)
    parts = {one.name for one in fields(Analyse)} & {name for names in PARTS.values() for name in names}
    require_options(args.what, asked, {name: given(args, Analyse, name) for name in sorted(parts)})
    keep_freed_memory()
    results = analyse(args.what, asked, progress=True)
    if not args.json:
        print("\n".join(verdicts(results)))
        print(f"\nreport: {Path(asked.output) / 'report.html'}   numbers: {Path(asked.output) / 'results.json'}")
    return results


def _models(args: argparse.Namespace) -> dict[str, list[Source]]:
    """The folders, which ``NAME=DIR`` hides from the general rule."""
    return {"--models": [source(text.partition("=")[2]) for text in args.models if text.partition("=")[2]]}


def _settle(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Of the models only the names: their folders are inputs, and may move."""
    settings["--models"] = [text.partition("=")[0] for text in args.models]
