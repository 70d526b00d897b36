"""How fast text comes in: JSON lines, .zst and Parquet, read alone and through `ifguide preprocess`.

    OMP_NUM_THREADS=1 python benchmarks/data_in.py [--megabytes 20] [--text FILE] [--workers 1 2] [--folder DIR]
        [--output FILE]

Writes the same documents in each kind (``--megabytes 1000`` for 1 GB; all numbers are of characters of text, not of
bytes as stored). They are synthetic, or those of ``--text``, again and again: each time another fiftieth of the words
gets a number behind it, so that neither a compressor nor a tokenizer has seen the documents before. Trains a tokenizer
on a part of them, and runs each case in a process of its own. Prints JSON: seconds, MB/s, MB/s a worker, MB per second
of processor time of all processes together (for machines with other work to do), and the most memory that one of the
processes held. Fails if two cases give other tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import markdown_table, report, run_child
from ifguide.data.sources.names import find_sources
from ifguide.data.sources.reading import read_batches

KINDS = ("jsonl", "zst", "parquet")
_POOL = 10_000_000  # characters of documents that differ; beyond the window of zstandard, so that it finds no copies
_GROUP = 1000  # rows of a row group
_APART = 50  # words between two that get a number
_READ = """
import sys
from ifguide.data.sources.names import find_sources
from ifguide.data.sources.reading import read_batches
size = 0
for batch in read_batches(find_sources(sys.argv[1:]), ["text"]):
    for _, text in batch.texts(["text"]):
        size += len(text)
print(size)
"""


def documents(characters: int) -> list[str]:
    """About so many characters, in documents of 300 words on average, of 50,000 words as frequent as Zipf's."""
    drawn = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(drawn.choice(letters, size)) for size in drawn.integers(2, 11, 50_000)]
    share = 1 / np.arange(1, len(words) + 1)
    found, size = [], 0
    while size < characters:
        picked = drawn.choice(len(words), drawn.integers(50, 550), p=share / share.sum())
        found.append(" ".join(words[index] for index in picked))
        size += len(found[-1])
    return found


def texts_of(path: str) -> list[str]:
    """The documents of a file, read as ``ifguide preprocess`` reads it."""
    batches = read_batches(find_sources([path]), ["text"])
    found = [text for batch in batches for _, text in batch.texts(["text"]) if isinstance(text, str)]
    if not found:
        raise SystemExit(f"{path} has no text")
    return found


def cycle(pool: list[str], characters: int) -> Iterator[str]:
    """The documents of ``pool`` again and again, never twice the same, until they are ``characters`` long."""
    size = 0
    for number in itertools.count():
        for text in pool:
            if size >= characters:
                return
            if number:
                words = text.split(" ")
                words[number % _APART :: _APART] = [f"{word}{number}" for word in words[number % _APART :: _APART]]
                text = " ".join(words)
            size += len(text)
            yield text


def write(folder: Path, pool: list[str], characters: int) -> tuple[dict[str, Path], float]:
    """The file of each of `KINDS`, and the characters in it in millions."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    paths = {"jsonl": folder / "a.jsonl", "zst": folder / "a.jsonl.zst", "parquet": folder / "a.parquet"}
    schema = pa.schema([("text", pa.string()), ("source", pa.string())])
    with (
        paths["jsonl"].open("wb") as plain,
        zstandard.open(paths["zst"], "wb") as packed,
        pq.ParquetWriter(paths["parquet"], schema, compression="zstd") as table,
    ):
        rows: list[dict[str, str]] = []
        size = 0
        for text in cycle(pool, characters):
            size += len(text)
            rows.append({"text": text, "source": "benchmark"})
            line = json.dumps(rows[-1]).encode() + b"\n"
            plain.write(line)
            packed.write(line)
            if len(rows) == _GROUP:
                table.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            table.write_table(pa.Table.from_pylist(rows, schema))
    return paths, size / 1e6


def measured(kind: str, what: str, path: Path, child: Any, seconds: float, megabytes: float, workers: int) -> dict:
    return {
        "kind": kind,
        "work": what,
        "workers": workers,
        "stored_mb": round(path.stat().st_size / 1e6, 1),
        "seconds": round(seconds, 3),
        "mb_per_second": round(megabytes / seconds, 4),
        "mb_per_second_a_worker": round(megabytes / seconds / workers, 4),
        "mb_per_processor_second": round(megabytes / child.cpu_seconds, 4),
        "peak_rss_mb": round(child.peak_rss / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20.0, help="of text (default: 20)")
    parser.add_argument("--text", metavar="FILE", help="documents to repeat (default: synthetic ones)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of preprocess (default: 1 2)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--vocab-size", type=int, default=8192, help="of the tokenizer (default: 8192)")
    parser.add_argument("--folder", help="where everything is written and removed again (default: a temporary folder)")
    parser.add_argument("--output", help="also write the JSON here")
    args = parser.parse_args()
    characters = int(args.megabytes * 1e6)
    results, hashes = [], set()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        pool = texts_of(args.text) if args.text else documents(min(_POOL, characters))
        paths, megabytes = write(folder, pool, characters)
        with (folder / "sample.jsonl").open("w") as stream:
            stream.writelines(json.dumps({"text": text}) + "\n" for text in pool[:1000])
        run_child([
            "-m", "ifguide.cli", "train-tokenizer", "--input", folder / "sample.jsonl", "--vocab-size",
            args.vocab_size, "--output", folder / "tokenizer",
        ])  # fmt: skip
        for kind in args.kinds:
            child = run_child(["-c", _READ, paths[kind]], XDG_CACHE_HOME=name)
            assert int(child.output) == round(megabytes * 1e6)
            results.append(measured(kind, "read", paths[kind], child, child.seconds, megabytes, 1))
            for workers in args.workers:
                child = run_child([
                    "-m", "ifguide.cli", "preprocess", "--input", paths[kind], "--vocab-file", folder / "tokenizer",
                    "--append-eod", "--workers", workers, "--output-prefix", folder / f"{kind}{workers}", "--json",
                ], XDG_CACHE_HOME=name)  # fmt: skip
                said = json.loads(child.output)
                hashes.add(said["content_hash"])
                results.append(measured(kind, "preprocess", paths[kind], child, said["seconds"], megabytes, workers))
    if len(hashes) > 1:
        raise SystemExit("the cases gave different tokens")
    columns = ("kind", "work", "workers", "seconds", "mb_per_second", "mb_per_second_a_worker",
               "mb_per_processor_second", "peak_rss_mb")  # fmt: skip
    print(markdown_table(columns, [[row[key] for key in columns] for row in results]), file=sys.stderr)
    report("data_in", {"text_mb": round(megabytes, 1), "cases": results}, args.output)


if __name__ == "__main__":
    main()
