"""``ifguide convert``: NeoX checkpoint <-> Hugging Face folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import given, named, option, options_of, part
from ifguide.errors import ConfigError
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Convert between GPT-NeoX checkpoints (any parallel split) and Hugging Face GPT-NeoX or Llama folders."
EXAMPLE = (
    "ifguide convert --from neox --to hf --input checkpoints/pythia --output pythia-hf --check\n"
    "  ifguide convert --from hf --to neox --input pythia-hf --output pythia-neox --tensor-parallel 2"
)


@dataclass(frozen=True)
class FromNeox:
    """What only ``--from neox`` has."""

    config: Sequence[str] | None = option(
        None, metavar="YAML", kind="input", help="the run's configuration (default: stored with the checkpoint)"
    )
    no_tokenizer: bool | None = option(None, help="do not write the tokenizer")
    eod_token: str | None = option(
        None, metavar="TOKEN",
        help="ends a text in generation (default: as in the folder that the checkpoint was made of, else the separator "
        "of the run's documents)",
    )  # fmt: skip
    adam_factors: bool | None = option(
        None, help="also write the second moments of the run's Adam as diagonal factors, into OUTPUT/adam_factors"
    )  # fmt: skip


@dataclass(frozen=True)
class ToNeox:
    """What only ``--to neox`` has."""

    tensor_parallel: int | None = option(None, metavar="T", help="model_parallel_size (default: 1)")
    pipeline_parallel: int | None = option(
        None, metavar="P", help="pipe_parallel_size; 0: sequential layout (default: 0)"
    )
    make_vocab_size_divisible_by: int | None = option(
        None, metavar="D", help="NeoX's key (default: 128 if that fits)"
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Convert:
    """The options of this verb."""

    source: str = option(flags=["--from"], choices=("neox", "hf"), help="format of --input")
    target: str = option(flags=["--to"], choices=("neox", "hf"), help="format of --output")
    input: str = option(
        metavar="DIR", kind="input", help="global_stepN, a NeoX save folder, or a Hugging Face folder"
    )  # fmt: skip
    output: str = option(metavar="DIR", kind="output", help="folder to make")
    check: bool = option(
        False, help="compare logits on real text; exit 1 where they differ by more than 1e-5 of the largest"
    )
    text: str | None = option(
        None, metavar="FILE", kind="input", help="UTF-8 text for --check (default: a speech of 1863)"
    )
    tokenizer_type: str | None = option(
        None, metavar="TYPE",
        help="HFTokenizer, SPMTokenizer, GPT2BPETokenizer or CharLevelTokenizer (default: the input's)",
    )  # fmt: skip
    vocab_file: str | None = option(None, metavar="FILE", kind="input", help="vocabulary of --tokenizer-type")
    merge_file: str | None = option(None, metavar="FILE", kind="input", help="merges of a GPT2BPETokenizer")
    from_neox: FromNeox = part(FromNeox, group="from neox")
    to_neox: ToNeox = part(ToNeox, group="to neox")


OPTIONS = Convert
WRITES = Writes(lambda args: folder(args.output, "run.json"), named(Convert))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Convert, compare if asked to, and say what was written."""
    from ifguide.checkpoints.check import TEXT
    from ifguide.checkpoints.convert import TokenizerFiles, to_huggingface, to_neox
    from ifguide.data.text.content import type_meant
    from ifguide.system.text_files import read_text

    asked = options_of(args, Convert)
    _check_options(args, asked)
    tokenizer = None
    tokenizer_type = type_meant(asked.tokenizer_type, asked.vocab_file)
    if tokenizer_type:
        tokenizer = TokenizerFiles(tokenizer_type, asked.vocab_file, asked.merge_file)
    text = None
    if asked.check:
        text = read_text(asked.text, "text file") if asked.text else TEXT
    if asked.source == "neox":
        result = to_huggingface(
            asked.input,
            asked.output,
            asked.from_neox.config or (),
            tokenizer,
            not asked.from_neox.no_tokenizer,
            text,
            args.overwrite,
            asked.from_neox.eod_token,
            _adam_writer() if asked.from_neox.adam_factors else None,
        )
    else:
        result = to_neox(
            asked.input,
            asked.output,
            asked.to_neox.tensor_parallel or 1,
            asked.to_neox.pipeline_parallel or 0,
            asked.to_neox.make_vocab_size_divisible_by,
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


def _adam_writer() -> Any:
    from ifguide.influence.curvature.adam import write_adam_factors  # no other conversion needs what scoring needs

    return write_adam_factors


def _check_options(args: argparse.Namespace, asked: Convert) -> None:
    """Raises:
    ConfigError: options that do not go together, all of them.
    """
    faults = []
    if asked.source == asked.target:
        faults.append(f"--from and --to are both {asked.source}; one is neox, the other hf")
    foreign = given(args, Convert, "to_neox" if asked.source == "neox" else "from_neox")
    faults += [f"{flag} has no meaning with --from {asked.source}" for flag in foreign]
    if asked.merge_file and not (asked.tokenizer_type and asked.vocab_file):
        faults.append("--merge-file needs --tokenizer-type and --vocab-file")
    if asked.text and not asked.check:
        faults.append("--text needs --check")
    for name, smallest in (("tensor_parallel", 1), ("pipeline_parallel", 0), ("make_vocab_size_divisible_by", 1)):
        value = getattr(asked.to_neox, name)
        if value is not None and value < smallest:
            faults.append(f"--{name.replace('_', '-')} {value}: must be at least {smallest}")
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
    tokenizer = (
        "no tokenizer" if result["tokenizer"] is None else f"tokenizer of {counted(result['tokenizer'], 'token')}"
    )
    print(f"wrote {result['output']}: {result['architecture']} ({split}), {result['vocabulary']} rows, {tokenizer}")
    if result.get("eos_token_id") is not None:
        print(f"generation from it stops at token {result['eos_token_id']}")
    if result.get("adam_factors"):
        print(
            f"wrote {result['adam_factors']}: diagonal factors, Adam's second moments after step {result['adam_step']}"
        )
    if result.get("padding"):
        print(f"{result['padding']} rows were added to the vocabulary, as NeoX pads it")
    if result.get("yaml"):
        print(f"train with: python deepy.py train.py {result['yaml']} DATA.yml")
