"""Many processes on one scoring run: waiting for shards, the folder of shards, and how long a start takes.

    python benchmarks/ranks.py --workdir DIR [--sections waits folder start] [--documents 3e6] [--output FILE.json]

waits   processes that no launcher numbers, and shards that only sleep: seconds until all are done
folder  milliseconds of one write into a folder that holds so many shards
start   a start of 64 ranks (8 a machine) on 3e11 tokens, simulated: pieces are measured here on a sparse dataset, and
        added up by the model in `Model`

"before" is how it was done before: written out here where the product no longer has it. Prints JSON, and Markdown
tables on stderr. All of it takes less than a minute of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import markdown_table, median_time, report, run_child

PROCESSES, SHARDS, SECONDS = 4, 12, 0.5
FOLDERS = (2_000, 10_000, 40_000)
TOKENS_PER_DOCUMENT = 700
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


@dataclass(frozen=True)
class Pieces:
    """What was measured here, in seconds per unit."""

    read_index: float  # per document: lengths, starts and doc_idx into memory
    map_index: float  # per document: the same checks, arrays left on disk
    all_windows: float  # per document: every window, the largest batch, the shards
    cut_shards: float  # per document: the same shards and batch, no windows
    read_tokens: float  # per token: smallest and largest id
    hash: float  # per byte
    eigen: float  # per cube of a side, float64: one layer's cut to a rank is a Gram matrix and this
    stat: float  # of one file that is looked for
    take_lock: float  # of a free one


@dataclass(frozen=True)
class Model:
    """A start: what each rank does beside the others, and what one does after the other.

    Left out on both sides: importing torch, reading the weights (the file system's speed), the queries' gradients and
    the search of the step, which only the first start makes. Processors are as fast as here; ``gpu`` times as fast is
    the cut to a rank on a GPU, the ratio of float64 peaks that is assumed.
    """

    ranks: int = 64
    tokens: float = 3e11
    documents: float = 3e11 / TOKENS_PER_DOCUMENT
    hidden: int = 2048
    layers: int = 16
    gpu: float = 100.0

    @property
    def weights_bytes(self) -> float:
        return 4 * (12 * self.hidden**2 * self.layers + 2 * 50304 * self.hidden)

    @property
    def direction_bytes(self) -> float:
        return 4 * 12 * self.hidden**2 * self.layers

    @property
    def factors_bytes(self) -> float:
        """EK-FAC: U_A, U_G and Λ of four layers a block, in units of H²: 1+9+3, 1+1+1, 1+16+4, 16+1+4."""
        return 4 * 58 * self.hidden**2 * self.layers

    def cut(self, pieces: Pieces) -> float:
        """All layers cut to a rank on a processor: four eigendecompositions of side H a block."""
        return 4 * self.layers * pieces.eigen * self.hidden**3

    def before(self, pieces: Pieces, rank: bool) -> dict[str, float]:
        """Seconds until the last rank scores, all directions and methods being there."""
        shards = self.tokens / (1 << 18)
        alone = {
            "index": pieces.read_index * self.documents,
            "windows and shards": pieces.all_windows * self.documents,
            "check of the tokens": pieces.read_tokens * self.tokens,
            "hash of weights and factors": pieces.hash * (self.weights_bytes + self.factors_bytes),
            "look for shards": 2 * pieces.stat * shards,
        }
        in_turn = {"hash of v": self.ranks * pieces.hash * self.direction_bytes}
        if rank:
            in_turn["cut to a rank"] = self.ranks * self.cut(pieces)
        return {**alone, **in_turn}

    def after(self, pieces: Pieces, rank: bool, first: bool) -> dict[str, float]:
        """The same; ``first``: nothing is known but what `preprocess` writes beside the data, so one rank hashes and
        cuts what there is, while the others wait."""
        from ifguide.influence.shards import shard_tokens_for

        shards = self.tokens / shard_tokens_for(int(self.tokens))
        found = {
            "index": pieces.map_index * self.documents,
            "windows and shards": pieces.cut_shards * self.documents,
            "look for shards": pieces.stat * shards / 1000,
            "locks": pieces.take_lock,
        }
        if first:
            found["hash of weights and factors"] = pieces.hash * (self.weights_bytes + self.factors_bytes)
            found["hash of v"] = pieces.hash * self.direction_bytes
            if rank:
                found["cut to a rank"] = self.cut(pieces) / self.gpu
        return found


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
                "first start": model.after(pieces, rank, first=True),
                "later start": model.after(pieces, rank, first=False),
            }
            key = name + (", --rank" if rank else "")
            seconds[key] = {way: {**parts, "all": sum(parts.values())} for way, parts in made.items()}
            rows.append([key, *(f"{sum(parts.values()):,.0f}" for parts in made.values())])
    sys.stderr.write(markdown_table(["64 ranks, 3e11 tokens", "before, s", "first start, s", "later start, s"], rows))
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
    from ifguide.influence.windows import Cutting
    from ifguide.system.files import hash_file
    from ifguide.system.locks import locked

    read, dataset = _seconds(lambda: TokenDataset.open(prefix))
    mapping, mapped = _seconds(lambda: TokenDataset.open(prefix, mapped=True))

    def all_windows() -> None:
        windows = Cutting(dataset, 0, 2048, 512).whole()
        largest_batch(windows, 16 * 2048)
        plan_shards(windows, 1 << 18)

    def shards_alone() -> None:
        cutting = Cutting(mapped, 0, 2048, 512)
        largest_batch(cutting, 16 * 2048)
        plan_shards(cutting, 1 << 23)

    whole, _ = _seconds(all_windows)
    alone, _ = _seconds(shards_alone)
    tokens = np.asarray(dataset.tokens[: 1 << 26])
    ends, _ = _seconds(lambda: (int(tokens.max()), int(tokens.min())))
    content = workdir / "content"
    content.write_bytes(bytes(1 << 26))
    hashing, _ = _seconds(lambda: hash_file(content))
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
        read_index=read / documents,
        map_index=mapping / documents,
        all_windows=whole / documents,
        cut_shards=alone / documents,
        read_tokens=ends / len(tokens),
        hash=hashing / (1 << 26),
        eigen=eigen / side**3,
        stat=stats / 2000,
        take_lock=locking / 100,
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
