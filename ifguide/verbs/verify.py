"""``ifguide verify``: every fault of a dataset, its masks and its scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import option, options_of
from ifguide.system.progress import counted

SUMMARY = "Check a token dataset and the masks and scores that belong to it: exit 0, or 1 with one line a fault."
EXAMPLE = "ifguide verify --data data/corpus_text_document --mask data/corpus_mask --scores data/corpus_scores"


@dataclass(frozen=True, kw_only=True)
class Verify:
    """The options of this verb."""

    data: str = option(metavar="P", kind="input", help="token dataset, without .bin/.idx")
    mask: Sequence[str] = option(
        (), nargs="+", action="extend", metavar="M", kind="input", help="masks of the data"
    )  # fmt: skip
    scores: Sequence[str] = option(
        (), nargs="+", action="extend", metavar="S", kind="input", help="scores of the data"
    )  # fmt: skip
    vocab_size: int | None = option(
        None, metavar="N", help="token ids are below N (default: what the sidecar of the data says)"
    )
    tokenizer_type: str | None = option(None, metavar="TYPE", help="the tokenizer of the data, as for preprocess")
    vocab_file: str | None = option(None, metavar="FILE", kind="input", help="its vocabulary")
    merge_file: str | None = option(None, metavar="FILE", kind="input", help="its merges, of a GPT2BPETokenizer")
    deep: bool = option(False, help="hash every value, also of files whose size and time the sidecar knows")


OPTIONS = Verify


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.data.text.content import type_meant
    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.data.verify import verify
    from ifguide.errors import InputError
    from ifguide.system.progress import compact

    asked = options_of(args, Verify)
    tokenizer = None
    tokenizer_type = type_meant(asked.tokenizer_type, asked.vocab_file)
    if tokenizer_type is not None:
        if asked.vocab_size is not None:
            raise InputError("--vocab-size and a tokenizer exclude each other: the tokenizer knows its size")
        tokenizer = build_tokenizer(tokenizer_type, asked.vocab_file, asked.merge_file)
    elif asked.merge_file is not None:
        raise InputError("--merge-file needs --tokenizer-type and --vocab-file")
    findings = verify(
        asked.data,
        asked.mask,
        asked.scores,
        vocab_size=asked.vocab_size,
        tokenizer=tokenizer,
        deep=asked.deep,
        progress=True,
    )
    if not args.json:
        for prefix, facts in findings.datasets.items():
            print(
                f"{prefix}: {facts['kind']}, {counted(facts['documents'], 'document')}, {facts['tokens']} "
                f"{facts['dtype']} values"
            )
        for warning in findings.warnings:
            print(f"warning: {warning.message}")
        for fault in findings.faults:
            print(f"fault: {fault.message}")
        size = sum(facts["bytes"] for facts in findings.datasets.values())
        count = len(findings.faults)
        verdict = f"{count} fault{'s' * (count > 1)}" if count else "sound"
        print(
            f"{verdict} ({compact(size)} B in {findings.seconds:.1f} s{', every value hashed' if asked.deep else ''})"
        )
    return findings.as_dict()


def exit_code(result: dict[str, Any]) -> int:
    """0 for sound data, 1 for faults."""
    return 0 if result["sound"] else 1
