"""The command that usually comes after one: its line "next: ...", with the paths that this one knows.

Words in capitals stand for what only the user knows.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
_QUERIES = ["--toxic-queries", "TOXIC.jsonl", "--safe-queries", "SAFE.jsonl"]


def next_command(verb: str, args: argparse.Namespace, result: Result | None) -> str | None:
    """The command, as a person types it; None after a verb that nothing in particular follows.

    Args:
        args: the options of ``verb``.
        result: what it returned.
    """
    follow = _FOLLOW.get(verb)
    return None if follow is None or result is None else follow(args, result)


def _ifguide(verb: str, *words: Any) -> str:
    return shlex.join(["ifguide", verb, *map(str, words)])


def _beside(path: str | os.PathLike, name: str) -> Path:
    return Path(path).parent / name


def _preprocess(args: argparse.Namespace, result: Result) -> str:
    return _mask_command(result["output"])


def _mask_command(data: str) -> str:
    """The whole way from tokens to a mask, as the tutorial goes it."""
    return _ifguide("mask", "--model", "PROXY", "--data", data, *_QUERIES, "--output", "runs/mask")


def _fit_factors(args: argparse.Namespace, result: Result) -> str:
    words = ["--model", args.model, "--data", args.data, "--factors", args.output, *_QUERIES]
    return _ifguide("score", *words, "--output", _beside(args.data, "scores"))


def _score(args: argparse.Namespace, result: Result) -> str | None:
    if not result["finished"]:
        return None
    scores = [output["output"] for output in result["outputs"]]
    if len(scores) > 1:
        return None  # each behaviour has a budget of its own, which nobody can guess
    words = ["--scores", scores[0], "--max-fraction", "0.02"]
    return _ifguide("build-mask", *words, "--output", _beside(scores[0], "mask"))


def _build_mask(args: argparse.Namespace, result: Result) -> str | None:
    """Of one corpus; the tokens are those that the mask's own record names."""
    from ifguide.data.sidecar import read_sidecar

    if len(args.output) != 1:
        return None
    data = (args.data or [read_sidecar(args.output[0]).get("data_prefix") or "DATA"])[0]
    return _ifguide("verify", "--data", data, "--mask", args.output[0])


def _verify(args: argparse.Namespace, result: Result) -> str:
    if not args.mask:
        return _mask_command(args.data)
    keys = f'"data_path": "{args.data}", "penalty_data_path": "{args.mask[0]}"'
    return f"python deepy.py train.py MODEL.yml PENALTY.yml --neox ~/gpt-neox   (PENALTY.yml with {keys})"


def _convert(args: argparse.Namespace, result: Result) -> str:
    if args.to == "neox":
        return f'python deepy.py train.py MODEL.yml DATA.yml --neox ~/gpt-neox   (with "load": "{args.output}")'
    return generate_command(args.output)


def _generate(args: argparse.Namespace, result: Result) -> str:
    scored = Path(args.output).with_suffix(".scored.jsonl")
    return _ifguide("score-generations", "--generations", args.output, "--scorer", "SCORER", "--output", scored)


def _evaluate(args: argparse.Namespace, result: Result) -> str:
    return _ifguide("compare", "BASE", args.output, "--html", _beside(args.output, "comparison.html"))


def generate_command(model: str | os.PathLike) -> str:
    """What a trained model is tried with first."""
    path = Path(model)
    return _ifguide("generate", "--model", path, "--prompts", "PROMPTS.jsonl", "--output", f"{path}-said.jsonl")


_FOLLOW: dict[str, Callable[[argparse.Namespace, Result], str | None]] = {
    "preprocess": _preprocess,
    "fit-factors": _fit_factors,
    "score": _score,
    "build-mask": _build_mask,
    "verify": _verify,
    "convert": _convert,
    "generate": _generate,
    "evaluate": _evaluate,
}
