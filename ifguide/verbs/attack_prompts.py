"""``ifguide attack prompts``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.attacks.options import Adversarial, Judges, Subjects, only
from ifguide.config.options import options_of
from ifguide.verbs.attacking import attack_writes, tell

SUMMARY = (
    "Try a file of adversarial prompts, each in several frames if asked: how often what is said is toxic, refuses "
    "harmlessly, or is empty. A killed run goes on where it stopped."
)
EXAMPLE = (
    "ifguide attack-prompts --models base=models/base guided=models/guided --prompts eval-data/attaq.jsonl \\\n"
    "      --scorer detoxify:unbiased --output runs/attaq    (`ifguide attack prompts` is the same)"
)


@dataclass(frozen=True, kw_only=True)
class AttackPrompts(Judges, Adversarial, Subjects):
    """The options of this verb."""


OPTIONS = AttackPrompts
WRITES = attack_writes(AttackPrompts)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.attacks.lines import prompts_lines
    from ifguide.attacks.prompts import attack_prompts
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    asked = options_of(args, AttackPrompts)
    results = attack_prompts(only(asked, Subjects), only(asked, Adversarial), only(asked, Judges), progress=True)
    return tell(args, results, prompts_lines)
