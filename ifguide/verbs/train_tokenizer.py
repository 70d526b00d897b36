"""``ifguide train-tokenizer``: text -> a byte-level BPE tokenizer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, part, same_as
from ifguide.data.tokenizer_training import CONFIG, RECORD, TOKENIZER, TokenizerOptions, tokenizer_paths
from ifguide.system.outputs import Output
from ifguide.verbs.preprocess import Preprocess
from ifguide.verbs.writes import Writes, folder

SUMMARY = (
    "Train a byte-level BPE tokenizer on text, with the special tokens of GPT-NeoX's HFTokenizer. It loses nothing: "
    "every text is encoded and decoded to the same bytes."
)
EXAMPLE = (
    "ifguide train-tokenizer --input corpus.jsonl.zst --vocab-size 32000 --output runs/tokenizer\n"
    "  ifguide preprocess --input corpus.jsonl.zst --vocab-file runs/tokenizer --output-prefix data/corpus --append-eod"
)


@dataclass(frozen=True, kw_only=True)
class TrainTokenizer:
    """The options of this verb; what inputs are, `preprocess` says."""

    input: Sequence[str] = same_as(Preprocess, "input")
    output: str = option(
        metavar="PATH", kind="output",
        help="a folder, which gets tokenizer.json, tokenizer_config.json and run.json; or FILE.json, beside which "
        "FILE.run.json is written",
    )  # fmt: skip
    how: TokenizerOptions = part(TokenizerOptions)


def _output(args: argparse.Namespace) -> Output:
    file, record = tokenizer_paths(args.output)
    if record.name == RECORD:
        return folder(args.output, RECORD, [TOKENIZER, CONFIG])
    return Output(str(file), [file, record], [record])


OPTIONS = TrainTokenizer
WRITES = Writes(_output, named(TrainTokenizer), keeps_result=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, then say what came of it and which key of GPT-NeoX names it."""
    from ifguide.config.yaml_files import key_lines
    from ifguide.data.text.content import DEFAULT_TYPE
    from ifguide.data.tokenizer_training import train_tokenizer
    from ifguide.system.progress import compact

    asked = options_of(args, TrainTokenizer)
    result = train_tokenizer(asked.input, asked.output, asked.how, progress=True)
    if not args.json:
        read = f"{result['texts']} texts, {compact(result['characters'])} characters"
        print(f"wrote {result['tokenizer']}: {result['vocab_size']} tokens, trained on {read}")
        if result["vocab_size"] < asked.how.vocab_size:
            print(f"fewer than --vocab-size {asked.how.vocab_size}: no other pair is found often enough")
        left_out = {"without text": result["not_text"], "malformed": result["bad_lines"]}
        if any(left_out.values()):
            print("left out: " + ", ".join(f"{count} {what}" for what, count in left_out.items() if count))
        keys = {"tokenizer_type": DEFAULT_TYPE, "vocab_file": result["tokenizer"]}
        print("a GPT-NeoX configuration names it so:")
        print("\n".join(f"  {line}" for line in key_lines(keys)))
    return result
