"""Many processes on one scoring run: waiting for shards, the folder of shards, and how long a start takes.

    python benchmarks/ranks.py --workdir DIR [--sections waits folder start] [--documents 3e6] [--output FILE.json]

waits   processes that no launcher numbers, and shards that only sleep: seconds until all are done
folder  milliseconds of one write into a folder that holds so many shards
start   a start of 64 ranks (8 a machine) on 3e11 tokens, simulated: pieces are measured here on a sparse dataset, and
        added up by the model in `start_model.py`

"before" is how it was done before: written out here where the product no longer has it. Prints JSON, and Markdown
tables on stderr. All of it takes less than a minute of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import REPOSITORY, markdown_table, median_time, report, run_child
from benchmarks.start_model import Model, Pieces

PROCESSES, SHARDS, SECONDS = 4, 12, 0.5
FOLDERS = (2_000, 10_000, 40_000)
# of hidden states and MLPs of GPT-NeoX of these names: H, layers
SHAPES = {"160M": (768, 12), "1B": (2048, 16), "2.8B": (2560, 32), "12B": (5120, 36)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="where files go for the time being")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--documents", type=float, default=3e6, metavar="N", help="of the sparse dataset")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="that a shard sleeps")
    parser.add_argument("--folders", nargs="+", type=int, default=FOLDERS, metavar="N", help="shards in a folder")
    parser.add_argument("--output", metavar="FILE")
    parser.add_argument("--memory-of", choices=("read", "mapped"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(memory_of(args.workdir / "d", args.memory_of)))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
        for section in args.sections:
            found[section] = SECTIONS[section](Path(folder), args)
    report("ranks", found, args.output)


def waits(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds until all shards are done."""
    found: dict[str, Any] = {"processes": PROCESSES, "shards": SHARDS, "seconds_of_a_shard": args.seconds}
    import ifguide.influence.shards  # noqa: F401  what is timed is no import

    context = get_context("fork")
    for name, way in (("before", _wait_for_each), ("after", _take_free_ones)):
        (folder / name).mkdir()
        processes = [context.Process(target=way, args=(folder / name, args.seconds)) for _ in range(PROCESSES)]
        started = time.perf_counter()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found[name] = round(time.perf_counter() - started, 2)
    found["least_possible"] = SHARDS * args.seconds / PROCESSES
    rows = [[f"{PROCESSES} processes, {SHARDS} shards of {args.seconds} s", found["before"], found["after"]]]
    sys.stderr.write(markdown_table(["", "before, s", "after, s"], rows) + "\n\n")
    return found


def _store_and_shards(folder: Path) -> tuple[Any, list[Any]]:
    from ifguide.influence.shard_store import ShardStore
    from ifguide.influence.shards import Shard

    return ShardStore(folder / "parts", {}), [Shard(n, slice(n, n + 1), n, n + 1, n) for n in range(SHARDS)]


def _take_free_ones(folder: Path, seconds: float) -> None:
    from ifguide.influence.shards import Share, work

    store, shards = _store_and_shards(folder)
    work(store, shards, Share(), lambda shard, on_tokens: _sleep(seconds), quiet=True)


def _wait_for_each(folder: Path, seconds: float) -> None:
    """As it was: everybody is rank 0 of 1, and stands before the same lock."""
    from ifguide.influence.shards import turn

    store, shards = _store_and_shards(folder)
    for shard in shards:
        if not store.finished(shard.number):
            with turn(store.lock(shard.number)):
                if not store.finished(shard.number):
                    store.write(shard.number, _sleep(seconds))


def _sleep(seconds: float) -> Any:
    import numpy as np

    time.sleep(seconds)
    return np.zeros((1, 1), np.float32)


def folder(workdir: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a write into a folder of so many shards; each writes and moves one small file."""
    from ifguide.influence.shard_store import ShardStore

    rows, found = [], []
    for count in args.folders:
        flat = workdir / f"flat-{count}"
        flat.mkdir()
        store = ShardStore(workdir / f"sub-{count}", {})
        for number in range(count):
            (flat / f"part-{number:06d}.npy").touch()
        for number in range(0, count, 1000):
            store.lock(number)  # makes the subfolder
            for each in range(number, min(count, number + 1000)):
                (store.folder / f"{number // 1000:04d}" / f"part-{each:06d}.npy").touch()
        before = _milliseconds(lambda flat=flat: _list_and_write(flat))
        after = _milliseconds(lambda store=store: store.write(0, _sleep(0)))
        found.append({"shards": count, "before_ms": before, "after_ms": after})
        rows.append([f"{count:,} shards", before, after])
    sys.stderr.write(markdown_table(["one write", "before, ms", "after, ms"], rows) + "\n\n")
    return {"writes": found}


def _list_and_write(flat: Path) -> None:
    """As it was: every write lists the folder for what killed writers left."""
    from ifguide.influence.shard_store import ShardStore

    for path in flat.iterdir():
        if path.name.startswith(".part-000000.npy.") and path.name.endswith(".tmp"):
            raise AssertionError("nothing was killed here")
    if not (flat / "0000").exists():
        (flat / "0000").mkdir()
    store = ShardStore.__new__(ShardStore)
    store.folder, store._flat, store._finished = flat, set(), set()
    store.write(0, _sleep(0))


def _milliseconds(work: Callable[[], object]) -> float:
    return round(1e3 * median_time(work, repeats=15).median, 2)


def start(workdir: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The simulated start, and the memory of a rank at a hundred million documents."""
    count = int(args.documents)
    prefix = _sparse_dataset(workdir / "d", count)
    pieces = _measure(prefix, count, workdir)
    seconds, rows = {}, []
    for name, (hidden, layers) in SHAPES.items():
        model = Model(hidden=hidden, layers=layers)
        for rank in (False, True):
            made = {
                "before": model.before(pieces, rank),
                "first start until lately": model.after(pieces, rank, first=True, mended=False),
                "first start": model.after(pieces, rank, first=True),
                "later start": model.after(pieces, rank, first=False),
            }
            key = name + (", --rank" if rank else "")
            seconds[key] = {way: {**parts, "all": sum(parts.values())} for way, parts in made.items()}
            rows.append([key, *(f"{sum(parts.values()):,.0f}" for parts in made.values())])
    header = ["64 ranks, 3e11 tokens", "before, s", "first start until lately, s", "first start, s", "later start, s"]
    sys.stderr.write(markdown_table(header, rows))
    parts = {name: seconds[name]["first start"] for name in SHAPES}
    rows = [[part, *(f"{each[part]:,.0f}" for each in parts.values())] for part in next(iter(parts.values()))]
    sys.stderr.write("\n\n" + markdown_table(["a first start, s", *parts], rows))
    memory = {}
    for way in ("read", "mapped"):
        child = run_child(["benchmarks/ranks.py", "--workdir", workdir, "--memory-of", way], OMP_NUM_THREADS="1")
        memory[way] = json.loads(child.output)
    per_document = {way: (found["held"] - found["empty"]) / count for way, found in memory.items()}
    gigabytes = {way: round(each * 1e8 / 1e9, 2) for way, each in per_document.items()}
    rows = [["index, windows, shards", gigabytes["read"], gigabytes["mapped"]]]
    sys.stderr.write("\n\n" + markdown_table(["a rank at 1e8 documents", "before, GB", "after, GB"], rows) + "\n")
    return {
        "documents_measured": count,
        "pieces": asdict(pieces),
        "model": asdict(Model()),
        "seconds": seconds,
        "memory": memory,
        "gb_at_1e8_documents": gigabytes,
    }


def _sparse_dataset(prefix: Path, documents: int) -> Path:
    """An index of documents of many lengths; the tokens are a hole in a file."""
    import numpy as np

    from ifguide.data.indexed import write_index

    lengths = np.random.default_rng(0).lognormal(5.9, 1.2, documents).astype(np.int64).clip(1, 100_000)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    write_index(f"{prefix}.idx", np.uint16, lengths, starts, np.arange(documents + 1))
    with open(f"{prefix}.bin", "wb") as stream:
        stream.truncate(2 * int(starts[-1]))
    return prefix


def _measure(prefix: Path, documents: int, workdir: Path) -> Pieces:
    import numpy as np
    import torch

    from ifguide.data.indexed import TokenDataset
    from ifguide.influence.passes.checks import largest_batch
    from ifguide.influence.shard_store import ShardStore
    from ifguide.influence.shards import found_or_made, plan_shards
    from ifguide.influence.tensors import all_finite
    from ifguide.influence.windows import Cutting
    from ifguide.system.files import hash_file, hash_pieces
    from ifguide.system.locks import locked

    few = _sparse_dataset(workdir / "few", documents // 4)

    def slope(work: Callable[[Path], object]) -> float:
        """Seconds per document: what a large dataset adds, without what any takes."""
        work(few)  # the first of its kind meets pages that nobody has touched
        less, _ = _seconds(lambda: work(few))
        more, _ = _seconds(lambda: work(prefix))
        return max(0.0, more - less) / (documents - documents // 4)

    def all_windows(prefix: Path) -> None:
        windows = Cutting(TokenDataset.open(prefix), 0, 2048, 512).whole()
        largest_batch(windows, 16 * 2048)
        plan_shards(windows, 1 << 18)

    def shards_alone(prefix: Path) -> None:
        cutting = Cutting(TokenDataset.open(prefix, mapped=True), 0, 2048, 512)
        largest_batch(cutting, 16 * 2048)
        plan_shards(cutting, 1 << 23)

    read = slope(lambda prefix: TokenDataset.open(prefix))
    mapping = slope(lambda prefix: TokenDataset.open(prefix, mapped=True))
    whole, alone = slope(all_windows) - read, slope(shards_alone) - mapping
    dataset = TokenDataset.open(prefix)
    tokens = np.asarray(dataset.tokens[: 1 << 26])
    ends, _ = _seconds(lambda: (int(tokens.max()), int(tokens.min())))
    content = workdir / "content"
    content.write_bytes(bytes(1 << 26))
    hashing, _ = _seconds(lambda: hash_file(content))
    in_pieces, _ = _seconds(lambda: hash_pieces(content))
    numbers = torch.zeros(1 << 24)
    isfinite, _ = _seconds(lambda: bool(torch.isfinite(numbers).all()))
    by_ends, _ = _seconds(lambda: all_finite(numbers))
    convert, _ = _seconds(lambda: numbers.to(torch.float64))
    imported = "import time, torch, ifguide.influence.score, transformers.modeling_utils; print(time.process_time())"
    run = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    side = 512
    matrix = torch.randn(side, 4 * side, dtype=torch.float64)
    eigen, _ = _seconds(lambda: torch.linalg.eigh(matrix @ matrix.T))
    store = ShardStore(workdir / "looked-at", {})
    stats, _ = _seconds(lambda: [store.finished(number) for number in range(2000)])

    def lock() -> None:
        with locked(workdir / "lock"):
            pass

    locking, _ = _seconds(lambda: [lock() for _ in range(100)])
    assert found_or_made(workdir / "lock", lambda: True, lambda: False)
    return Pieces(
        read_index=read,
        map_index=mapping,
        all_windows=whole,
        cut_shards=alone,
        read_tokens=ends / len(tokens),
        hash=hashing / (1 << 26),
        hash_pieces=in_pieces / (1 << 26),
        finite=isfinite / numbers.nbytes,
        finite_ends=by_ends / numbers.nbytes,
        convert=convert / numbers.nbytes,
        eigen=eigen / side**3,
        stat=stats / 2000,
        take_lock=locking / 100,
        imports=float(run.stdout),
    )


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Of the processor: other work on the machine counts for nothing."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def memory_of(prefix: Path, way: str) -> dict[str, int]:
    """Bytes of this process that no other shares, before and while it holds index, windows and shards."""
    from ifguide.data.indexed import TokenDataset
    from ifguide.influence.passes.checks import largest_batch
    from ifguide.influence.shards import plan_shards
    from ifguide.influence.windows import Cutting

    found = {"empty": _own_bytes()}
    dataset = TokenDataset.open(prefix, mapped=way == "mapped")
    windows: Any = Cutting(dataset, 0, 2048, 512)
    if way == "read":
        windows = windows.whole()
    largest_batch(windows, 16 * 2048)
    shards = plan_shards(windows, 1 << 18 if way == "read" else 1 << 23)
    found["held"] = _own_bytes()
    assert shards
    return found


def _own_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


SECTIONS = {"waits": waits, "folder": folder, "start": start}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
