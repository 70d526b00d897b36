"""``ifguide score``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ifguide.config.options import given, named, option, options_of, part, same_as
from ifguide.influence.options import Cascade, FitOptions, ModelAndData, Options
from ifguide.system.outputs import Output
from ifguide.system.progress import compact, counted
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Score every training token: how much learning it raises the toxic-minus-safe log-likelihood."
EXAMPLE = (
    "ifguide score --model runs/proxy/hf --data data/corpus_text_document --factors runs/factors "
    "--toxic-queries toxic.jsonl --safe-queries safe.jsonl --output runs/scores\n"
    "  torchrun --nproc-per-node 8 tools/score.py ...   (the same options; each process takes its share)"
)

_QUERIES = "what to score for"


@dataclass(frozen=True, kw_only=True)
class Score(ModelAndData):
    """The options of this verb."""

    factors: str = option(metavar="DIR", kind="input", help="made by fit-factors on this model")
    eod_token: str | None = same_as(FitOptions, "eod_token")
    toxic_queries: str | None = option(
        None, metavar="FILE", kind="input", group=_QUERIES, help="JSONL of prompt, completion"
    )
    safe_queries: str | None = option(
        None, metavar="FILE", kind="input", group=_QUERIES, help="JSONL of prompt, completion"
    )
    behaviour: Sequence[Sequence[str]] | None = option(
        None, nargs=3, action="append", metavar=("NAME", "TOXIC", "SAFE"), kind="input", words=1, group=_QUERIES,
        help="one of several behaviours that are scored in one pass, each into PREFIX.NAME; repeat it",
    )  # fmt: skip
    per_category: bool = option(
        False, group=_QUERIES, help="each category of the toxic queries alone, into PREFIX.CATEGORY"
    )
    toxic_alone: bool = option(
        False, group=_QUERIES, help="along the toxic queries alone, without safe ones: the usual influence, a baseline"
    )
    output: str = option(metavar="PREFIX", kind="output", help="writes PREFIX.bin, .idx and .json")
    how: Options = part(Options, group="how")
    cascade: Cascade = part(Cascade, prefix="cascade-")

    def queries(self) -> list[Any]:
        """
        Raises:
            InputError: neither form is complete, or both are given.
        """
        from ifguide.errors import InputError
        from ifguide.influence.behaviours import QueryFiles

        toxic, safe = self.toxic_queries, self.safe_queries
        if self.behaviour:
            if toxic or safe:
                raise InputError("--behaviour takes its own queries; leave out --toxic-queries and --safe-queries")
            if self.toxic_alone:
                raise InputError(
                    "--toxic-alone is of --toxic-queries; --behaviour names safe ones: leave one of them out"
                )
            return [QueryFiles(one, other, name) for name, one, other in self.behaviour]
        if self.toxic_alone:
            if safe or not toxic:
                raise InputError("--toxic-alone scores along --toxic-queries; give those, and no --safe-queries")
            return [QueryFiles(toxic, None)]
        if not (toxic and safe):
            raise InputError("give --toxic-queries and --safe-queries, or --behaviour NAME TOXIC SAFE")
        return [QueryFiles(toxic, safe)]


OPTIONS = Score
SHARES_WORK = True
WRITES = Writes(lambda args: _output(args), named(Score), keeps_result=True, is_replayed=True)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    from ifguide.system.processes import share_cores
    from ifguide.system.run_process import this_process

    share_cores(this_process().local_size)

    from ifguide.influence.cascade.run import score_cascade
    from ifguide.influence.job import Inputs
    from ifguide.influence.score import score
    from ifguide.influence.shards import Share
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    asked = _asked(args)
    how = replace(asked.how, per_category=asked.per_category)
    inputs = Inputs(asked.model, asked.data, asked.factors, asked.queries(), asked.output, asked.eod_token)
    result = score_cascade(inputs, how, asked.cascade) if _has_cascade(args) else score(inputs, how)
    if Share.from_environment().rank > 0:
        return None
    if not args.json:
        _tell(result)
    return result


def _output(args: argparse.Namespace) -> Output | None:
    """One dataset for each behaviour, and the parts that an unfinished pass leaves."""
    from ifguide.influence.behaviours import output_prefixes

    asked = _asked(args)
    passes = (asked.output, f"{asked.output}.cheap", f"{asked.output}.exact")
    partials = [Path(f"{prefix}.parts") for prefix in passes]
    # the passes of a cascade have files of their own until they are combined
    partials += [Path(f"{prefix}.{suffix}") for prefix in passes[1:] for suffix in ("json", "idx", "bin")]
    return datasets(output_prefixes(asked.output, asked.queries(), asked.per_category), partials)


def _asked(args: argparse.Namespace) -> Score:
    """
    Raises:
        ConfigError: options of a cascade without one.
    """
    from ifguide.errors import ConfigError

    if not _has_cascade(args) and (flags := given(args, Score, "cascade")):
        raise ConfigError(
            f"{flag} belongs to a cascade; give --cascade-model or --cascade-scores too" for flag in flags
        )
    return options_of(args, Score)


def _has_cascade(args: argparse.Namespace) -> bool:
    return bool(args.cascade_model or args.cascade_factors or args.cascade_scores)


def _tell(result: dict[str, Any]) -> None:
    method = result["method"]
    how = method["attribution"] if method["attribution"] == "position" else method["method"]
    if method["step"] is not None:
        how += f", step {method['step']:.1e}"
    for output in result["outputs"]:
        if result["nothing_left"]:
            print(
                f"{output['output']}: all {counted(result['tokens'], 'token')} were scored before; nothing was left "
                f"to do"
            )
        elif result["finished"]:
            print(f"{output['output']}: {counted(result['tokens'], 'token')} scored ({how})")
    if not result["nothing_left"]:
        print(_work_done(result))
    if "cascade" in result:
        from ifguide.influence.cascade.report import describe

        print("\n".join(describe(result["cascade"])))
    if not result["finished"]:
        print(
            f"{result['missing_tokens']:,} of {counted(result['tokens'], 'token')} are left for other calls; run them "
            f"to finish"
        )


def _work_done(result: dict[str, Any]) -> str:
    """What this call scored and what it kept; the rate is that of scoring, without loading and checks."""
    kept = f"{counted(result['resumed_tokens'], 'token')} kept from an earlier call" if result["resumed_tokens"] else ""
    if not result["scored_tokens"]:
        return kept or "no token was left to this call"
    loading = result["seconds"] - result["scoring_seconds"]
    done = (
        f"{counted(result['scored_tokens'], 'token')} scored in {result['scoring_seconds']:.1f} s "
        f"({compact(result['tokens_per_second'])} tokens/s), after {loading:.1f} s of loading and checks"
    )
    return f"{kept}, {done}" if kept else done
