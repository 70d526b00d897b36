"""How fast `ifguide verify` checks a corpus: hashing-free, as it is for files that the sidecars know, and --deep.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/verify.py [--gigabytes 1] [--output FILE]

Writes uint16 tokens, a mask and scores of that many bytes together, and times `verify` in this process on one
core, with the files in the page cache. Prints JSON: median seconds, GB/s, GB per second of processor time (for
machines with other work to do), and the peak memory of one run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import report, run_child, time_alternating
from ifguide.data.aligned import write_aligned
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset, write_index
from ifguide.data.sidecar import file_states
from ifguide.data.verify import verify
from ifguide.system.files import write_json

_LENGTH = 1000  # tokens of a document
_VOCABULARY = 50_000
_BYTES = 7  # of a token: uint16 id, uint8 code, float32 score
_PIECE = 1 << 20


def make_corpus(folder: Path, gigabytes: float) -> tuple[str, str, str]:
    """Prefixes of the tokens, the mask and the scores."""
    documents = int(gigabytes * 1e9 / _BYTES) // _LENGTH
    total = documents * _LENGTH
    data, mask, scores = (str(folder / name) for name in ("data", "mask", "scores"))
    generator = np.random.default_rng(0)
    ids = generator.integers(0, _VOCABULARY, _PIECE, dtype=np.uint16)
    with open(data + ".bin", "wb") as stream:
        for begin in range(0, total, _PIECE):
            stream.write(ids[: total - begin].data)
    starts = np.arange(documents + 1) * _LENGTH
    write_index(data + ".idx", np.uint16, np.diff(starts), starts, np.arange(documents + 1))
    tokens = TokenDataset.open(data)
    write_json(
        data + ".json",
        {
            "format_version": 1,
            "kind": "tokens",
            "tokenizer": {"identity": "0" * 64, "vocab_size": _VOCABULARY},
            "fingerprint": fingerprint(tokens),
            "files": file_states(data + ".idx", data + ".bin"),
        },
    )
    values = generator.normal(size=_PIECE).astype(np.float32)
    for prefix, piece, sidecar in ((mask, (values > 2).astype(np.uint8), {"encoding": "binary"}), (scores, values, {})):
        pieces = (piece[: total - begin] for begin in range(0, total, _PIECE))
        write_aligned(prefix, tokens, pieces, piece.dtype, sidecar)
    return data, mask, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of all .bin files together (default: 1)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where the corpus is written and removed again (default: a temporary folder)")
    parser.add_argument("--output", help="also write the JSON here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        os.environ["XDG_CACHE_HOME"] = name
        data, mask, scores = make_corpus(Path(name), args.gigabytes)

        processor: dict[bool, list[float]] = {False: [], True: []}

        def check(deep: bool) -> None:
            started = time.process_time()
            assert not verify(data, [mask], [scores], deep=deep).faults
            processor[deep].append(time.process_time() - started)

        size = sum(Path(f"{prefix}.bin").stat().st_size for prefix in (data, mask, scores))
        child = run_child(["-m", "ifguide.cli", "verify", "--data", data, "--mask", mask, "--scores", scores])
        timings = time_alternating({"verify": lambda: check(False), "deep": lambda: check(True)}, args.repeats)
    results = {
        kind: {
            **timing.as_dict(),
            "gb_per_second": round(size / 1e9 / timing.median, 2),
            "gb_per_processor_second": round(size / 1e9 / statistics.median(processor[kind == "deep"]), 2),
        }
        for kind, timing in timings.items()
    }
    report("verify", {"bytes": size, **results, "peak_rss_mb": round(child.peak_rss / 1e6)}, args.output)


if __name__ == "__main__":
    main()
