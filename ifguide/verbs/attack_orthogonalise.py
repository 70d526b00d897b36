"""``ifguide attack orthogonalise``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.attacks.options import Judges, Orthogonalise, Prompts, Subjects, only
from ifguide.config.options import options_of
from ifguide.verbs.attacking import attack_writes, tell

SUMMARY = (
    "Take directions out of models' activations or weights, against a random one, and judge them again. A killed run "
    "goes on where it stopped."
)
EXAMPLE = (
    "ifguide attack-orthogonalise --models base=models/base guided=models/guided --toxic toxic.jsonl --safe safe.jsonl "
    "\\\n      --prompts prompts.jsonl --scorer detoxify:unbiased --output runs/directions    (`ifguide attack "
    "orthogonalise` is the same)"
)


@dataclass(frozen=True, kw_only=True)
class AttackOrthogonalise(Judges, Prompts, Orthogonalise, Subjects):
    """The options of this verb."""


OPTIONS = AttackOrthogonalise
WRITES = attack_writes(AttackOrthogonalise)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.attacks.lines import orthogonalise_lines
    from ifguide.attacks.orthogonalise import orthogonalise
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    asked = options_of(args, AttackOrthogonalise)
    results = orthogonalise(
        only(asked, Subjects), only(asked, Orthogonalise), only(asked, Prompts), only(asked, Judges), progress=True
    )
    return tell(args, results, orthogonalise_lines)
