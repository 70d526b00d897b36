"""Peak memory: of each way to score one batch, and of `ifguide score` on a corpus and on one eight times as large.

Every number comes from a process of its own. On a CPU a batch's peak is the kernel's high-water mark, reset just before
the batch; the corpus's peak is of anonymous memory alone (sampled), for mapped pages of the corpus are the cache's to
keep or drop. On a GPU both are torch's own count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a child, too

from attribution_case import (
    OURS,
    SHAPES,
    Shape,
    make_scorer,
    open_model,
    plain_forward,
    random_batch,
    random_direction,
    random_factors,
    random_queries,
)  # fmt: skip
from common import REPOSITORY, run_child

if TYPE_CHECKING:
    from ifguide.influence.batches import Batch
    from ifguide.models.tracked import ScoredModel

THEIRS = ("kronfluence", "kronfluence, whole run")
METHODS = ("plain forward", *OURS, *THEIRS)
_POLL_SECONDS = 0.005
# of a batch of the tiny model; fewer would take longer and hold less
_CORPUS_WINDOWS = 256


def batch_memory(
    folder: Path, shape: str, windows: int, device: str, rank: int, methods: Sequence[str]
) -> dict[str, Any]:
    """Bytes of some of `METHODS`: ``peak``, and ``above_model``, what the loaded model does not explain.

    The whole run of kronfluence holds its factors while it scores; what `ifguide score` needs for its direction is
    gone by then.
    """
    found = {}
    for method in methods:
        arguments = ["--model", folder, "--shape", shape, "--windows", windows, "--device", device, "--rank", rank]
        found[method] = json.loads(run_child([__file__, *map(str, arguments), "--method", method]).output)
    return found


def corpus_memory(model: Path, shape: Shape, tokens: int, device: str) -> dict[str, Any]:
    """Peak of `ifguide score` by jvp on ``tokens`` tokens and on eight times as many; writes beside ``model``."""
    folder = model.parent
    for name, completion in (("toxic", " of every token"), ("safe", " of the corpus")):
        query = {"prompt": "the mask", "completion": completion}
        (folder / f"{name}.jsonl").write_text(json.dumps(query) + "\n", encoding="utf-8")
    rows = {}
    for times in (1, 8):
        prefix = folder / f"corpus{times}"
        _write_corpus(prefix, shape, tokens * times)
        common = ["--model", model, "--data", prefix, "--seq-length", shape.window]
        factors = folder / f"factors{times}"
        run_child(["-m", "ifguide.cli", "fit-factors", "--strategy", "identity", *common, "--output", factors])
        score = [
            "score", *common, "--factors", factors, "--toxic-queries", folder / "toxic.jsonl",
            "--safe-queries", folder / "safe.jsonl", "--method", "jvp", "--batch-size", _CORPUS_WINDOWS,
            "--output", folder / f"scores{times}",
        ]  # fmt: skip
        rows[f"{times}x"] = {"tokens": tokens * times, **_sampled(["--cli", json.dumps([*map(str, score)])], device)}
    key = "peak_gpu" if device == "cuda" else "peak_anonymous"
    return {**rows, "measure": key, "growth": round(rows["8x"][key] / rows["1x"][key], 3)}


def _write_corpus(prefix: Path, shape: Shape, tokens: int) -> None:
    """Documents of two windows."""
    import numpy as np

    from ifguide.data.indexed import write_index

    length = 2 * shape.window
    documents = max(1, tokens // length)
    draw = np.random.default_rng(3)
    with open(f"{prefix}.bin", "wb") as stream:
        for _ in range(documents):
            draw.integers(1, shape.vocabulary, length, dtype=np.uint16).tofile(stream)
    starts = np.arange(documents + 1) * length
    write_index(f"{prefix}.idx", np.uint16, np.full(documents, length), starts, np.arange(documents + 1))


def _sampled(arguments: list[str], device: str) -> dict[str, Any]:
    """Run this file with ``arguments`` and look at its memory all the time."""
    command = [sys.executable, __file__, "--device", device, *arguments]
    anonymous = total = 0
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=REPOSITORY)
        while process.poll() is None:
            now = _status(Path(f"/proc/{process.pid}/status"))
            anonymous, total = max(anonymous, now.get("RssAnon", 0)), max(total, now.get("VmHWM", 0))
            time.sleep(_POLL_SECONDS)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors.read()}")
        said = json.loads(output.read().splitlines()[-1])
    return {"peak_anonymous": anonymous, "peak_rss": total, **said}


def _status(path: Path) -> dict[str, int]:
    """Sizes of a process in bytes; empty once it has ended, and where the system is not Linux."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}


def _child_batch(args: argparse.Namespace) -> None:
    """Score one batch and print the peak."""
    from ifguide.system.processes import keep_freed_memory, release_freed_memory

    model = open_model(args.model, args.device)
    batch = random_batch(SHAPES[args.shape], args.windows, args.device)
    loaded = _now(args.device)
    work = _work(args.method, model, batch, args.rank)
    release_freed_memory()
    if args.method in OURS:
        keep_freed_memory()  # as `ifguide score` does
    _forget_peak(args.device)
    work()
    peak = _peak(args.device)
    print(json.dumps({"peak": peak, "model_loaded": loaded, "above_model": peak - loaded}))


def _work(method: str, model: ScoredModel, batch: Batch, rank: int) -> Callable[[], object]:
    """What is measured: scoring ``batch``."""
    if method == "plain forward":
        return lambda: plain_forward(model, batch)
    if method in THEIRS:
        from attribution_kronfluence import Kronfluence, tight_batches

        if method == "kronfluence":
            theirs = Kronfluence(model, None, lambda: None)
            theirs.use(random_direction(model, 0))
            return lambda: theirs.scores(batch)
        theirs = Kronfluence(model, random_factors(model), lambda: None)
        queries = [tight_batches(random_queries(SHAPES["tiny"], 8), 8)[0]] * 2
        return lambda: theirs.query_phase(queries, batch)
    scorer = make_scorer(method, model, [random_direction(model, seed) for seed in range(4)], rank)
    return lambda: scorer.scores(batch)


def _now(device: str) -> int:
    import torch

    if device == "cuda":
        return torch.cuda.memory_allocated()
    return _status(Path("/proc/self/status")).get("VmRSS", 0)


def _forget_peak(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew at what is held now


def _peak(device: str) -> int:
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return _status(Path("/proc/self/status")).get("VmHWM", 0)


def _child_cli(args: argparse.Namespace) -> None:
    """Run one verb of ifguide."""
    from ifguide.cli import main

    code = main(json.loads(args.cli))
    if code:
        raise SystemExit(code)
    print(json.dumps({"peak_gpu": _peak("cuda")} if args.device == "cuda" else {}))


def _main() -> None:
    parser = argparse.ArgumentParser(description="The child processes of attribution.py.")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cli", metavar="JSON", help="arguments of the ifguide command")
    args = parser.parse_args()
    if args.cli:
        _child_cli(args)
    else:
        _child_batch(args)


if __name__ == "__main__":
    _main()
