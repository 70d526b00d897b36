"""``ifguide build-mask``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, datasets

if TYPE_CHECKING:
    from ifguide.masks import BehaviourScores, WordList

SUMMARY = "Select the tokens to penalise from their scores (Algorithm 1) and write the aligned uint8 mask."
EXAMPLE = "ifguide build-mask --scores data/corpus_scores --output data/corpus_mask --max-fraction 0.02"


WRITES = Writes(
    lambda args: datasets([*args.output, *args.filtered_output]),
    Named(
        inputs=("scores", "category", "data", "wordlist", "vocab_file", "merge_file"),
        outputs=("output", "filtered_output"),
        words={"category": 2},
    ),
    settle=lambda args, settings: _settle(args, settings),
    keeps_result=True,
    is_replayed=True,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ifguide.data.aligned import ENCODINGS
    from ifguide.masks import METHODS

    parser.add_argument(
        "--scores", nargs="+", metavar="S", help="score datasets, one a corpus; they share one threshold and one budget"
    )
    parser.add_argument(
        "--category", nargs="+", action="append", default=[], metavar=("NAME FRACTION S", "S"),
        help="instead of --scores, once for each behaviour: its name, its share of tokens and its scores (one a "
        "corpus); the mask holds what any behaviour selects",
    )  # fmt: skip
    parser.add_argument("--output", nargs="+", default=[], metavar="M", help="masks to write, one a corpus")
    parser.add_argument("--data", nargs="+", metavar="P", help="token datasets, if they moved since they were scored")
    parser.add_argument(
        "--threshold-quantile", type=float, default=0.99, metavar="Q",
        help="tokens above this quantile of all scores are toxic (default: 0.99)",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=int, default=1, metavar="W", help="neighbours added on each side of a toxic token (default: 1)"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--max-fraction", type=float, metavar="F", help="budget as a share of tokens (default: 0.02)")
    budget.add_argument("--max-tokens", type=int, metavar="N", help="budget in tokens")
    parser.add_argument(
        "--unit-tokens", type=int, default=2048, metavar="U",
        help="longer documents are ranked in pieces of this many tokens (default: 2048)",
    )  # fmt: skip
    parser.add_argument("--encoding", choices=ENCODINGS, default="binary", help="default: binary")
    parser.add_argument("--include-eod", action="store_true", help="count and select end-of-document tokens too")
    parser.add_argument(
        "--method", choices=METHODS, default="influence",
        help="random, wordlist: controls of the same size as Algorithm 1's mask; document: whole documents by "
        "descending R",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of --method random and wordlist (default: 0)")
    parser.add_argument("--wordlist", metavar="FILE", help="words or phrases, one a line, for --method wordlist")
    parser.add_argument("--tokenizer-type", metavar="TYPE", help="for --wordlist, as given to preprocess")
    parser.add_argument("--vocab-file", metavar="FILE", help="for --wordlist, as given to preprocess")
    parser.add_argument("--merge-file", metavar="FILE", help="for --wordlist, as given to preprocess")
    parser.add_argument(
        "--filtered-output", nargs="+", default=[], metavar="P",
        help="with --method document: token datasets without the removed documents, one a corpus",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.masks import build_masks

    result = build_masks(
        _behaviours(args),
        args.output,
        method=args.method,
        encoding=args.encoding,
        seed=args.seed,
        words=_words(args),
        data_prefixes=args.data,
        filtered_outputs=args.filtered_output,
        quiet=False,
    )
    if not args.json:
        _show(result)
    return result


def _settle(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """The budget that stands for none given."""
    if args.scores and args.max_fraction is None and args.max_tokens is None:
        settings["--max-fraction"] = 0.02


def _behaviours(args: argparse.Namespace) -> list[BehaviourScores]:
    from ifguide.errors import InputError
    from ifguide.masks import BehaviourScores
    from ifguide.selection import SelectionSettings

    def settings(max_fraction: float | None, max_tokens: int | None) -> SelectionSettings:
        return SelectionSettings(
            threshold_quantile=args.threshold_quantile,
            window=args.window,
            max_fraction=max_fraction,
            max_tokens=max_tokens,
            unit_tokens=args.unit_tokens,
            include_eod=args.include_eod,
        )

    if bool(args.scores) == bool(args.category):
        raise InputError("give either --scores, or --category once for each behaviour")
    if args.scores:
        fraction = 0.02 if args.max_fraction is None and args.max_tokens is None else args.max_fraction
        return [BehaviourScores("", args.scores, settings(fraction, args.max_tokens))]
    if args.max_fraction is not None or args.max_tokens is not None:
        raise InputError("each --category has its own share of tokens; leave out --max-fraction and --max-tokens")
    behaviours = []
    for given in args.category:
        try:
            name, fraction, scores = given[0], float(given[1]), given[2:]
        except (IndexError, ValueError):
            scores = []
        if not scores or not name:
            raise InputError(
                f"--category {' '.join(given)}: expected a name, a share of tokens and score datasets, "
                "as in --category insults 0.01 data/insult_scores"
            )
        behaviours.append(BehaviourScores(name, scores, settings(fraction, None)))
    return behaviours


def _words(args: argparse.Namespace) -> WordList | None:
    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.errors import InputError
    from ifguide.masks import WordList

    if args.wordlist is None:
        return None
    if args.tokenizer_type is None:
        raise InputError("--wordlist needs --tokenizer-type and its files, as given to preprocess")
    tokenizer = build_tokenizer(args.tokenizer_type, args.vocab_file, args.merge_file)
    files = [path for path in (args.vocab_file, args.merge_file) if path is not None]
    return WordList.read(args.wordlist, tokenizer, files)


def _show(result: dict[str, Any]) -> None:
    for corpus in result["corpora"]:
        if "output" in corpus:
            share = corpus["selected"] / corpus["tokens"]
            print(f"{corpus['output']}: {corpus['selected']} of {corpus['tokens']} tokens selected ({share:.2%})")
        if "filtered" in corpus:
            print("{output}: {documents} documents, {tokens} tokens left".format(**corpus["filtered"]))
    named = {f"{name}: ": about | about["counts"] for name, about in result.get("categories", {}).items()}
    for label, about in (named or {"": result}).items():
        print(f"{label}{about['toxic']} tokens above {about['threshold']:.4g}, budget {about['budget']} tokens")
    for line in result["shortfall"]:
        print(line)
