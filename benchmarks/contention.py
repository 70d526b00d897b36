"""Tokens a second of training and scoring, quiet and beside other work, by how OpenMP's threads wait.

    python benchmarks/contention.py [--threads N] [--repeats 5] [--output FILE]

torch's threads meet at the end of every parallel loop. By default a thread that is early spins there, which is fast as
long as every thread has a core, and burns the core that a late thread waits for as soon as other work is on it. The
OpenMP library reads how to wait when it is loaded; so each policy is a process of its own. They do one round of each
work in turn, a few seconds each, and the others sleep meanwhile. The other work is one process of two threads that
compute hashes. The model is the quickstart's: 2 layers of 128, 4,096 tokens, batches of 4 x 256; scoring is a forward
pass with losses. About three minutes on two cores; the machine should do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from common import REPOSITORY, markdown_table, report

WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# what is put into the environment; the library's own default is nothing at all
POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
}
WORKS = ("training", "scoring")
LAYERS, WIDTH, HEADS, VOCABULARY, BATCH, LENGTH = 2, 128, 4, 4096, 4, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=None, help="of each policy's process (default: usable cores)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count; one more warms up (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one round of one work (default: 1.5)")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--output", metavar="FILE")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work_on_request()
        return

    from ifguide.system.processes import usable_cores

    threads = args.threads or usable_cores()
    workers = {name: Worker(POLICIES[name], threads) for name in args.policies}
    try:
        for worker in workers.values():
            worker.ask("training", 0.1)  # imports and first batches
        rates = {"quiet": measure(workers, args.repeats, args.seconds)}
        with busy_process():
            rates["beside two busy threads"] = measure(workers, args.repeats, args.seconds)
    finally:
        for worker in workers.values():
            worker.stop()

    columns = [(place, work) for place in rates for work in WORKS]
    medians = {
        name: {place: {work: statistics.median(rates[place][work][name]) for work in WORKS} for place in rates}
        for name in workers
    }
    rows = [(name, *(f"{medians[name][place][work]:,.0f}" for place, work in columns)) for name in workers]
    header = ["tokens/s", *(f"{work}, {place}" for place, work in columns)]
    print(markdown_table(header, rows), file=sys.stderr)
    report(
        "contention",
        {
            "threads": threads,
            "rounds": {"repeats": args.repeats, "seconds": args.seconds},
            "load_average_at_the_end": os.getloadavg(),
            "policies": {name: POLICIES[name] for name in workers},
            "tokens_per_second": {
                name: {place: {work: round(value) for work, value in found.items()} for place, found in places.items()}
                for name, places in medians.items()
            },
            "all_rounds": {
                place: {work: {name: [round(rate) for rate in found] for name, found in by_name.items()}
                        for work, by_name in works.items()}
                for place, works in rates.items()
            },
        },
        args.output,
    )  # fmt: skip


def measure(workers: dict[str, Worker], repeats: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Tokens a second by work and policy, one value a round; the policies take turns."""
    found: dict[str, dict[str, list[float]]] = {work: {name: [] for name in workers} for work in WORKS}
    for turn in range(repeats + 1):
        for work in WORKS:
            for name, worker in workers.items():
                rate = worker.ask(work, seconds)
                if turn:
                    found[work][name].append(rate)
    return found


class Worker:
    """A process with one policy, which works when it is asked to and sleeps otherwise."""

    def __init__(self, policy: dict[str, str], threads: int):
        environment = {name: value for name, value in os.environ.items() if name not in WAITING_VARIABLES}
        environment |= policy | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, work: str, seconds: float) -> float:
        """Tokens a second of ``work``, done for at least ``seconds``."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([work, seconds]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with {self._process.wait()}")
        return float(line)

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()


def work_on_request() -> None:
    """A worker: answers every ``[work, seconds]`` on stdin with tokens a second on stdout."""
    works = make_works()
    for line in sys.stdin:
        work, seconds = json.loads(line)
        steps, started = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - started < seconds:
            works[work]()
            steps += 1
        print(steps * BATCH * LENGTH / (time.perf_counter() - started), flush=True)


def make_works() -> dict[str, Callable[[], Any]]:
    """One step of each of `WORKS`."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH, max_position_embeddings=LENGTH,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH))

    def training() -> None:
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def scoring() -> None:
        with torch.no_grad():
            model(input_ids=tokens, labels=tokens, use_cache=False)

    return {"training": training, "scoring": scoring}


@contextmanager
def busy_process() -> Iterator[None]:
    """Another process whose two threads compute all the time, until the block ends."""
    code = (
        "import hashlib, threading\n"
        "data = bytes(1 << 24)\n"  # a hash of this much lets go of the interpreter's lock
        "def work():\n    while True: hashlib.sha256(data)\n"
        "for _ in range(2): threading.Thread(target=work).start()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(1)
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
