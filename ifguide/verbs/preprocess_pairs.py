"""``ifguide preprocess-pairs``: pairs (JSONL) -> the datasets that GPT-NeoX's own DPO reads."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, same_as
from ifguide.system.progress import counted
from ifguide.verbs.preprocess import Preprocess
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Tokenize pairs into the datasets of GPT-NeoX's train_impl: dpo, with a label for every token that counts."
EXAMPLE = (
    "ifguide preprocess-pairs --input data/pairs.jsonl --tokenizer-type HFTokenizer \\\n"
    "      --vocab-file 20B_tokenizer.json --seq-length 2048 --output-prefix data/pairs"
)


@dataclass(frozen=True, kw_only=True)
class PreprocessPairs:
    """The options of this verb; those of `preprocess` mean the same here."""

    input: str = option(metavar="FILE", kind="input", help="JSONL with prompt, chosen and rejected")
    output_prefix: str = option(
        metavar="P", kind="output", help="writes P_chosen_document, P_rejected_document and their P_*_label_document"
    )
    seq_length: int = option(metavar="L", help="of the training: a longer pair is refused")
    tokenizer_type: str = same_as(Preprocess, "tokenizer_type")
    vocab_file: str | None = same_as(Preprocess, "vocab_file")
    merge_file: str | None = option(None, metavar="FILE", kind="input", help="merges of a GPT2BPETokenizer")
    bos: str = option("keep", choices=("keep", "strip"), help="the template's tokens around texts (default: keep)")
    eod_token: str | None = option(
        None, metavar="T", help="the token before each text (default: <|endoftext|>, where there is one)"
    )


OPTIONS = PreprocessPairs
WRITES = Writes(lambda args: datasets(_prefixes(args)), named(PreprocessPairs), keeps_result=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the datasets, then say which keys name them."""
    from ifguide.config.yaml_files import key_lines
    from ifguide.data.text.reader import TextReader
    from ifguide.data.text.record import tokenizer_file_record
    from ifguide.engine.pairs.neox import write_neox_pairs

    asked = options_of(args, PreprocessPairs)
    files = (asked.tokenizer_type, asked.vocab_file, asked.merge_file)
    reader = TextReader.from_files(*files, asked.bos, asked.eod_token)
    records = [tokenizer_file_record(path) for path in files[1:] if path is not None]
    result = write_neox_pairs(asked.input, asked.output_prefix, reader, asked.seq_length, records)
    if not args.json:
        print(
            f"wrote {counted(result['pairs'], 'pair')}, {counted(result['tokens'], 'token')}; a GPT-NeoX "
            f"configuration names them so:"
        )
        print("\n".join(f"  {line}" for line in key_lines(result["keys"])))
    return result


def _prefixes(args: argparse.Namespace) -> list[str]:
    from ifguide.engine.pairs.neox import neox_prefixes

    return list(neox_prefixes(args.output_prefix).values())
