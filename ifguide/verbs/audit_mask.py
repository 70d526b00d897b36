"""``ifguide audit-mask``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.system.progress import counted
from ifguide.verbs.tokenizer_files import IF_UNKNOWN, NamedTokenizer
from ifguide.verbs.writes import Writes, folder

SUMMARY = (
    "Which mask hits abuse? Draw spans by the masks that touch them, for people to label without seeing a mask; from "
    "the labels, precision, recall and the share of abuse of each mask, with intervals."
)
EXAMPLE = (
    "ifguide audit-mask --data data/corpus_text_document --mask data/mask_a --mask data/mask_b --sample 300 \\\n"
    "      --output runs/audit\n"
    "  ifguide audit-mask --audit runs/audit --labels labels.jsonl"
)


@dataclass(frozen=True, kw_only=True)
class AuditMask:
    """The options of this verb."""

    data: str | None = option(None, metavar="P", kind="input", help="token dataset, without .bin/.idx")
    mask: Sequence[str] = option(
        (), action="append", metavar="M", kind="input", help="mask of it; once for each mask to be compared"
    )
    span: str = option(
        "line", metavar="WHAT", help="line (default), sentence, or window:W (the document in pieces of W tokens)"
    )
    sample: int = option(
        300, metavar="N", help="draws (default: 300), half of them shared equally by the strata, half by their tokens"
    )
    context: int = option(80, metavar="N", help="tokens shown before and after a span (default: 80)")
    seed: int = option(0, metavar="N", help="of the draws, or with --labels of the intervals (default: 0)")
    output: Path | None = option(
        None, metavar="DIR", kind="output", help="folder for audit.json, spans.jsonl and labelling.html"
    )
    audit: Path | None = option(None, metavar="DIR", kind="input", help="with --labels: the folder of the audit")
    labels: str | None = option(
        None, metavar="FILE", kind="input", help='JSONL of {"id", "label"}: abuse, not or unsure, as the page exports'
    )
    identity_terms: str | None = option(
        None, metavar="FILE", kind="input",
        help="with --labels: words for groups of people, one a line (default: the list of the package)",
    )  # fmt: skip
    tokenizer: NamedTokenizer = part(NamedTokenizer, texts=IF_UNKNOWN)


OPTIONS = AuditMask
WRITES = Writes(
    lambda args: args.output and folder(args.output, "audit.json", ["spans.jsonl", "labelling.html"]),
    named(AuditMask),
    result=lambda args, record: _drawn(args.output, record),
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import InputError

    asked = options_of(args, AuditMask)
    drawing = {"--data": asked.data, "--mask": asked.mask, "--output": asked.output}
    judging = {"--audit": asked.audit, "--labels": asked.labels}
    wanted, other = (judging, drawing) if asked.labels or asked.audit else (drawing, judging)
    absent = [name for name, value in wanted.items() if not value]
    surplus = [name for name, value in other.items() if value]
    if absent or surplus:
        fault = f"{', '.join(absent)} missing" if absent else f"{', '.join(surplus)} does not belong here"
        raise InputError(
            f"{fault}: draw spans with --data P --mask A --mask B --output DIR, or read labels with --audit DIR "
            "--labels FILE"
        )
    return _judge(asked, args.json) if asked.labels else _draw(asked, args.json)


def _draw(asked: AuditMask, quiet: bool) -> dict[str, Any]:
    from ifguide.inspection.audit.drawing import draw_audit, stratum_names

    assert asked.data is not None and asked.output is not None
    reader = asked.tokenizer.reader_of(asked.data)
    record = draw_audit(
        asked.data, list(asked.mask), reader, asked.output,
        span=asked.span, sample=asked.sample, context=asked.context, seed=asked.seed, quiet=False,
    )  # fmt: skip
    result = _drawn(asked.output, record)
    if not quiet:
        print(f"{asked.output}: {counted(result['spans'], 'span')} to label, from {sum(result['draws'])} draws")
        for name, stratum in zip(stratum_names(record), record["strata"]):
            how = "all of them" if stratum["complete"] else counted(stratum["draws"], "draw")
            print(
                f"  touched by {name}: {counted(stratum['spans'], 'span')}, {counted(stratum['tokens'], 'token')}; "
                f"{how}"
            )
        print(f"content warning: the page shows training text as it is, abuse included; open {result['page']}")
        print(f"then: ifguide audit-mask --audit {asked.output} --labels FILE")
    return result


def _drawn(output: Path, record: dict[str, Any]) -> dict[str, Any]:
    from ifguide.inspection.audit.drawing import PAGE

    return {
        "output": str(output),
        "page": str(output / PAGE),
        "spans": len(record["spans"]),
        "draws": [stratum["draws"] for stratum in record["strata"]],
        "strata": record["strata"],
    }


def _judge(asked: AuditMask, quiet: bool) -> dict[str, Any]:
    from ifguide.data.text.terms import Terms
    from ifguide.inspection.audit.drawing import SPANS, read_audit
    from ifguide.inspection.audit.estimate import audit
    from ifguide.inspection.audit.labels import read_labels
    from ifguide.inspection.audit.verdict import lines
    from ifguide.system.files import read_jsonl

    assert asked.audit is not None and asked.labels is not None
    record = read_audit(asked.audit)
    labels = read_labels(asked.labels, record)
    terms = Terms.read(asked.identity_terms)
    named_terms = {row["id"]: terms.are_in(row["text"]) for row in read_jsonl(asked.audit / SPANS)}
    result = audit(record, labels, named_terms, asked.seed)
    if not quiet:
        print("\n".join(lines(result)))
    return result
