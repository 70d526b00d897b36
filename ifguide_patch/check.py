"""``python -m ifguide_patch.check PATH``: can the patch be trusted with this GPT-NeoX checkout?

Reads the checkout's source and the environment; imports and runs nothing of NeoX.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ifguide.errors import InputError
from ifguide.system.quiet import end_with_reader
from ifguide_patch import checkout, registry

_EXAMPLE = "example:\n  python -m ifguide_patch.check ~/gpt-neox"


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the patch fits, 1 if not, 2 if there is no checkout, 141 if nobody reads the output."""
    return end_with_reader(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ifguide_patch.check",
        description="Compare a GPT-NeoX checkout with what the patch expects of it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", nargs="?", help=f"the checkout (default: ${checkout.ENVIRONMENT})")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)
    try:
        root = checkout.resolve(arguments.path)
    except InputError as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    report = _report(root)
    print(json.dumps(report, indent=2) if arguments.json else _table(report))
    return 1 if report["faults"] else 0


def _report(root: Path) -> dict:
    groups = {
        "patched": registry.TARGETS,
        "patched on CPU": registry.CPU_TARGETS,
        "relied on": registry.RELIED_ON,
        "by score.py": registry.RELIED_ON_BY_SCORING,
    }
    return {
        "checkout": str(root),
        "versions": checkout.versions(root),
        "places": [
            {"place": place.label, "use": use, "state": place.state(root), "why": place.why}
            for use, places in groups.items()
            for place in places
        ],
        "faults": registry.faults(root),
    }


def _table(report: dict) -> str:
    rows = [[row["use"], row["state"], row["place"].removeprefix("megatron."), row["why"]] for row in report["places"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [report["checkout"], "  ".join(f"{name} {version}" for name, version in report["versions"].items()), ""]
    lines += ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
    changed = sum(row["state"] == registry.CHANGED for row in report["places"])
    lines.append("")
    if report["faults"]:
        lines += ["The patch cannot be trusted here:", *(f"  {fault}" for fault in report["faults"])]
    elif changed:
        lines.append(
            f"The patch fits; {changed} place(s) differ from what was tested, in ways that it does not depend on."
        )
    else:
        lines.append("The patch fits: every place is as tested.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
