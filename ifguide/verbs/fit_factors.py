"""``ifguide fit-factors``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ifguide.config.options import named, option, options_of, part
from ifguide.influence.options import FitOptions, ModelAndData
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, folder

if TYPE_CHECKING:
    from ifguide.influence.curvature.stability import Stability

SUMMARY = "Fit curvature factors of a model on a sample of the training data (kronfluence's EK-FAC)."
EXAMPLE = "ifguide fit-factors --model runs/proxy/hf --data data/corpus_text_document --output runs/factors"


@dataclass(frozen=True, kw_only=True)
class FitFactors(ModelAndData):
    """The options of this verb."""

    output: str = option(metavar="DIR", kind="output", help="folder for factors.safetensors and .json")
    fit: FitOptions = part(FitOptions)
    stability: bool = option(
        False,
        help="also fit on two halves of the sample and say how far the scores agree (needs queries; twice the time)",
    )  # fmt: skip
    toxic_queries: str | None = option(
        None, metavar="FILE", kind="input", help="for --stability, as given to score"
    )  # fmt: skip
    safe_queries: str | None = option(
        None, metavar="FILE", kind="input", help="for --stability, as given to score"
    )  # fmt: skip
    stability_tokens: int | None = option(
        None, metavar="N", help="for --stability: tokens to score (default: 100000)"
    )  # fmt: skip


OPTIONS = FitFactors
WRITES = Writes(
    lambda args: folder(args.output, "factors.json", ["factors.safetensors"]), named(FitFactors), is_replayed=True
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.influence.curvature.job import fit_factors
    from ifguide.influence.curvature.partitions import Partitions
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    asked = options_of(args, FitFactors)
    result = fit_factors(asked.model, asked.data, asked.output, asked.fit, _stability(asked))
    if not args.json:
        print(
            f"{result['output']}: {result['strategy']} factors of {len(result['modules'])} layers "
            f"from {counted(result['tokens'], 'token')} in {result['seconds']:.1f} s"
        )
        if how := Partitions(**result["partitions"]).describe():
            print(f"cut to fit the device: {how}")
        if found := result.get("stability"):
            first, second = (half["tokens"] for half in found["halves"])
            print(
                f"stability of {found['scored_tokens']} scores, fitted on {first} tokens and on {second} others: "
                f"rank correlation {found['rank_correlation']:.4f}, overlap of the top 1 % "
                f"{found['top_1_percent_overlap']:.3f}"
            )
    return result


def _stability(asked: FitFactors) -> Stability | None:
    from ifguide.errors import ConfigError
    from ifguide.influence.curvature.stability import SCORED_TOKENS, Stability

    needed = {"--toxic-queries": asked.toxic_queries, "--safe-queries": asked.safe_queries}
    if not asked.stability:
        given = {**needed, "--stability-tokens": asked.stability_tokens}
        if unused := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"{name} belongs to --stability; add that, or leave it out" for name in unused)
        return None
    if missing := [name for name, value in needed.items() if value is None]:
        raise ConfigError(f"--stability needs {name}" for name in missing)
    assert asked.toxic_queries is not None and asked.safe_queries is not None
    tokens = SCORED_TOKENS if asked.stability_tokens is None else asked.stability_tokens
    return Stability(asked.toxic_queries, asked.safe_queries, tokens)
