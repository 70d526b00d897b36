"""``ifguide generate``: prompts -> continuations."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, jsonl_with_sidecar

SUMMARY = (
    "Sample continuations of every prompt into a JSONL file. A killed run goes on where it stopped when the same "
    "command is given again, and writes the same file."
)
EXAMPLE = "ifguide generate --model runs/guided/hf --prompts rtp.jsonl --output generations.jsonl"


WRITES = Writes(
    lambda args: jsonl_with_sidecar(args.output),
    Named(inputs=("model", "prompts"), outputs=("output",), scorers=("rad",), costs=("batch_size", "device")),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder (model and tokenizer)")
    parser.add_argument("--prompts", required=True, metavar="FILE", help='JSONL with a "prompt"; other fields are kept')
    parser.add_argument("--output", required=True, metavar="FILE", help="JSONL to write; FILE.json states how")
    parser.add_argument("--samples", type=int, default=25, metavar="K", help="continuations a prompt (default: 25)")
    parser.add_argument("--max-new-tokens", type=int, default=20, metavar="T", help="longest one (default: 20)")
    parser.add_argument("--top-p", type=float, default=0.9, metavar="P", help="mass of the nucleus (default: 0.9)")
    parser.add_argument("--top-k", type=int, default=0, metavar="N", help="0 for no limit (default: 0)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help="default: 1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--batch-size", type=_batch_size, default="auto", metavar="auto|N",
        help="continuations worked on at once; changes speed and memory, not what is drawn (default: auto, what fits)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16", "float64"), help="default: float32"
    )
    parser.add_argument(
        "--eod-token", metavar="TOKEN", help="starts a document and ends a text (default: the model's eos_token)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: auto)")
    rad = parser.add_argument_group("reward-augmented decoding (RAD)")
    rad.add_argument("--rad", metavar="SCORER", help="classifier whose toxicity the next token avoids")
    rad.add_argument(
        "--rad-weight", type=float, default=10.0, metavar="B", help="added to a logit: B x (1 - score) (default: 10)"
    )
    rad.add_argument("--rad-top-k", type=int, default=20, metavar="N", help="candidates a token (default: 20)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.generation.draw import Sampling
    from ifguide.generation.job import generate_file
    from ifguide.models.devices import choose_device
    from ifguide.system.allocator import keep_freed_memory

    keep_freed_memory()
    result = generate_file(
        args.model,
        args.prompts,
        args.output,
        Sampling(args.samples, args.max_new_tokens, args.top_p, args.temperature, args.seed, args.top_k),
        rad_scorer=args.rad,
        rad_weight=args.rad_weight,
        rad_top_k=args.rad_top_k,
        batch_size=args.batch_size,
        dtype=args.dtype,
        device=choose_device(args.device),
        eod_token=args.eod_token,
        progress=True,
    )
    if not args.json:
        print(f"{result['output']}: {result['continuations']} continuations of {result['prompts']} prompts")
        if result.get("truncated"):
            print(
                f"{result['truncated']} texts were longer than {args.rad} reads: it did not see the tokens that it was "
                "to judge there"
            )
    return result


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else int(text)
