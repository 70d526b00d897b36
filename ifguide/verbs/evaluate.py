"""``ifguide evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Evaluate a model with lm-eval: toxicity of its continuations, LAMBADA, perplexity, any task lm-eval knows."
EXAMPLE = (
    "ifguide evaluate --model models/guided --tasks ifguide_rtp,ifguide_lambada --scorer detoxify:unbiased "
    "--data eval_data --output runs/guided"
)


WRITES = Writes(
    lambda args: folder(args.output, "results.json", ["samples.jsonl", "report.html"], ["journals"]),
    Named(inputs=("model", "data"), outputs=("output",), scorers=("scorer", "rad"), costs=("batch_size", "device")),
    settle=lambda args, settings: _settle(args, settings),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="Hugging Face folder of the model")
    parser.add_argument(
        "--tasks", required=True, metavar="T,T",
        help="names, separated by commas: ifguide_rtp, ifguide_bold, ifguide_attaq, ifguide_lambada, "
        "ifguide_heldout_ppl, ifguide (all of these), any task or group of lm-eval, or a task's YAML file",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR",
        help="folder for results.json, samples.jsonl and report.html; the same command continues there after a kill",
    )  # fmt: skip
    parser.add_argument(
        "--scorer", action="append", default=[], metavar="SPEC",
        help="toxicity scorer, once for each: detoxify:unbiased (default), toxigen-roberta, hf:FOLDER#LABEL, "
        "linear:FOLDER, lexicon; all score the same continuations",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="local data, as fetch-eval-data writes them (default: from the hub)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N documents of each task, drawn at random, for a first look"
    )
    parser.add_argument(
        "--limit-seed", type=int, default=0, metavar="S",
        help="of that draw; the same for all evaluations that are compared (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=_batch_size, default="auto", metavar="auto|N",
        help="sequences at once; changes speed and memory, not what is drawn (default: auto, what fits)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of all sampling (default: 0)")
    parser.add_argument("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1 (default: a GPU if any)")
    parser.add_argument(
        "--dtype", default="float32", metavar="T", help="of the weights: float32 (default), bfloat16 or float16"
    )
    parser.add_argument(
        "--rescore-prompts", action="store_true",
        help="call a prompt of ifguide_rtp toxic by the scorer's own score, as the paper does, not by the data set's",
    )  # fmt: skip
    parser.add_argument(
        "--eod-token", metavar="TOKEN", help="starts a document and ends a text (default: the model's eos_token)"
    )
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher says it twice
    rad = parser.add_argument_group("reward-augmented decoding (RAD)")
    rad.add_argument("--rad", metavar="SPEC", help="scorer that steers every token away from toxicity")
    rad.add_argument(
        "--rad-weight", type=float, default=10.0, metavar="W", help="nats that its reward is worth (default: 10)"
    )
    rad.add_argument("--rad-top-k", type=int, default=20, metavar="K", help="candidates a step (default: 20)")


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    from ifguide.evaluation.run import EvaluationSettings, run_evaluation
    from ifguide.pages.evaluation_table import results_table

    settings = EvaluationSettings(
        model=args.model,
        tasks=tuple(dict.fromkeys(name.strip() for name in args.tasks.split(",") if name.strip())),
        output=args.output,
        scorers=tuple(args.scorer),
        data=args.data,
        limit=args.limit,
        limit_seed=args.limit_seed,
        batch_size=args.batch_size,
        seed=args.seed,
        device=args.device,
        dtype=args.dtype,
        rad=args.rad,
        rad_weight=args.rad_weight,
        rad_top_k=args.rad_top_k,
        rescore_prompts=args.rescore_prompts,
        overwrite=args.overwrite,
        eod_token=args.eod_token,
    )
    results = run_evaluation(settings, progress=True)
    if results is not None and not args.json:
        print(results_table(results))
        print(f"\nreport: {args.output / 'report.html'}   numbers: {args.output / 'results.json'}")
    return results


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _settle(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Names as a list; a task of a file is what the file holds."""
    from ifguide.system.files import hash_unchanged

    names = dict.fromkeys(name.strip() for name in args.tasks.split(",") if name.strip())
    settings["--tasks"] = [
        f"{Path(name).name} ({hash_unchanged(name)[:12]})" if Path(name).is_file() else name for name in names
    ]
