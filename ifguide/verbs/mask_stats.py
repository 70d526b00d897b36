"""``ifguide mask-stats``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.inspect import add_tokenizer_arguments
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Say what masks select, by document, position, token and phrase, and how far masks of the same data agree."
EXAMPLE = "ifguide mask-stats --mask data/corpus_mask data/corpus_random_mask --output runs/mask_stats"


WRITES = Writes(
    lambda args: args.output and folder(args.output, "mask_stats.json"),
    Named(inputs=("mask", "data", "scores", "vocab_file", "merge_file"), outputs=("output",)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mask", nargs="+", required=True, metavar="M", help="masks, without .bin/.idx")
    parser.add_argument("--data", metavar="P", help="their tokens, if they moved since the masks were made")
    parser.add_argument("--scores", metavar="S", help="scores of those tokens: adds the mean of the selected ones")
    add_tokenizer_arguments(parser)
    parser.add_argument("--top", type=int, default=20, metavar="K", help="tokens and phrases to name (default: 20)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for mask_stats.json and the plots")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.inspection.mask_stats import as_dict, lines, mask_statistics
    from ifguide.system.files import write_json
    from ifguide.system.provenance import origin

    if args.output:
        from ifguide.pages.figures import save_figures  # needs matplotlib: before the work

    report = mask_statistics(args.mask, args.data, args.scores, args.top)
    result = as_dict(report, args.top, _token_bytes(args))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        write_json(args.output / "mask_stats.json", {**result, **origin()})
        save_figures(args.output, result)
    if not args.json:
        print("\n".join(lines(result)))
    return result


def _token_bytes(args: argparse.Namespace) -> Callable[[int], bytes] | None:
    """What each token adds to the text; None where no tokenizer was named and none is recorded and still there."""
    from ifguide.data.sidecar import read_sidecar
    from ifguide.data.text.recorded_tokenizer import find_tokenizer
    from ifguide.errors import InputError

    data = args.data or read_sidecar(args.mask[0]).get("data_prefix") or args.mask[0]
    try:
        return find_tokenizer(data, args.tokenizer_type, args.vocab_file, args.merge_file).token_bytes
    except InputError:
        if args.tokenizer_type:
            raise
        return None
