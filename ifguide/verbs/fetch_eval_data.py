"""``ifguide fetch-eval-data``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of
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
        help="the Hugging Face hub (all sets), or JSON Lines files in the published layout or in the local form; "
        "NAME: rtp, bold, attaq, lambada, heldout (default: hub)",
    )  # fmt: skip


OPTIONS = FetchEvalData
WRITES = Writes(
    lambda args: _output(args),
    named(FetchEvalData),
    sources=lambda args: {f"--source {name}": [found] for name, found in _named(args).items()},
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
    report = fetch(asked.output, _sources(asked.source))
    if not args.json:
        for name, said in report.items():
            blank = f"; blank prompts left out: {said['blank']}" if said["blank"] else ""
            print(f"{asked.output}/{name}.jsonl: {said['records']} records from {said['source']}{blank}")
    return {"output": asked.output, "sets": report}


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
    from ifguide.evaluation.eval_data import HUB

    given = _sources(args.source)
    if given is not None:
        return {name: source(file) for name, file in given.items()}
    return {name: Source(f"hub:{hub.path}", "published", lambda: None) for name, hub in HUB.items()}


def _output(args: argparse.Namespace) -> Output:
    """The files of the sets that are asked for; others may lie in the folder already."""
    folder, asked = Path(args.output), _named(args)

    def read(path: Path) -> Any:
        known = read_json(path, "list of sources")
        inputs = {}
        for name, found in asked.items():
            if (folder / f"{name}.jsonl").exists():
                request = known.get(name, {}).get("request")
                if request is None:
                    return None
                inputs[f"--source {name}"] = request["inputs"].get(f"--source {name}")
            else:
                inputs[f"--source {name}"] = [{"path": found.path, "state": found.state}]
        return {"verb": "fetch-eval-data", "settings": {}, "inputs": inputs}

    files = [folder / f"{name}.jsonl" for name in asked]
    return Output(args.output, files, [folder / "sources.json"], is_folder=True, read=read)
