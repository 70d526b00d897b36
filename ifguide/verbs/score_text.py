"""``ifguide score-text``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.scorers.registry import SPECS
from ifguide.system.progress import counted
from ifguide.verbs.tokenizer_files import IF_UNKNOWN, NamedTokenizer
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Score the text of the data by any classifier: one value a token, that of its line, sentence or window."
EXAMPLE = (
    "ifguide score-text --data data/corpus_text_document --scorer linear:runs/classifier --output data/suspects\n"
    "  torchrun --nproc-per-node 8 tools/score_text.py ...   (the same options; each process takes its share)"
)


@dataclass(frozen=True, kw_only=True)
class ScoreText:
    """The options of this verb."""

    data: str = option(metavar="P", kind="input", help="indexed dataset, without .bin/.idx")
    scorer: str = option(
        metavar="SPEC", kind="scorer",
        help=f"linear:FOLDER of train-classifier, or another: {SPECS}; or wordlist:FILE (share of a span's tokens that "
        "belong to listed words)",
    )  # fmt: skip
    span: str = option(
        "line", metavar="WHAT",
        help="line (default), sentence, or window:W (the document in pieces of W tokens): what the scorer reads at a "
        "time",
    )  # fmt: skip
    output: str = option(metavar="S", kind="output", help="writes S.bin, .idx and .json")
    device: str = option("auto", metavar="NAME", kind="cost", help="cpu, cuda, ... (default: auto)")
    documents: str | None = option(
        None, metavar="A:B", kind="cost", help="only these documents; calls for all of them together finish the file"
    )
    shard_tokens: int | None = option(
        None, metavar="N", help="what a kill can cost, in tokens (default: 2^18, more above 2^34 tokens)"
    )  # fmt: skip
    tokenizer: NamedTokenizer = part(NamedTokenizer, texts=IF_UNKNOWN)


OPTIONS = ScoreText
SHARES_WORK = True
WRITES = Writes(
    lambda args: datasets([args.output], [Path(f"{args.output}.parts")]),
    named(ScoreText),
    keeps_result=True,
    is_replayed=True,
)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    from ifguide.influence.shards import Share
    from ifguide.influence.text_scores import TextScoring, score_text
    from ifguide.scorers.device import device_of

    asked = options_of(args, ScoreText)
    settings = TextScoring(
        data=asked.data,
        scorer=asked.scorer,
        output=asked.output,
        span=asked.span,
        device=device_of(asked.device, asked.scorer),
        documents=asked.documents,
        shard_tokens=asked.shard_tokens,
        reader_of=asked.tokenizer.reader_of,
    )
    result = score_text(settings, quiet=False)
    if Share.from_environment().rank > 0:
        return None
    if not args.json:
        show(result)
    return result


def show(result: dict[str, Any]) -> None:
    """The result for a person."""
    if warning := result["scorer"].get("warning"):
        print(warning)
    if not result["finished"]:
        print(
            f"{result['missing_tokens']:,} of {counted(result['tokens'], 'token')} are left for other calls; run them "
            f"to finish"
        )
        return
    found = result["scores"]
    print(
        f"{result['output']}: {counted(result['tokens'], 'token')} scored by {result['scorer']['name']}, mean "
        f"{found['mean']:.4g}, highest {found['max']:.4g}"
    )
