"""``ifguide import-mask``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

from ifguide.config.options import named, option, options_of
from ifguide.data.aligned import ENCODINGS
from ifguide.system.outputs import Output
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Adopt a mask made elsewhere: check that it is aligned with its tokens and write its sidecar."
EXAMPLE = "ifguide import-mask --data data/corpus_text_document --mask data/their_mask --encoding binary"


@dataclass(frozen=True, kw_only=True)
class ImportMask:
    """The options of this verb."""

    data: str = option(metavar="P", kind="input", help="token dataset, without .bin/.idx")
    mask: str = option(
        metavar="M", kind="input", help="uint8 indexed dataset with one code for each token; gets M.json"
    )
    encoding: str | None = option(
        None, choices=ENCODINGS,
        help="binary: 0 and 1; graded: strength = code / 255 (default: binary, if no code is above 1)",
    )  # fmt: skip


OPTIONS = ImportMask
WRITES = Writes(lambda args: _output(args), named(ImportMask), keeps_result=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.masks import import_mask

    asked = options_of(args, ImportMask)
    result = import_mask(asked.data, asked.mask, asked.encoding, quiet=False, overwrite=args.overwrite)
    if not args.json:
        print(
            f"{result['output']}.json: {result['encoding']} mask, {result['selected']:,} of "
            f"{counted(result['tokens'], 'token')} "
            f"selected ({result['fraction']:.2%})"
        )
    return result


def _output(args: argparse.Namespace) -> Output | None:
    """The sidecar alone: the two files of the mask are what is read. (None of a mask that is its own tokens, which the
    verb refuses.)"""
    if args.mask == args.data:
        return None
    whole = datasets([args.mask])
    return whole and replace(whole, products=whole.records)
