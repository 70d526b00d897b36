"""``ifguide doctor``: whether this environment can do the work, and what to do where it cannot."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

SUMMARY = "Say what is installed here, what was tested, and which verbs will work: exit 0, or 1 with one line a fault."
EXAMPLE = "ifguide doctor --verb build-mask verify --neox ~/gpt-neox"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verb",
        nargs="+",
        action="extend",
        metavar="VERB",
        help="judge only what these verbs need ('training' is deepy.py); default: everything",
    )
    parser.add_argument("--neox", metavar="PATH", help="also check this GPT-NeoX checkout (default: $GPT_NEOX_PATH)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where results will be written, for the disk (default: this folder)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import InputError
    from ifguide.requirements.doctor import examine
    from ifguide.requirements.needs import NEEDS
    from ifguide.requirements.show import text

    if unknown := [verb for verb in args.verb or () if verb not in NEEDS]:
        raise InputError(f"--verb {unknown[0]}: there is no such verb; verbs: {', '.join(NEEDS)}")
    report = examine(args.verb, args.neox or os.environ.get("GPT_NEOX_PATH"), args.output)
    if not args.json:
        print(text(report))
    return report


def exit_code(result: dict[str, Any]) -> int:
    """0 if nothing is wrong, 1 for faults."""
    return 1 if result["faults"] else 0
