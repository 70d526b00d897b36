"""``ifguide compare``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of
from ifguide.verbs.writes import Writes, page

SUMMARY = "Put evaluated models side by side: who is better on the same prompts, and how sure that is."
EXAMPLE = "ifguide compare runs/base runs/guided --html comparison.html"


@dataclass(frozen=True, kw_only=True)
class Compare:
    """The options of this verb."""

    runs: Sequence[str] = option(
        flags=["runs"], metavar="RUN", kind="input",
        help="folders that `ifguide evaluate` wrote, or all of them `ifguide analyse`",
    )  # fmt: skip
    html: Path | None = option(
        None, metavar="FILE", kind="output", help="write the comparison as one HTML page"
    )  # fmt: skip
    resamples: int = option(10_000, metavar="R", help="of the paired bootstrap (default: 10000)")
    seed: int = option(0, help="of the bootstrap (default: 0)")


OPTIONS = Compare
WRITES = Writes(lambda args: args.html and page(args.html), named(Compare), shows=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.analysis.report import holds_findings
    from ifguide.evaluation.compare import compare_runs, load_runs, texts_side_by_side
    from ifguide.pages.evaluation_table import comparison_table
    from ifguide.system.files import write_text
    from ifguide.system.outputs import with_request

    asked = options_of(args, Compare)
    if any(map(holds_findings, asked.runs)):
        return _findings(asked, args.json)
    if asked.html:
        from ifguide.pages.comparison import comparison_page  # needs matplotlib: before the work

    runs = load_runs(asked.runs)
    result = compare_runs(runs, asked.resamples, asked.seed)
    if asked.html:
        write_text(asked.html, with_request(comparison_page(result, texts_side_by_side(runs))))
    if not args.json:
        print(comparison_table(result))
        if result["left_out"]:
            print(f"\nnot compared, not in every run: {', '.join(result['left_out'])}")
    return result


def _findings(asked: Compare, quiet: bool) -> dict[str, Any]:
    """Analyses on one page, each with its verdicts: they are not resampled again."""
    from ifguide.analysis.report import load_findings, verdicts
    from ifguide.system.files import write_text
    from ifguide.system.outputs import with_request

    found = load_findings(asked.runs)
    if asked.html:
        from ifguide.pages.analysis.report import findings_page

        write_text(asked.html, with_request(findings_page(found)))
    if not quiet:
        for results in found:
            print(f"{results['folder']}:", *verdicts(results), sep="\n  ")
    return {"runs": [{"folder": one["folder"], "what": one.get("what"), "verdicts": verdicts(one)} for one in found]}
