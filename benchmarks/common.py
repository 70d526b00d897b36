"""What every benchmark needs: the machine and versions beside the numbers, medians, memory of a child process."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    """Processor, cores, memory, threads, graphics cards, versions and revision: what a number depends on."""
    from ifguide.system.processes import usable_cores
    from ifguide.system.provenance import environment

    record = environment()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    record["machine"] |= {
        "usable_cores": usable_cores(),
        "memory_gb": round(memory / 1e9, 1),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "gpus": _gpus(),
    }
    return record


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs of the same work."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        return {"median": round(self.median, 6), "min": round(min(self.seconds), 6), "repeats": len(self.seconds)}


def time_alternating(works: Mapping[str, Callable[[], object]], repeats: int = 5, warmup: int = 1) -> dict[str, Timing]:
    """Time several pieces of work in turn, so that a machine that slows down slows all of them: ratios of the
    medians then compare the works and not the minutes. Work on a GPU has to synchronise itself."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warmup + repeats):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timing(found) for name, found in seconds.items()}


def median_time(work: Callable[[], object], repeats: int = 5, warmup: int = 1) -> Timing:
    """Time one piece of work."""
    return time_alternating({"": work}, repeats, warmup)[""]


@dataclass(frozen=True)
class Child:
    """A finished child process.

    Attributes:
        seconds: from start to end, the interpreter's start included.
        cpu_seconds: of all its threads; on a machine that others use too, ratios of these say more.
        peak_rss: most bytes of memory it held at once; memory-mapped pages that it touched count.
        output: what it wrote to stdout.
    """

    seconds: float
    cpu_seconds: float
    peak_rss: int
    output: str


def run_child(arguments: Sequence[str | Path], **environment: str) -> Child:
    """Run a Python command (``arguments`` follow the interpreter) from the repository and measure it.

    Linux counts the caller's own memory until the child's program starts: call this from a small process.

    Raises:
        RuntimeError: it failed; holds what it wrote to stderr.
    """
    command = [sys.executable, *map(str, arguments)]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, cwd=REPOSITORY, env={**os.environ, **environment}
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors.read()}")
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Child(seconds, usage.ru_utime + usage.ru_stime, peak, output.read())


def report(name: str, results: dict[str, Any], output: str | os.PathLike | None = None) -> None:
    """Print ``results`` with the machine as JSON on stdout, and write them to ``output`` too if it is given."""
    text = json.dumps({"benchmark": name, **machine(), "command": sys.argv, **results}, indent=2)
    print(text)
    if output is not None:
        from ifguide.system.files import write_text

        write_text(output, text + "\n")


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What ``results.json`` files hold, in their order."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def of_seeds(values: Sequence[float | None], form: str = "") -> str:
    """Values of several seeds one after another; None, where a seed has no such value, is a dash."""
    return ", ".join("–" if value is None else format(value, form) for value in values)


def print_table_of_seeds(about: str | None, table: Callable[[list[dict[str, Any]]], str]) -> None:
    """The command of a script that is ``about`` one ``table`` of several ``results.json``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    print(table(read_results(parser.parse_args().results)))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table for the documentation; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _gpus() -> list[str]:
    """Names of the graphics cards; asks the driver, for importing torch would change what is measured."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return asked.stdout.split("\n")[:-1] if asked.returncode == 0 else []
