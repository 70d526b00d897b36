"""``ifguide fetch-eval-data``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of
from ifguide.data.text.terms import BUILT_IN, Terms
from ifguide.errors import InputError
from ifguide.system.files import read_json
from ifguide.system.outputs import Output, Source
from ifguide.verbs.writes import Writes, source

SUMMARY = "Write the evaluation sets as local JSON Lines, once; evaluation with IFGUIDE_EVAL_DATA=DIR needs no network."
EXAMPLE = "ifguide fetch-eval-data --output eval-data --source bold=bold.jsonl rtp=prompts.jsonl"


@dataclass(frozen=True, kw_only=True)
class FetchEvalData:
    """The options of this verb."""

    output: str = option(metavar="DIR", kind="output", help="folder to write; created if missing")
    source: Sequence[str] = option(
        ("hub",), metavar="hub|NAME=FILE", kind="input",
        help="the Hugging Face hub (rtp, bold, attaq, lambada, heldout), or JSON Lines files in the published layout "
        "or in the local form; NAME: those five, toxigen (also its folder of text files), ptp; NAME=hub fetches one "
        "set, ptp=hub:ptp-de another language (default: hub)",
    )  # fmt: skip
    only_with_terms: str | None = option(
        None, one_of="terms", nargs="?", const=str(BUILT_IN), metavar="FILE",
        help="keep only texts and prompts that have an identity term (one a line; without FILE the list of the "
        "package)",
    )  # fmt: skip
    only_without_terms: str | None = option(
        None, one_of="terms", nargs="?", const=str(BUILT_IN), metavar="FILE",
        help="keep only texts and prompts that have none (one a line; without FILE the list of the package)",
    )  # fmt: skip


OPTIONS = FetchEvalData
WRITES = Writes(
    lambda args: _output(args),
    named(FetchEvalData),
    sources=lambda args: {_label(name, args): [found, *_terms(args)] for name, found in _named(args).items()},
    settle=lambda args, settings: _settle(settings),
    result=lambda args, record: {
        "output": str(args.output),
        "sets": {
            name: {key: value for key, value in record[name].items() if key != "request"} for name in _named(args)
        },
    },
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.eval_data import fetch

    asked = options_of(args, FetchEvalData)
    report = fetch(asked.output, _sources(asked.source), _kept(args))
    if not args.json:
        for name, said in report.items():
            blank = f"; blank prompts left out: {said['blank']}" if said["blank"] else ""
            left_out = f"; left out by terms: {said['left_out']}" if "left_out" in said else ""
            print(f"{asked.output}/{name}.jsonl: {said['records']} records from {said['source']}{blank}{left_out}")
    return {"output": asked.output, "sets": report}


def _kept(args: argparse.Namespace) -> Callable[[str], bool] | None:
    """Which texts stay; None: all."""
    if not _terms(args):
        return None
    terms = Terms.read(args.only_with_terms or args.only_without_terms)
    return terms.are_in if args.only_with_terms else lambda text: not terms.are_in(text)


def _terms(args: argparse.Namespace) -> list[Source]:
    """The list that decides which texts stay."""
    path = args.only_with_terms or args.only_without_terms
    return [source(path)] if path else []


def _label(name: str, args: argparse.Namespace) -> str:
    """What a record calls the source of a set: with the option that leaves texts out."""
    kept = " --only-with-terms" if args.only_with_terms else " --only-without-terms" if args.only_without_terms else ""
    return f"--source {name}{kept}"


def _settle(settings: dict[str, Any]) -> None:
    """They stand with the source of each set, because every set has a command of its own."""
    for name in ("--only-with-terms", "--only-without-terms"):
        settings.pop(name, None)


def _sources(given: Sequence[str]) -> dict[str, str] | None:
    if list(given) == ["hub"]:
        return None
    sources: dict[str, str] = {}
    for item in given:
        name, equals, file = item.partition("=")
        if not equals or not file or name in sources:
            raise InputError(f"--source '{item}': give hub alone, or NAME=FILE with every NAME once")
        sources[name] = file
    return sources


def _named(args: argparse.Namespace) -> dict[str, Source]:
    """Where each set that is asked for comes from."""
    from ifguide.evaluation.eval_data import HUB, USUAL, hub_source, published_name

    given = _sources(args.source) or dict.fromkeys(USUAL, "hub")
    found = {name: hub_source(name, file) if name in HUB else None for name, file in given.items()}
    return {
        name: source(given[name]) if hub is None else Source(published_name(name, hub), "published", lambda: None)
        for name, hub in found.items()
    }


def _output(args: argparse.Namespace) -> Output:
    """The files of the sets that are asked for; others may lie in the folder already."""
    folder, asked = Path(args.output), _named(args)

    def read(path: Path) -> Any:
        known = read_json(path, "list of sources")
        inputs: dict[str, Any] = {}
        for name, found in asked.items():
            plain = f"--source {name}"
            if (folder / f"{name}.jsonl").exists():
                request = known.get(name, {}).get("request")
                if request is None:
                    return None
                own = {label: read for label, read in request["inputs"].items() if label.split(" --only")[0] == plain}
                inputs |= own or {plain: None}
            else:
                used = [found, *_terms(args)]
                inputs[_label(name, args)] = [{"path": one.path, "state": one.state} for one in used]
        return {"verb": "fetch-eval-data", "settings": {}, "inputs": inputs}

    files = [folder / f"{name}.jsonl" for name in asked]
    return Output(args.output, files, [folder / "sources.json"], is_folder=True, read=read)
