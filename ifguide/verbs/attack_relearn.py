"""``ifguide attack relearn``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.attacks.options import Judges, Prompts, Relearn, Subjects, only
from ifguide.config.options import options_of
from ifguide.verbs.attacking import attack_writes, tell

SUMMARY = (
    "Fine-tune models on a few toxic or clean documents and judge them on the way: how many steps until the base's "
    "toxicity is back. A killed run goes on where it stopped."
)
EXAMPLE = (
    "ifguide attack-relearn --models base=models/base guided=models/guided --toxic toxic.jsonl --clean clean.jsonl \\\n"
    "      --prompts prompts.jsonl --scorer detoxify:unbiased --output runs/relearn    (`ifguide attack relearn` is "
    "the same)"
)


@dataclass(frozen=True, kw_only=True)
class AttackRelearn(Judges, Prompts, Relearn, Subjects):
    """The options of this verb."""


OPTIONS = AttackRelearn
WRITES = attack_writes(AttackRelearn)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.attacks.lines import relearn_lines
    from ifguide.attacks.relearn import relearn
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    asked = options_of(args, AttackRelearn)
    results = relearn(
        only(asked, Subjects), only(asked, Relearn), only(asked, Prompts), only(asked, Judges), progress=True
    )
    return tell(args, results, relearn_lines)
