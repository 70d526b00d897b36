"""Fuzz the index reader: mutated indexed datasets are opened, and every document of those that open is read.

    python benchmarks/fuzz_index.py --executions 200000

A finding is any end but a refusal in words (InputError) or a dataset whose documents are the file: another exception, a
document that is not the file's own bytes, more than a second, or more memory than the files justify. A crash
ends the process, and the exit code tells. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from ifguide.data.faults import check_doc_idx
from ifguide.data.index_file import Fault, read_layout
from ifguide.data.indexed import IndexedDataset, write_index
from ifguide.errors import InputError

_SECONDS = 1.0
_EXTRA_MEMORY = 256 << 20  # bytes; the largest mutated file has a few hundred
_INTERESTING = (0, 1, -1, 7, 8, 255, 2**15, 2**16, 2**31 - 1, -(2**31), 2**32, 2**40, 2**60, 2**61, 2**62, 2**63 - 1)
_SHAPES = (
    ("uint16", (5, 1, 0, 17)),
    ("int32", (3, 3, 3)),
    ("float32", (4,)),
    ("int64", (0, 0, 2)),
    ("uint8", (1,) * 20),
)

Pair = tuple[bytes, bytes]


def fuzz(executions: int, seed: int, folder: str | os.PathLike) -> dict[str, object]:
    """Run that many mutated datasets; returns what became of them, and the findings with their seeds."""
    prefix = os.path.join(os.fspath(folder), "fuzzed")  # noqa: PTH118
    seeds = [_sound(name, lengths, prefix) for name, lengths in _SHAPES]
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    documents = 0
    for number in range(executions):
        generator = random.Random(f"{seed} {number}")
        index, content = _mutated(generator.choice(seeds), generator)
        Path(prefix + ".idx").write_bytes(index)
        Path(prefix + ".bin").write_bytes(content)
        try:
            with _time_limit():
                documents += _read_everything(prefix, content)
            outcomes["opened"] += 1
        except InputError as error:
            outcomes["refused"] += 1
            if "\n" in str(error):
                findings.append(f"execution {number}: a message of several lines")
        except Exception as error:  # whatever it is, it is a finding
            findings.append(f"execution {number}: {type(error).__name__}: {error}")
    return {
        "executions": executions, "seed": seed, **outcomes, "documents_read": documents, "findings": findings
    }  # fmt: skip


def _sound(name: str, lengths: tuple[int, ...], prefix: str) -> Pair:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    write_index(prefix + ".idx", np.dtype(name), np.array(lengths), starts, np.arange(len(lengths) + 1))
    return Path(prefix + ".idx").read_bytes(), np.arange(starts[-1]).astype(name).tobytes()


def _mutated(pair: Pair, generator: random.Random) -> Pair:
    index, content = bytearray(pair[0]), bytearray(pair[1])
    for _ in range(generator.choice((1, 1, 1, 2, 3, 8))):
        kind = generator.randrange(10)
        if kind < 4 and len(index) >= 38:  # a number of the header or of an array becomes an interesting one
            offset = generator.choice((9, 18, 26, 34 + 4 * generator.randrange((len(index) - 34) // 4)))
            value = generator.choice(_INTERESTING) + generator.choice((0, 0, 1, -1))
            size = generator.choice((4, 8))
            index[offset : offset + size] = struct.pack("<Q", value % 2**64)[:size]
        elif kind == 4 and len(index) > 17:
            index[17] = generator.randrange(256)
        elif kind == 5 and index:
            index[generator.randrange(len(index))] ^= 1 << generator.randrange(8)
        elif kind == 6:
            _resize(index, generator)
        elif kind == 7:
            _resize(content, generator)
        elif kind == 8 and index:
            first, second = sorted(generator.randrange(len(index)) for _ in range(2))
            at = generator.randrange(len(index))
            index[at : at + second - first] = index[first:second]
        elif content:
            content[generator.randrange(len(content))] = generator.randrange(256)
    return bytes(index), bytes(content)


def _resize(data: bytearray, generator: random.Random) -> None:
    if generator.random() < 0.5:
        del data[generator.randrange(len(data) + 1) :]
    else:
        data += generator.randbytes(generator.choice((1, 2, 4, 8, 20, 64)))


def _read_everything(prefix: str, content: bytes) -> int:
    """Read all that ``verify`` and a loader would; returns the number of documents."""
    told: list[Fault] = []
    layout = read_layout(prefix, told.append)
    if layout is not None:
        check_doc_idx(Path(prefix + ".idx"), layout, told.append, told.append)
    if any("\n" in fault.message for fault in told):
        raise AssertionError("a message of several lines")
    dataset = IndexedDataset.open(prefix)
    read = b"".join(dataset.document(i).tobytes() for i in range(dataset.num_documents))
    if read != content:
        raise AssertionError("the documents are not the file")
    return dataset.num_documents


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=20_000, metavar="N", help="datasets to try (default: 20000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _EXTRA_MEMORY, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    shared_memory = Path("/dev/shm")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=shared_memory if os.access(shared_memory, os.W_OK) else None) as folder:
        result = fuzz(args.executions, args.seed, folder)
    seconds = time.monotonic() - started
    print(
        json.dumps({**result, "seconds": round(seconds, 1), "executions_per_second": round(args.executions / seconds)})
    )
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
