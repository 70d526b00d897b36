"""``ifguide mask-stats``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.data.text.terms import BUILT_IN
from ifguide.verbs.tokenizer_files import NamedTokenizer
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Say what masks select, by document, position, token and phrase, and how far masks of the same data agree."
EXAMPLE = "ifguide mask-stats --mask data/corpus_mask data/corpus_random_mask --output runs/mask_stats"

PAGE = "mask_stats.html"


@dataclass(frozen=True, kw_only=True)
class MaskStats:
    """The options of this verb."""

    mask: Sequence[str] = option((), metavar="M", kind="input", help="masks, without .bin/.idx")
    data: str | None = option(
        None, metavar="P", kind="input", help="their tokens, if they moved since the masks were made"
    )
    scores: str | None = option(
        None, metavar="S", kind="input", help="scores of those tokens: adds the mean of the selected ones"
    )
    tokenizer: NamedTokenizer = part(NamedTokenizer)
    top: int = option(20, metavar="K", help="tokens and phrases to name (default: 20)")
    estimate: bool = option(
        False,
        help="estimate the share of abuse from --scores (score-text's, with the classifier of train-classifier), and "
        "what budgets would leave and touch",
    )
    clean_data: str | None = option(
        None, metavar="S", kind="input",
        help="of --estimate: scores of the same classifier for text known to be clean",
    )  # fmt: skip
    permuted: Sequence[str] = option(
        (), metavar="S", kind="input",
        help="of --estimate, where --scores are influence's: scores along at least 20 directions from the same queries "
        "with permuted labels",
    )  # fmt: skip
    identity_terms: str | None = option(
        None, nargs="?", const=str(BUILT_IN), metavar="FILE", kind="input",
        help="also the share of spans touched and tokens selected where the text has words for groups of people, and "
        "where not (one a line; without FILE the list of the package)",
    )  # fmt: skip
    category_key: str | None = option(
        None, metavar="KEY",
        help="of --identity-terms: the same for each value of this field of the text that the data was made from",
    )  # fmt: skip
    span: str = option("line", metavar="WHAT", help="of --identity-terms: line (default), sentence or window:W")
    seed: int = option(0, metavar="N", help="of --estimate (default: 0)")
    output: Path | None = option(
        None, metavar="DIR", kind="output", help="folder for mask_stats.json and mask_stats.html"
    )  # fmt: skip


OPTIONS = MaskStats
WRITES = Writes(lambda args: args.output and folder(args.output, "mask_stats.json", [PAGE]), named(MaskStats))


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import InputError
    from ifguide.inspection.identity import lines as identity_lines
    from ifguide.inspection.mask_stats import as_dict, lines, mask_statistics
    from ifguide.pages.masks.page import mask_stats_page
    from ifguide.system.files import write_json, write_text
    from ifguide.system.provenance import origin

    asked = options_of(args, MaskStats)
    if not asked.mask and not asked.estimate:
        raise InputError("nothing to say: give --mask, or --estimate with --scores")
    if asked.category_key and not asked.identity_terms:
        raise InputError("--category-key divides what --identity-terms counts; give --identity-terms too")
    if asked.identity_terms and not asked.mask:
        raise InputError("--identity-terms needs a mask; give --mask")
    result: dict[str, Any] = {"masks": [], "overlaps": []}
    if asked.mask:
        report = mask_statistics(asked.mask, asked.data, asked.scores, asked.top)
        result = as_dict(report, asked.top, _token_bytes(asked))
    if asked.identity_terms:
        result["identity"] = _identity(asked)
    if asked.estimate:
        result["estimate"] = _estimate(asked, quiet=args.json)
    if asked.output:
        asked.output.mkdir(parents=True, exist_ok=True)
        write_json(asked.output / "mask_stats.json", {**result, **origin()})
        if asked.mask:
            notes = identity_lines(result["identity"]) if asked.identity_terms else []
            write_text(asked.output / PAGE, mask_stats_page(result, notes))
    if not args.json:
        print("\n".join(lines(result)))
        if asked.identity_terms:
            print("\n".join(identity_lines(result["identity"])))
    return result


def _identity(asked: MaskStats) -> dict[str, Any]:
    from ifguide.data.sidecar import read_sidecar
    from ifguide.data.text.terms import Terms
    from ifguide.errors import InputError
    from ifguide.inspection.identity import identity_statistics

    assert asked.identity_terms is not None
    terms = Terms.read(asked.identity_terms)
    data = asked.data or read_sidecar(asked.mask[0]).get("data_prefix")
    if data is None:
        raise InputError(f"{asked.mask[0]} does not say which data it is of; give --data")
    reader = asked.tokenizer.reader_of(data)
    return identity_statistics(
        asked.mask, data, terms, reader, span=asked.span, category_key=asked.category_key, quiet=False
    )


def _estimate(asked: MaskStats, quiet: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from ifguide.errors import InputError
    from ifguide.masks.spans.share import estimate_share, lines

    if asked.scores is None:
        raise InputError("--estimate needs the classifier's scores; give --scores")
    if asked.permuted:
        from ifguide.masks.spans import share_by_influence

        excess = share_by_influence.excess_share(asked.scores, asked.permuted, data=asked.data, seed=asked.seed)
        if not quiet:
            print("\n".join(share_by_influence.lines(excess)))
        return asdict(excess)
    data = None if asked.data is None else [asked.data]
    found = estimate_share([asked.scores], clean=asked.clean_data, data_prefixes=data, seed=asked.seed, quiet=False)
    if not quiet:
        print("\n".join(lines(found)))
    return asdict(found)


def _token_bytes(asked: MaskStats) -> Callable[[int], bytes] | None:
    """What each token adds to the text; None where no tokenizer was named and none is recorded and still there."""
    from ifguide.data.sidecar import read_sidecar
    from ifguide.errors import InputError

    data = asked.data or read_sidecar(asked.mask[0]).get("data_prefix") or asked.mask[0]
    try:
        return asked.tokenizer.reader_of(data).token_bytes
    except InputError:
        if asked.tokenizer.tokenizer_type or asked.tokenizer.vocab_file:
            raise
        return None
