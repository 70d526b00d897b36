"""Scores on disk -> mask: seconds and memory of ``ifguide build-mask`` at several sizes, and of the literal loop.

    python benchmarks/selection.py --workdir DIR [--tokens 1e7 1e8 1e9] [--cases token line within] [--output FILE.json]

Makes synthetic tokens and scores in DIR (8 bytes a token with mask and boundaries), deletes each size when it is
measured, prints JSON, and a Markdown table on stderr. Cases: token is Algorithm 1 (M3), the others
select by spans (M3b) or tokens within them (M3c). The ratio to the literal loop compares CPU seconds per token.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import markdown_table, report, run_child

EOD = 0
_LITERAL_TOKENS = 1_000_000
_CHUNK = 1 << 20
_LINE_TOKENS, _SENTENCE_TOKENS = 60, 20
CASES = {
    "token": [],
    "line": ["--span", "line"],
    "sentence": ["--span", "sentence"],
    "window": ["--span", "window:10"],
    "within": ["--span", "sentence", "--tokens-within", "0.5"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="where the synthetic files go for the time being")
    parser.add_argument("--tokens", type=float, nargs="+", default=[1e7, 1e8, 1e9], metavar="N")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="runs at each size; medians count")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="what is selected (default: all)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON here")
    parser.add_argument("--generate", nargs=2, metavar=("PREFIX", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--literal", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.generate:
        generate(Path(args.generate[0]), int(args.generate[1]))
    elif args.literal:
        print(json.dumps(literal_rate()))
    elif args.workdir is None:
        parser.error("--workdir DIR is needed")
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """All children: the parent stays small, for its memory counts in theirs until they start."""
    literal = json.loads(run_child([__file__, "--literal"]).output)
    rows = []
    for tokens in map(int, args.tokens):
        folder = Path(tempfile.mkdtemp(prefix="selection-", dir=args.workdir))
        try:
            run_child([__file__, "--generate", folder / "data", str(tokens)], XDG_CACHE_HOME=str(folder / "cache"))
            for case in args.cases:
                runs = [build(folder, case) for _ in range(args.repeats)]
                row = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2] | {"case": case, "tokens": tokens}
                if case == "token":
                    ratio = (tokens / row["cpu_seconds"]) / (literal["tokens"] / literal["cpu_seconds"])
                    row["times_the_literal_loop"] = float(f"{ratio:.3g}")
                rows.append(row)
        finally:
            shutil.rmtree(folder)
    report("selection", {"literal_loop": literal, "build_mask": rows}, args.output)
    table = [
        (row["case"], f"{row['tokens']:.0e}", row["seconds"], row["cpu_seconds"], f"{row['peak_rss_gb']:.2f}",
         row.get("times_the_literal_loop", ""))
        for row in rows
    ]  # fmt: skip
    print(
        markdown_table(["case", "tokens", "seconds", "CPU seconds", "peak GB", "x literal loop"], table),
        file=sys.stderr,
    )


def build(folder: Path, case: str) -> dict[str, Any]:
    """One run of the command, its interpreter's start included."""
    arguments = [
        "-m",
        "ifguide.cli",
        "build-mask",
        "--scores",
        folder / "data_scores",
        "--output",
        folder / case,
        *CASES[case],
    ]
    child = run_child([*arguments, "--json"], XDG_CACHE_HOME=str(folder / "cache"))
    result = json.loads(child.output)
    return {
        "seconds": round(child.seconds, 2),
        "cpu_seconds": round(child.cpu_seconds, 2),
        "peak_rss_gb": round(child.peak_rss / 1e9, 3),
        "documents": int(json.loads((folder / "data.json").read_text())["documents"]),
        **{key: result[key] for key in ("units", "toxic", "spans", "spans_selected") if key in result},
        "selected": result["selected"],
    }


def lengths_of(tokens: int, generator: Any) -> Any:
    """Log-normal lengths (median 400, mean 660 tokens) of documents with ``tokens`` tokens in all, int64."""
    import numpy as np

    lengths = np.maximum(generator.lognormal(6, 1, tokens // 500 + 10).astype(np.int64), 1)
    ends = np.cumsum(lengths)
    count = int(np.searchsorted(ends, tokens))
    return np.append(lengths[:count], tokens - (ends[count - 1] if count else 0))


def generate(prefix: Path, tokens: int) -> None:
    """Tokens ``prefix`` whose documents end with `EOD`, and heavy-tailed scores ``prefix_scores``."""
    import numpy as np

    from ifguide.data.aligned import write_aligned
    from ifguide.data.indexed import TokenDataset, write_index
    from ifguide.data.passages.boundaries import RULES, boundaries_prefix
    from ifguide.data.sidecar import BOUNDARIES

    generator = np.random.default_rng(0)
    lengths = lengths_of(tokens, generator)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    with open(f"{prefix}.bin", "wb") as stream:
        for begin in range(0, tokens, _CHUNK):
            end = min(begin + _CHUNK, tokens)
            ids = generator.integers(1, 50_000, end - begin, dtype=np.uint16)
            ends = starts[1:][np.searchsorted(starts[1:], begin + 1) : np.searchsorted(starts[1:], end, side="right")]
            ids[ends - 1 - begin] = EOD
            stream.write(ids.data)
    write_index(f"{prefix}.idx", np.uint16, lengths, starts, np.arange(len(starts)))
    sidecar = {"format_version": 1, "kind": "tokens", "tokenizer": {"eod": EOD}, "documents": len(lengths)}
    Path(f"{prefix}.json").write_text(json.dumps(sidecar))
    normal = (
        generator.standard_normal(min(_CHUNK, tokens - begin), dtype=np.float32) for begin in range(0, tokens, _CHUNK)
    )
    marks = (_marks(generator, min(_CHUNK, tokens - begin)) for begin in range(0, tokens, _CHUNK))
    data = TokenDataset.open(prefix)
    write_aligned(boundaries_prefix(prefix), data, marks, np.uint8, {"rules": RULES}, BOUNDARIES)
    write_aligned(f"{prefix}_scores", data, (x * x * x for x in normal), np.float32, {})


def _marks(generator: Any, size: int) -> Any:
    """Boundaries of lines and sentences at random places, uint8[size]."""
    import numpy as np

    draw = generator.random(size, dtype=np.float32)
    return ((draw < 1 / _SENTENCE_TOKENS) * 2 + (draw < 1 / _LINE_TOKENS)).astype(np.uint8)


def literal_rate() -> dict[str, Any]:
    """CPU seconds of the plain loop that the tests compare with, scores in memory."""
    import numpy as np

    from tests.selection.literal import literal_algorithm_1

    generator = np.random.default_rng(0)
    lengths = lengths_of(_LITERAL_TOKENS, generator)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    scores = generator.standard_normal(_LITERAL_TOKENS, dtype=np.float32) ** 3
    eod = np.zeros(_LITERAL_TOKENS, bool)
    eod[starts[1:] - 1] = True
    started = time.process_time()
    literal_algorithm_1(scores, starts, 0.99, 1, _LITERAL_TOKENS // 50, 2048, eod)
    return {"tokens": _LITERAL_TOKENS, "cpu_seconds": round(time.process_time() - started, 3)}


if __name__ == "__main__":
    main()
