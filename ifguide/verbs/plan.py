"""``ifguide plan``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import option, options_of, part
from ifguide.influence.options import ModelAndData
from ifguide.influence.planning.settings import Settings

SUMMARY = "What fitting factors and scoring will take: memory, disk, operations and time. Exit 2 if it cannot fit."
EXAMPLE = "ifguide plan --model runs/proxy/hf --data data/corpus_text_document --disk runs"


@dataclass(frozen=True, kw_only=True)
class Plan(ModelAndData):
    """The options of this verb."""

    settings: Settings = part(Settings)
    no_timing: bool = option(
        False, help="from the configuration alone: no weights are read, no batch is timed"
    )  # fmt: skip


OPTIONS = Plan


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import tell
    from ifguide.influence.planning.plan import plan
    from ifguide.influence.planning.table import render

    asked = options_of(args, Plan)
    result = plan(asked.model, asked.data, asked.settings, timing=not asked.no_timing)
    if not args.json:
        print(render(result))
    for fault in result["faults"]:
        tell("ifguide plan", fault)
    return result


def exit_code(result: dict[str, Any]) -> int:
    """2 where something cannot fit."""
    return 2 if result["faults"] else 0
