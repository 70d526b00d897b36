"""Everything that only a GPU can show, in one run of under eight minutes (started by `gpu.sh`).

    python benchmarks/gpu.py --output gpu.json                              # on the GPU, sections by worth
    python benchmarks/gpu.py --device cpu --shape tiny --together --output rehearsal.json

Every section is a process of its own with a time limit, and writes each number as soon as it has it: one that fails or
is cut off costs its own numbers only. The file is whole after each section. Sections:

    correctness      jvp, difference and position on the device against the CPU
    rates-160m ...   tokens/s, share of the matmul rate measured beside it, and peaks against `ifguide plan`, for the
                     shapes of Pythia 160M, 1B, 410M and 2.8B in bf16, TF32 and fp32
    commands         fit-factors and score from files to files, for the hours by stage
    training         a penalised against a stock step
    generation       continuations/s
    classifiers      texts/s
    others           kronfluence and bergson beside the ways of this project, where they can be imported
    engine           the embedded engine as it is started, penalised and stock
    neox             a GPT-NeoX checkout (--neox), patched, penalised and stock
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import machine, markdown_table
from gpu_case import Case, Rows
from gpu_hours import JOB, from_floor, hours_of, table

from ifguide.system.files import write_text

# the most seconds of each; a GPU of this decade takes a fraction of most of them
SECTIONS = {
    "correctness": 60, "rates-160m": 60, "rates-1b": 70, "commands": 80, "training": 30, "rates-410m": 45,
    "rates-2.8b": 70, "generation": 40, "classifiers": 30, "others": 60, "engine": 80, "neox": 90,
}  # fmt: skip
MINUTES = 8.0
# before all sections: what torch says of the device, and the floor of the hours
_ABOUT = "about"
# a process that has less than this cannot even start torch on a GPU
_LEAST_SECONDS = 10.0
# for the last section's end and the file
_RESERVE = 5.0


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    if args.child:
        return _child(args)
    began = time.monotonic()
    ends = began + 60 * args.minutes - _RESERVE
    with tempfile.TemporaryDirectory(prefix="ifguide-gpu-") as name:
        about = _about(args, Path(name))
        device = about["device"]
        results: dict[str, Any] = {
            "benchmark": "gpu",
            **machine(),
            "command": sys.argv,
            "device": device,
            "shape": args.shape,
            "hardware": about["hardware"],
            "sections": {},
        }
        for section in args.sections or SECTIONS:
            limit = math.inf if args.together else min(SECTIONS[section], ends - time.monotonic())
            if limit < _LEAST_SECONDS:
                found: dict[str, Any] = {"left_out": f"{args.minutes:g} minutes were over"}
            else:
                found = _section(section, args, device, Path(name), limit)
            results["sections"][section] = found
            results["hours"] = _hours(results, about["floor"])
            results["seconds"] = round(time.monotonic() - began, 1)
            if args.output is not None:
                write_text(args.output, json.dumps(results, indent=2) + "\n")
            print(f"{section}: {_said(found)}", file=sys.stderr, flush=True)
    print(json.dumps(results, indent=2))
    print(_tables(results), file=sys.stderr)
    wrong = [way for way, row in _rows(results, "correctness").items() if row.get("passed") is False]
    for way in wrong:
        print(f"NOT the same as on the CPU: {way}", file=sys.stderr)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    parser.add_argument("--shape", choices=("pythia", "tiny"), default="pythia", help="tiny rehearses everything")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, metavar="NAME", help="default: all of them")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all of it (default: {MINUTES:g})")
    parser.add_argument("--neox", default=os.environ.get("GPT_NEOX_PATH"), help="a GPT-NeoX checkout")
    parser.add_argument("--together", action="store_true", help="all sections in this process, without time limits")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the JSON, whole after each section")
    parser.add_argument("--child", choices=(_ABOUT, *SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    return parser


def _section(name: str, args: argparse.Namespace, device: str, folder: Path, limit: float) -> dict[str, Any]:
    """Run a section; ``rows`` it has written, ``seconds``, and ``error`` where it did not come to its end."""
    rows = folder / f"{name}.json"
    began = time.monotonic()
    error: str | None = None
    if args.together:
        try:
            function_of(name)(Case(device, args.shape == "tiny", folder, limit, args.neox, 1), Rows(rows))
        except Exception:
            error = traceback.format_exc()
    else:
        command = [
            *_command(name, rows), "--device", device, "--shape", args.shape, "--folder", str(folder), "--seconds",
            str(limit - _LEAST_SECONDS / 2),
        ]  # fmt: skip
        command += ["--neox", args.neox] if args.neox else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
            error = done.stderr[-4000:] if done.returncode else None
        except subprocess.TimeoutExpired:
            error = f"cut off after {limit:.0f} s"
    found = json.loads(rows.read_text(encoding="utf-8")) if rows.exists() else {}
    return {"seconds": round(time.monotonic() - began, 1), "rows": found, **({"error": error} if error else {})}


def _about(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """``device``, ``hardware`` and ``floor``, by a process of its own: torch would take memory of the GPU, and threads,
    beside everything that is measured."""
    if args.together:
        return _asked(args.device)
    output = folder / f"{_ABOUT}.json"
    subprocess.run([*_command(_ABOUT, output), *(["--device", args.device] if args.device else [])], check=True)
    return json.loads(output.read_text(encoding="utf-8"))


def _asked(device: str | None) -> dict[str, Any]:
    device = device or _default_device()
    return {"device": device, "hardware": _hardware(device), "floor": from_floor(JOB)}


def _command(child: str, output: Path) -> list[str]:
    return [sys.executable, __file__, "--child", child, "--output", str(output)]


def _child(args: argparse.Namespace) -> int:
    if args.child == _ABOUT:
        write_text(args.output, json.dumps(_asked(args.device)))
        return 0
    case = Case(args.device, args.shape == "tiny", args.folder, args.seconds, args.neox)
    function_of(args.child)(case, Rows(args.output))
    return 0


def function_of(section: str) -> Callable[[Case, Rows], None]:
    """Imports torch, which the process that only starts others does without."""
    import gpu_scoring
    import gpu_work

    if section.startswith("rates-"):
        return gpu_scoring.rates(f"pythia-{section.removeprefix('rates-')}")
    return getattr(gpu_scoring if hasattr(gpu_scoring, section) else gpu_work, section)


def _hours(results: dict[str, Any], floor: dict[str, Any]) -> dict[str, Any]:
    """Pythia-160M on a billion tokens by stage: from this run's rates where they are of that shape, and the floor."""
    rates = _rows(results, "rates-160m") if results["shape"] == "pythia" else {}
    return hours_of(JOB, floor, rates, _rows(results, "commands"))


def _rows(results: dict[str, Any], section: str) -> dict[str, Any]:
    return results["sections"].get(section, {}).get("rows", {})


def _tables(results: dict[str, Any]) -> str:
    """What a reader wants first: rates by shape, and the hours."""
    parts = []
    for section in (name for name in SECTIONS if name.startswith("rates-")):
        rows = [
            (way, row["tokens_per_second"], row["share_of_matmul"], row["peak_to_plan"])
            for way, row in _rows(results, section).items()
            if "tokens_per_second" in row
        ]
        if rows:
            parts.append(markdown_table([section, "tokens/s", "share of matmul", "peak / plan"], rows))
    return "\n\n".join([*parts, table(results["hours"])])


def _said(found: dict[str, Any]) -> str:
    if "left_out" in found:
        return found["left_out"]
    error = f", then: {found['error'].strip().splitlines()[-1]}" if "error" in found else ""
    return f"{len(found['rows'])} rows in {found['seconds']} s{error}"


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _hardware(device: str) -> dict[str, Any]:
    """What the rates hang on beside the versions."""
    import torch

    if device != "cuda":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    about = torch.cuda.get_device_properties(0)
    return {
        "device": about.name,
        "memory_bytes": about.total_memory,
        "capability": f"{about.major}.{about.minor}",
        "multiprocessors": about.multi_processor_count,
        "cuda": torch.version.cuda,
        "count": torch.cuda.device_count(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
