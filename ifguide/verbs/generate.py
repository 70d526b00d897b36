"""``ifguide generate``: prompts -> continuations."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.generation.options import RAD_WEIGHTS, GenerateOptions, Sampling
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, jsonl_with_sidecar

SUMMARY = (
    "Sample continuations of every prompt into a JSONL file. A killed run goes on where it stopped when the same "
    "command is given again, and writes the same file."
)
EXAMPLE = "ifguide generate --model runs/guided/hf --prompts rtp.jsonl --output generations.jsonl"


@dataclass(frozen=True, kw_only=True)
class Generate:
    """The options of this verb."""

    model: str = option(metavar="DIR", kind="input", help="Hugging Face folder (model and tokenizer)")
    prompts: str = option(metavar="FILE", kind="input", help='JSONL with a "prompt"; other fields are kept')
    output: str = option(metavar="FILE", kind="output", help="JSONL to write; FILE.json states how")
    sampling: Sampling = part(Sampling)
    how: GenerateOptions = part(GenerateOptions)


OPTIONS = Generate
WRITES = Writes(
    lambda args: jsonl_with_sidecar(args.output),
    named(Generate),
    settle=lambda args, settings: settings.update({"--rad-weight": rad_weight(args)}),
)


def rad_weight(args: argparse.Namespace) -> float:
    """The weight that stands for none given."""
    return RAD_WEIGHTS[args.rad_order] if args.rad_weight is None else args.rad_weight


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.generation.job import generate_file
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    asked = options_of(args, Generate)
    result = generate_file(asked.model, asked.prompts, asked.output, asked.sampling, asked.how, progress=True)
    if not args.json:
        print(
            f"{result['output']}: {counted(result['continuations'], 'continuation')} of "
            f"{counted(result['prompts'], 'prompt')}"
        )
        if result.get("truncated"):
            print(
                f"{counted(result['truncated'], 'text')} {'was' if result['truncated'] == 1 else 'were'} longer than "
                f"{asked.how.rad} reads: it did not see the tokens "
                "that it was to judge there"
            )
    return result
