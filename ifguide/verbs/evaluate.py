"""``ifguide evaluate``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ifguide.config.options import named, options_of
from ifguide.evaluation.settings import EvaluationSettings
from ifguide.generation.options import RAD_WEIGHTS
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Evaluate a model with lm-eval: toxicity of its continuations, LAMBADA, perplexity, any task lm-eval knows."
EXAMPLE = (
    "ifguide evaluate --model models/guided --tasks ifguide_rtp,ifguide_lambada --scorer detoxify:unbiased "
    "--data eval_data --output runs/guided"
)


OPTIONS = EvaluationSettings
SHARES_WORK = True
WRITES = Writes(
    lambda args: folder(args.output, "results.json", ["samples.jsonl", "report.html"], ["journals"]),
    named(EvaluationSettings),
    settle=lambda args, settings: _settle(args, settings),
)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    from ifguide.evaluation.run import run_evaluation
    from ifguide.pages.evaluation_table import results_table

    settings = replace(options_of(args, EvaluationSettings), overwrite=args.overwrite)
    results = run_evaluation(settings, progress=True)
    if results is not None and not args.json:
        print(results_table(results))
        print(f"\nreport: {settings.output / 'report.html'}   numbers: {settings.output / 'results.json'}")
    return results


def _settle(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """A task of a file is what the file holds."""
    from ifguide.system.files import hash_unchanged

    settings["--rad-weight"] = RAD_WEIGHTS[args.rad_order] if args.rad_weight is None else args.rad_weight
    settings["--tasks"] = [
        f"{Path(name).name} ({hash_unchanged(name)[:12]})" if Path(name).is_file() else name for name in args.tasks
    ]
