"""``ifguide convert``: NeoX checkpoint <-> Hugging Face folder."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.config.options import Named
from ifguide.errors import ConfigError
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Convert between GPT-NeoX checkpoints (any parallel split) and Hugging Face GPT-NeoX or Llama folders."
EXAMPLE = (
    "ifguide convert --from neox --to hf --input checkpoints/pythia --output pythia-hf --check\n"
    "  ifguide convert --from hf --to neox --input pythia-hf --output pythia-neox --tensor-parallel 2"
)

# options that only one direction has -> their names in the parsed arguments
_ONLY_FROM_NEOX = {"--config": "config", "--no-tokenizer": "no_tokenizer", "--eod-token": "eod_token"}
_ONLY_FROM_HF = {
    "--tensor-parallel": "tensor_parallel",
    "--pipeline-parallel": "pipeline_parallel",
    "--make-vocab-size-divisible-by": "make_vocab_size_divisible_by",
}


WRITES = Writes(
    lambda args: folder(args.output, "run.json"),
    Named(inputs=("input", "config", "text", "vocab_file", "merge_file"), outputs=("output",)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="source", required=True, choices=("neox", "hf"), help="format of --input")
    parser.add_argument("--to", dest="target", required=True, choices=("neox", "hf"), help="format of --output")
    parser.add_argument(
        "--input", required=True, metavar="DIR", help="global_stepN, a NeoX save folder, or a Hugging Face folder"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--check", action="store_true",
        help="compare logits on real text; exit 1 where they differ by more than 1e-5 of the largest",
    )  # fmt: skip
    parser.add_argument("--text", metavar="FILE", help="UTF-8 text for --check (default: a speech of 1863)")
    parser.add_argument(
        "--tokenizer-type",
        metavar="TYPE",
        help="HFTokenizer, SPMTokenizer, GPT2BPETokenizer or CharLevelTokenizer (default: the input's)",
    )
    parser.add_argument("--vocab-file", metavar="FILE", help="vocabulary of --tokenizer-type")
    parser.add_argument("--merge-file", metavar="FILE", help="merges of a GPT2BPETokenizer")
    neox = parser.add_argument_group("from neox")
    neox.add_argument(
        "--config", nargs="+", metavar="YAML", help="the run's configuration (default: stored with the checkpoint)"
    )
    neox.add_argument("--no-tokenizer", action="store_true", default=None, help="do not write the tokenizer")
    neox.add_argument(
        "--eod-token",
        metavar="TOKEN",
        help="ends a text in generation (default: as in the folder that the checkpoint was made of, else the separator "
        "of the run's documents)",
    )
    hf = parser.add_argument_group("to neox")
    hf.add_argument("--tensor-parallel", type=int, metavar="T", help="model_parallel_size (default: 1)")
    hf.add_argument(
        "--pipeline-parallel", type=int, metavar="P", help="pipe_parallel_size; 0: sequential layout (default: 0)"
    )
    hf.add_argument(
        "--make-vocab-size-divisible-by", type=int, metavar="D", help="NeoX's key (default: 128 if that fits)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Convert, compare if asked to, and say what was written."""
    from ifguide.checkpoints.check import TEXT
    from ifguide.checkpoints.convert import TokenizerFiles, to_huggingface, to_neox
    from ifguide.system.text_files import read_text

    _check_options(args)
    tokenizer = None
    if args.tokenizer_type:
        tokenizer = TokenizerFiles(args.tokenizer_type, args.vocab_file, args.merge_file)
    text = None
    if args.check:
        text = read_text(args.text, "text file") if args.text else TEXT
    if args.source == "neox":
        result = to_huggingface(
            args.input,
            args.output,
            args.config or (),
            tokenizer,
            not args.no_tokenizer,
            text,
            args.overwrite,
            args.eod_token,
        )
    else:
        result = to_neox(
            args.input,
            args.output,
            args.tensor_parallel or 1,
            args.pipeline_parallel or 0,
            args.make_vocab_size_divisible_by,
            tokenizer,
            text,
            args.overwrite,
        )
    if not args.json:
        _report(result)
    return result


def exit_code(result: dict[str, Any]) -> int:
    """1 if the comparison failed."""
    return 1 if result["check"] and not result["check"]["passed"] else 0


def _check_options(args: argparse.Namespace) -> None:
    """Raises:
    ConfigError: options that do not go together, all of them.
    """
    faults = []
    if args.source == args.target:
        faults.append(f"--from and --to are both {args.source}; one is neox, the other hf")
    foreign = _ONLY_FROM_HF if args.source == "neox" else _ONLY_FROM_NEOX
    faults += [
        f"{option} has no meaning with --from {args.source}"
        for option, name in foreign.items()
        if getattr(args, name) is not None
    ]
    if (args.vocab_file or args.merge_file) and not args.tokenizer_type:
        faults.append("--vocab-file and --merge-file need --tokenizer-type")
    if args.text and not args.check:
        faults.append("--text needs --check")
    for option, smallest in (("tensor_parallel", 1), ("pipeline_parallel", 0), ("make_vocab_size_divisible_by", 1)):
        value = getattr(args, option)
        if value is not None and value < smallest:
            faults.append(f"--{option.replace('_', '-')} {value}: must be at least {smallest}")
    if faults:
        raise ConfigError(faults)


def _report(result: dict[str, Any]) -> None:
    comparison = result["check"]
    if comparison:
        verdict = "same function" if comparison["passed"] else "NOT the same function"
        print(
            f"{verdict}: logits differ by at most {comparison['max_difference']:.1e} "
            f"over {comparison['tokens']} tokens of text ({comparison['precision']}), "
            f"{comparison['relative_difference']:.1e} of the largest logit ({comparison['max_logit']:.1f}); "
            f"allowed are {comparison['tolerance']:.0e} of it"
        )
        if not comparison["passed"]:
            print("nothing was kept; without --check the folder is written all the same")
            return
    split = f"{result['layout']}, tensor parallel {result['tensor_parallel']}"
    tokenizer = "no tokenizer" if result["tokenizer"] is None else f"tokenizer of {result['tokenizer']} tokens"
    print(f"wrote {result['output']}: {result['architecture']} ({split}), {result['vocabulary']} rows, {tokenizer}")
    if result.get("eos_token_id") is not None:
        print(f"generation from it stops at token {result['eos_token_id']}")
    if result.get("padding"):
        print(f"{result['padding']} rows were added to the vocabulary, as NeoX pads it")
    if result.get("yaml"):
        print(f"train with: python deepy.py train.py {result['yaml']} DATA.yml")
