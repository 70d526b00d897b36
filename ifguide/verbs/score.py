"""``ifguide score``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ifguide.config.options import Named
from ifguide.system.outputs import Output
from ifguide.system.progress import compact
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Score every training token: how much learning it raises the toxic-minus-safe log-likelihood."
EXAMPLE = (
    "ifguide score --model runs/proxy/hf --data data/corpus_text_document --factors runs/factors "
    "--toxic-queries toxic.jsonl --safe-queries safe.jsonl --output runs/scores\n"
    "  torchrun --nproc-per-node 8 tools/score.py ...   (the same options; each process takes its share)"
)


WRITES = Writes(
    lambda args: _output(args),
    Named(
        inputs=(
            "model",
            "data",
            "factors",
            "toxic_queries",
            "safe_queries",
            "behaviour",
            "cascade_model",
            "cascade_factors",
            "cascade_scores",
        ),
        outputs=("output",),
        words={"behaviour": 1},
        costs=("batch_size", "documents"),
    ),
    keeps_result=True,
    is_replayed=True,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder (model and tokenizer)")
    parser.add_argument("--data", required=True, metavar="PREFIX", help="indexed dataset, without .bin/.idx")
    parser.add_argument("--factors", required=True, metavar="DIR", help="made by fit-factors on this model")
    parser.add_argument(
        "--eod-token", metavar="T", help="what separates documents (default: as the data records, else the model's)"
    )
    queries = parser.add_argument_group("what to score for")
    queries.add_argument("--toxic-queries", metavar="FILE", help="JSONL of prompt, completion")
    queries.add_argument("--safe-queries", metavar="FILE", help="JSONL of prompt, completion")
    queries.add_argument(
        "--behaviour",
        nargs=3,
        action="append",
        metavar=("NAME", "TOXIC", "SAFE"),
        help="one of several behaviours that are scored in one pass, each into PREFIX.NAME; repeat it",
    )
    queries.add_argument(
        "--per-category", action="store_true", help="each category of the toxic queries alone, into PREFIX.CATEGORY"
    )
    parser.add_argument("--output", required=True, metavar="PREFIX", help="writes PREFIX.bin, .idx and .json")
    method = parser.add_argument_group("how")
    method.add_argument(
        "--attribution",
        default="loss-term",
        metavar="NAME",
        help="loss-term: each token's own loss (default); position: what flows through its position, as kronfluence",
    )
    method.add_argument(
        "--method",
        default="auto",
        metavar="NAME",
        help="of loss-term: jvp (one forward-mode pass), difference (two plain passes, its step searched first), "
        "auto (default: difference where a sample agrees with jvp)",
    )
    method.add_argument(
        "--one-sided", action="store_true", help="several behaviours share one of difference's passes; coarser"
    )
    method.add_argument("--rank", type=int, metavar="R", help="cut each layer's direction to this rank (SVD)")
    method.add_argument("--dtype", default="float32", metavar="NAME", help="of the pass: float32 (default) or bfloat16")
    method.add_argument(
        "--damping", type=float, default=0.1, metavar="D", help="times the layer's mean curvature (default: 0.1)"
    )
    method.add_argument("--absolute-damping", action="store_true", help="take --damping as the number itself")
    method.add_argument("--seq-length", type=int, metavar="L", help="window in tokens (default: the factors')")
    method.add_argument("--context", type=int, metavar="C", help="overlap of a long document's windows")
    method.add_argument(
        "--batch-size", type=int, default=16, metavar="B", help="tokens in a batch: B full windows (default: 16)"
    )
    method.add_argument(
        "--documents", metavar="A:B", help="only these documents; calls for all of them together finish the file"
    )
    method.add_argument(
        "--shard-tokens", type=int, default=1 << 18, metavar="N", help="what a kill can cost, in tokens (default: 2^18)"
    )
    cascade = parser.add_argument_group("cascade: cheap scores for everything, exact ones for what can make the mask")
    cascade.add_argument("--cascade-model", metavar="DIR", help="a small proxy with the same tokenizer")
    cascade.add_argument("--cascade-factors", metavar="DIR", help="made by fit-factors on the proxy")
    cascade.add_argument("--cascade-scores", metavar="PREFIX", help="any scores of the same tokens, not a proxy")
    cascade.add_argument(
        "--cascade-keep",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="of the tokens, exactly scored (default 0.15)",
    )
    cascade.add_argument(
        "--cascade-audit",
        type=float,
        default=0.03,
        metavar="SHARE",
        help="of the tokens, for the report (default 0.03)",
    )
    cascade.add_argument("--cascade-seed", type=int, default=0, metavar="N", help="of the audit (default: 0)")
    plan = parser.add_argument_group("the mask that a cascade is for: build-mask refuses to go beyond it")
    plan.add_argument(
        "--cascade-threshold-quantile", type=float, default=0.99, metavar="Q", help="as for build-mask (default: 0.99)"
    )
    plan.add_argument("--cascade-window", type=int, default=1, metavar="W", help="as for build-mask (default: 1)")
    budget = plan.add_mutually_exclusive_group()
    budget.add_argument("--cascade-max-fraction", type=float, metavar="F", help="as for build-mask (default: 0.02)")
    budget.add_argument("--cascade-max-tokens", type=int, metavar="N", help="as for build-mask")
    plan.add_argument(
        "--cascade-unit-tokens", type=int, default=2048, metavar="U", help="as for build-mask (default: 2048)"
    )
    plan.add_argument("--cascade-include-eod", action="store_true", help="as for build-mask")
    # DeepSpeed's launcher adds it
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    from ifguide.system.processes import share_cores
    from ifguide.system.run_process import this_process

    share_cores(this_process().local_size)

    from ifguide.influence.cascade.run import score_cascade
    from ifguide.influence.curvature.damping import Damping
    from ifguide.influence.job import Inputs, Options
    from ifguide.influence.passes.method import Method
    from ifguide.influence.score import score
    from ifguide.influence.shards import Share
    from ifguide.system.allocator import keep_freed_memory

    keep_freed_memory()
    options = Options(
        method=Method(
            attribution=args.attribution,
            method=args.method,
            one_sided=args.one_sided,
            rank=args.rank,
            dtype=args.dtype,
        ),
        damping=Damping(args.damping, relative=not args.absolute_damping),
        per_category=args.per_category,
        seq_length=args.seq_length,
        context=args.context,
        batch_size=args.batch_size,
        documents=args.documents,
        shard_tokens=args.shard_tokens,
    )
    inputs = Inputs(args.model, args.data, args.factors, _queries(args), args.output, args.eod_token)
    cascade = _cascade(args)
    result = score_cascade(inputs, options, cascade) if cascade else score(inputs, options)
    if Share.from_environment().rank > 0:
        return None
    if not args.json:
        _tell(result)
    return result


def _output(args: argparse.Namespace) -> Output | None:
    """One dataset for each behaviour, and the parts that an unfinished pass leaves."""
    from ifguide.influence.behaviours import output_prefixes

    passes = (args.output, f"{args.output}.cheap", f"{args.output}.exact")
    partials = [Path(f"{prefix}.parts") for prefix in passes]
    # the passes of a cascade have files of their own until they are combined
    partials += [Path(f"{prefix}.{suffix}") for prefix in passes[1:] for suffix in ("json", "idx", "bin")]
    return datasets(output_prefixes(args.output, _queries(args), args.per_category), partials)


def _queries(args: argparse.Namespace) -> list[Any]:
    """
    Raises:
        InputError: neither form is complete, or both are given.
    """
    from ifguide.errors import InputError
    from ifguide.influence.behaviours import QueryFiles

    pair = (args.toxic_queries, args.safe_queries)
    if args.behaviour:
        if any(pair):
            raise InputError("--behaviour takes its own queries; leave out --toxic-queries and --safe-queries")
        return [QueryFiles(toxic, safe, name) for name, toxic, safe in args.behaviour]
    if not all(pair):
        raise InputError("give --toxic-queries and --safe-queries, or --behaviour NAME TOXIC SAFE")
    return [QueryFiles(*pair)]


def _cascade(args: argparse.Namespace) -> Any:
    """The cascade that was asked for, or None.

    Raises:
        ConfigError: options of a cascade without one.
    """
    from ifguide.errors import ConfigError
    from ifguide.influence.cascade.choice import CascadeSettings
    from ifguide.influence.cascade.run import Cascade
    from ifguide.selection import SelectionSettings

    if not (args.cascade_model or args.cascade_factors or args.cascade_scores):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        given = [
            name for name, value in vars(args).items() if name[:8] == "cascade_" and value != parser.get_default(name)
        ]
        if given:
            raise ConfigError(
                f"--{name.replace('_', '-')} belongs to a cascade; give --cascade-model or --cascade-scores too"
                for name in given
            )
        return None
    fraction, tokens = args.cascade_max_fraction, args.cascade_max_tokens
    selection = SelectionSettings(
        threshold_quantile=args.cascade_threshold_quantile,
        window=args.cascade_window,
        max_fraction=0.02 if fraction is None and tokens is None else fraction,
        max_tokens=tokens,
        unit_tokens=args.cascade_unit_tokens,
        include_eod=args.cascade_include_eod,
    )
    settings = CascadeSettings(args.cascade_keep, args.cascade_audit, args.cascade_seed, selection)
    return Cascade(args.cascade_model, args.cascade_factors, args.cascade_scores, settings)


def _tell(result: dict[str, Any]) -> None:
    method = result["method"]
    how = method["attribution"] if method["attribution"] == "position" else method["method"]
    if method["step"] is not None:
        how += f", step {method['step']:.1e}"
    for output in result["outputs"]:
        if result["nothing_left"]:
            print(f"{output['output']}: all {result['tokens']} tokens were scored before; nothing was left to do")
        elif result["finished"]:
            print(f"{output['output']}: {result['tokens']} tokens scored ({how})")
    if not result["nothing_left"]:
        print(_work_done(result))
    if "cascade" in result:
        from ifguide.influence.cascade.report import describe

        print("\n".join(describe(result["cascade"])))
    if not result["finished"]:
        print(f"{result['missing_tokens']} of {result['tokens']} tokens are left for other calls; run them to finish")


def _work_done(result: dict[str, Any]) -> str:
    """What this call scored and what it kept; the rate is that of scoring, without loading and checks."""
    kept = f"{result['resumed_tokens']} tokens were kept from an earlier call" if result["resumed_tokens"] else ""
    if not result["scored_tokens"]:
        return kept or "no token was left to this call"
    loading = result["seconds"] - result["scoring_seconds"]
    done = (
        f"{result['scored_tokens']} tokens scored in {result['scoring_seconds']:.1f} s "
        f"({compact(result['tokens_per_second'])} tokens/s), after {loading:.1f} s of loading and checks"
    )
    return f"{kept}, {done}" if kept else done
