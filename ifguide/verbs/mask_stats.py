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
    Named(inputs=("mask", "data", "scores", "clean_data", "permuted", "vocab_file", "merge_file"), outputs=("output",)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mask", nargs="+", default=[], metavar="M", help="masks, without .bin/.idx")
    parser.add_argument("--data", metavar="P", help="their tokens, if they moved since the masks were made")
    parser.add_argument("--scores", metavar="S", help="scores of those tokens: adds the mean of the selected ones")
    add_tokenizer_arguments(parser)
    parser.add_argument("--top", type=int, default=20, metavar="K", help="tokens and phrases to name (default: 20)")
    parser.add_argument(
        "--estimate", action="store_true", help="estimate the share of abuse from --scores (score-text's, with the "
        "classifier of train-classifier), and what budgets would leave and touch",
    )  # fmt: skip
    parser.add_argument(
        "--clean-data", metavar="S", help="of --estimate: scores of the same classifier for text known to be clean"
    )
    parser.add_argument(
        "--permuted", nargs="+", default=[], metavar="S", help="of --estimate, where --scores are influence's: scores "
        "along at least 20 directions from the same queries with permuted labels",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of --estimate (default: 0)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for mask_stats.json and the plots")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import InputError
    from ifguide.inspection.mask_stats import as_dict, lines, mask_statistics
    from ifguide.system.files import write_json
    from ifguide.system.provenance import origin

    if not args.mask and not args.estimate:
        raise InputError("nothing to say: give --mask, or --estimate with --scores")
    if args.output:
        from ifguide.pages.figures import save_figures  # needs matplotlib: before the work

    result: dict[str, Any] = {"masks": [], "overlaps": []}
    if args.mask:
        report = mask_statistics(args.mask, args.data, args.scores, args.top)
        result = as_dict(report, args.top, _token_bytes(args))
    if args.estimate:
        result["estimate"] = _estimate(args)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        write_json(args.output / "mask_stats.json", {**result, **origin()})
        if args.mask:
            save_figures(args.output, result)
    if not args.json:
        print("\n".join(lines(result)))
    return result


def _estimate(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from ifguide.errors import InputError
    from ifguide.masks.spans.share import estimate_share, lines

    if args.scores is None:
        raise InputError("--estimate needs the classifier's scores; give --scores")
    if args.permuted:
        from ifguide.masks.spans import share_by_influence

        excess = share_by_influence.excess_share(args.scores, args.permuted, data=args.data, seed=args.seed)
        if not args.json:
            print("\n".join(share_by_influence.lines(excess)))
        return asdict(excess)
    data = None if args.data is None else [args.data]
    found = estimate_share([args.scores], clean=args.clean_data, data_prefixes=data, seed=args.seed, quiet=False)
    if not args.json:
        print("\n".join(lines(found)))
    return asdict(found)


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
