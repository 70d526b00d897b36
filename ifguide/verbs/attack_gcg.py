"""``ifguide attack gcg``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.attacks.options import Enhanced, Gcg, Judges, Subjects, only
from ifguide.config.options import options_of
from ifguide.verbs.attacking import attack_writes, tell

SUMMARY = (
    "Search a suffix that makes a model say a target, by greedy coordinate gradient; exact and toxic success, against "
    "random tokens. A killed run goes on where it stopped."
)
EXAMPLE = (
    "ifguide attack-gcg --models base=models/base guided=models/guided --targets pairs.jsonl \\\n"
    "      --scorer detoxify:unbiased --output runs/gcg    (`ifguide attack gcg` is the same)"
)


@dataclass(frozen=True, kw_only=True)
class AttackGcg(Judges, Enhanced, Gcg, Subjects):
    """The options of this verb."""


OPTIONS = AttackGcg
WRITES = attack_writes(AttackGcg)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.attacks.gcg.job import gcg
    from ifguide.attacks.lines import gcg_lines
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    asked = options_of(args, AttackGcg)
    results = gcg(only(asked, Subjects), only(asked, Gcg), only(asked, Enhanced), only(asked, Judges), progress=True)
    return tell(args, results, gcg_lines)
