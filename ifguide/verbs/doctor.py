"""``ifguide doctor``: whether this environment can do the work, and what to do where it cannot."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import option, options_of

SUMMARY = "Say what is installed here, what was tested, and which verbs will work: exit 0, or 1 with one line a fault."
EXAMPLE = "ifguide doctor --verb build-mask verify --neox ~/gpt-neox"


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """The options of this verb."""

    verb: Sequence[str] | None = option(
        None, nargs="+", action="extend", metavar="VERB",
        help="judge only what these verbs need ('training' is deepy.py); default: everything",
    )  # fmt: skip
    neox: str | None = option(
        None, metavar="PATH", kind="input", help="also check this GPT-NeoX checkout (default: $GPT_NEOX_PATH)"
    )
    output: Path | None = option(
        None, metavar="DIR", help="where results will be written, for the disk (default: this folder)"
    )


OPTIONS = Doctor


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import InputError
    from ifguide.requirements.doctor import examine
    from ifguide.requirements.needs import NEEDS
    from ifguide.requirements.show import text

    asked = options_of(args, Doctor)
    if unknown := [verb for verb in asked.verb or () if verb not in NEEDS]:
        raise InputError(f"--verb {unknown[0]}: there is no such verb; verbs: {', '.join(NEEDS)}")
    report = examine(asked.verb, asked.neox or os.environ.get("GPT_NEOX_PATH"), asked.output)
    if not args.json:
        print(text(report))
    return report


def exit_code(result: dict[str, Any]) -> int:
    """0 if nothing is wrong, 1 for faults."""
    return 1 if result["faults"] else 0
