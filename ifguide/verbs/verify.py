"""``ifguide verify``: every fault of a dataset, its masks and its scores."""

from __future__ import annotations

import argparse
from typing import Any

SUMMARY = "Check a token dataset and the masks and scores that belong to it: exit 0, or 1 with one line a fault."
EXAMPLE = "ifguide verify --data data/corpus_text_document --mask data/corpus_mask --scores data/corpus_scores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="P", help="token dataset, without .bin/.idx")
    parser.add_argument("--mask", nargs="+", action="extend", default=[], metavar="M", help="masks of the data")
    parser.add_argument("--scores", nargs="+", action="extend", default=[], metavar="S", help="scores of the data")
    parser.add_argument(
        "--vocab-size", type=int, metavar="N", help="token ids are below N (default: what the sidecar of the data says)"
    )
    parser.add_argument("--tokenizer-type", metavar="TYPE", help="the tokenizer of the data, as for preprocess")
    parser.add_argument("--vocab-file", metavar="FILE", help="its vocabulary")
    parser.add_argument("--merge-file", metavar="FILE", help="its merges, of a GPT2BPETokenizer")
    parser.add_argument(
        "--deep", action="store_true", help="hash every value, also of files whose size and time the sidecar knows"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.data.verify import verify
    from ifguide.errors import InputError
    from ifguide.system.progress import compact

    tokenizer = None
    if args.tokenizer_type is not None:
        if args.vocab_size is not None:
            raise InputError("--vocab-size and --tokenizer-type exclude each other: the tokenizer knows its size")
        tokenizer = build_tokenizer(args.tokenizer_type, args.vocab_file, args.merge_file)
    elif args.vocab_file is not None or args.merge_file is not None:
        raise InputError("--vocab-file and --merge-file need --tokenizer-type")
    findings = verify(
        args.data,
        args.mask,
        args.scores,
        vocab_size=args.vocab_size,
        tokenizer=tokenizer,
        deep=args.deep,
        progress=True,
    )
    if not args.json:
        for prefix, facts in findings.datasets.items():
            print(
                f"{prefix}: {facts['kind']}, {facts['documents']} documents, {facts['tokens']} {facts['dtype']} values"
            )
        for warning in findings.warnings:
            print(f"warning: {warning.message}")
        for fault in findings.faults:
            print(f"fault: {fault.message}")
        size = sum(facts["bytes"] for facts in findings.datasets.values())
        count = len(findings.faults)
        verdict = f"{count} fault{'s' * (count > 1)}" if count else "sound"
        print(f"{verdict} ({compact(size)} B in {findings.seconds:.1f} s{', every value hashed' if args.deep else ''})")
    return findings.as_dict()


def exit_code(result: dict[str, Any]) -> int:
    """0 for sound data, 1 for faults."""
    return 0 if result["sound"] else 1
