"""Influence of every token: this project against kronfluence, bergson, a plain forward pass and a training step.

    OMP_NUM_THREADS=2 python benchmarks/attribution.py --output FILE                              # about ten minutes
    python benchmarks/attribution.py --device cuda --shape pythia-160m --sections speed precision --output FILE

One process times everything in turn on one GPT-NeoX with random weights (by default 6 layers of 512, vocabulary 8192,
windows of 512, fp32) along one direction, and prints medians, ratios and the goals as JSON. Sections:

    memory      peak of each way to score a batch, each in a process of its own
    corpus      peak of `ifguide score` on a corpus and on one eight times as large
    direction   the direction of the queries against kronfluence's query phase
    speed       all ways to score a batch
    precision   fewer digits: agreement with fp32 jvp, rate, hours for a billion tokens (on a GPU unless asked for)

bergson is timed where it is installed; the JSON says how to install it without its torch.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attribution_case import DIFFERENCE, JVP, LOW_RANK, ONE_SIDED, SHAPES, save_case_model
from attribution_memory import METHODS, THEIRS, batch_memory, corpus_memory
from common import markdown_table, report

SECTIONS = ("memory", "corpus", "direction", "speed", "precision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="default: all (precision on a GPU)")
    parser.add_argument("--windows", type=int, default=8, help="of a timed batch")
    parser.add_argument("--memory-windows", type=int, default=16, help="of a batch whose memory is measured")
    parser.add_argument("--memory-of", nargs="+", choices=METHODS, default=METHODS, metavar="WAY", help="default: all")
    parser.add_argument("--corpus-tokens", type=int, default=1 << 17, help="of the smaller corpus")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", metavar="FILE")
    args = parser.parse_args()
    sections = args.sections or [s for s in SECTIONS if s != "precision" or args.device == "cuda"]

    results: dict[str, Any] = {
        "device": args.device,
        "model": {"shape": args.shape, **vars(SHAPES[args.shape])},
        "rank": args.rank,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_case_model(folder / "model", SHAPES[args.shape])
        if "memory" in sections:
            memory = batch_memory(
                folder / "model", args.shape, args.memory_windows, args.device, args.rank, args.memory_of
            )
            results["memory"] = {"windows": args.memory_windows, "bytes": memory}
        if "corpus" in sections:
            save_case_model(folder / "tiny", SHAPES["tiny"])
            results["corpus"] = corpus_memory(folder / "tiny", SHAPES["tiny"], args.corpus_tokens, args.device)
        if {"direction", "speed", "precision"} & set(sections):
            results |= _timed(args, folder, sections)
    results["goals"] = goals(results)
    for line in _tables(results):
        print(line, file=sys.stderr)
    report("attribution", results, args.output)


def _timed(args: argparse.Namespace, folder: Path, sections: list[str]) -> dict[str, Any]:
    """The sections that share this process, its models and its direction."""
    from attribution_case import open_model, random_direction, random_factors
    from attribution_direction import direction_times, three_more
    from attribution_kronfluence import Kronfluence
    from attribution_precision import precisions
    from attribution_speed import Setting, speed

    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()  # for everybody here, as `ifguide score` does
    setting = Setting(folder / "model", SHAPES[args.shape], args.device, args.windows, args.repeats, args.rank)
    model = open_model(setting.folder, setting.device)
    factors = random_factors(model) if "direction" in sections else None
    theirs = Kronfluence(open_model(setting.folder, setting.device), factors, setting.synchronize)
    found: dict[str, Any] = {}
    direction = random_direction(model, seed=0)
    if factors is not None:
        direction, found["direction"] = direction_times(setting, model, factors, theirs, args.queries)
    if "speed" in sections:
        found["speed"] = speed(setting, three_more(direction), theirs)
    if "precision" in sections:
        found["precision"] = precisions(setting, direction)
    return found


def goals(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed for on a CPU with the base shape, and what was found here."""
    found = []

    def goal(text: str, value: float, met: bool) -> None:
        found.append({"goal": text, "found": round(value, 3), "met": met})

    if "speed" in results:
        forwards = results["speed"]["forwards"]
        for way, most in ((DIFFERENCE, 2.1), (JVP, 3.4), (LOW_RANK, 2.4), (ONE_SIDED, 5.2)):
            goal(f"{way} <= {most} plain forwards", forwards[way], forwards[way] <= most)
        ratio = forwards["kronfluence"] / forwards[DIFFERENCE]
        goal("difference >= 1.4 x kronfluence's scoring phase", ratio, ratio >= 1.4)
    if "direction" in results:
        ways = {name: way["times_ours"] for name, way in results["direction"]["kronfluence"].items()}
        name = f"direction of {results['direction']['queries']} queries >= 20 x kronfluence's query phase"
        for way, ratio in ways.items():
            goal(f"{name} ({way})", ratio, ratio >= 20)
    if "memory" in results:
        size = results["memory"]["bytes"]
        for way, theirs in itertools.product((DIFFERENCE, JVP), THEIRS):
            if way in size and theirs in size:
                for kind, words in (("peak", "peak memory"), ("above_model", "memory above the loaded model")):
                    ratio = size[way][kind] / size[theirs][kind]
                    goal(f"{words} of {way} <= 1/3 of {theirs}", ratio, ratio <= 1 / 3)
    if "corpus" in results:
        growth = results["corpus"]["growth"]
        goal("memory of `ifguide score` on 8 x the corpus <= 1.05 x", growth, growth <= 1.05)
    if "precision" in results:
        ways = results["precision"]["ways"]
        best = max(ways, key=lambda way: ways[way]["tokens_per_second"])
        hours = ways[best]["hours_for_a_billion_tokens"]
        goal(f"hours for a billion tokens ({best}) < 1", hours, hours < 1)
        share = ways[best]["share_of_matmul_rate"]
        goal(f"share of the matmul rate ({best}) >= 0.4", share, share >= 0.4)
    return found


def _tables(results: dict[str, Any]) -> list[str]:
    tables = [markdown_table(["goal", "found", "met"], [(g["goal"], g["found"], g["met"]) for g in results["goals"]])]
    if "speed" in results:
        speed = results["speed"]
        rows = [
            (n, f, speed["tokens_per_second"][n], speed["flops"]["ways"][n]["forwards_at_least"])
            for n, f in speed["forwards"].items()
        ]
        tables.append(markdown_table(["", "plain forwards", "tokens/s", "at least"], rows))
    if "memory" in results:
        rows = [
            (n, *(f"{s[k] / 1e6:.0f}" for k in ("peak", "above_model"))) for n, s in results["memory"]["bytes"].items()
        ]
        tables.append(markdown_table(["", "peak MB", "MB above the model"], rows))
    return tables


if __name__ == "__main__":
    main()
