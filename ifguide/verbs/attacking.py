"""What the verbs of the attacks have in common: what they read and write, and how they end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from ifguide.attacks.folder import DETAILS, JOURNAL, PAGE, RECORD, RESULTS
from ifguide.attacks.subjects import subjects_of
from ifguide.config.options import named
from ifguide.system.outputs import Output, Source
from ifguide.verbs.writes import Writes, folder, source


def attack_writes(options: type) -> Writes:
    """Of the options dataclass of an attack."""
    return Writes(_output, named(options), sources=_models, settle=_settle)


def tell(args: argparse.Namespace, results: Mapping[str, Any], lines: Callable[[Any], list[str]]) -> dict[str, Any]:
    """Print ``lines`` of the results unless JSON is asked for, and return the verb's result."""
    if not args.json:
        warnings = dict.fromkeys(scorer["warning"] for scorer in results["scorers"] if scorer.get("warning"))
        print("\n".join([*(f"warning: {one}" for one in warnings), *lines(results)]))
        print(f"\nreport: {args.output}/{PAGE}   numbers: {args.output}/{RESULTS}")
    return {"output": args.output, **results}


def _output(args: argparse.Namespace) -> Output:
    return folder(args.output, RESULTS, [RECORD, PAGE, DETAILS], [JOURNAL])


def _models(args: argparse.Namespace) -> dict[str, list[Source]]:
    """Each model's folder under its name."""
    return {f"--models {subject.name}": [source(subject.folder)] for subject in subjects_of(args.models)}


def _settle(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Names alone: the folders are sources. Their order says which one is the base."""
    settings["--models"] = [subject.name for subject in subjects_of(args.models)]
