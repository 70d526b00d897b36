"""The inspector's page in headless Chromium, and the rate and memory of ``ifguide mask-stats``.

    python benchmarks/inspection.py [--documents 1000] [--tokens 1000] [--stats-tokens 1e8] [--output FILE.json]

Makes a synthetic corpus in a temporary folder (7 bytes a token), prints JSON. Switching is timed from the key to the
frame after it, so it includes layout and paint.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import report, run_child
from tests.browser import CHROMIUM, Tab, browser

_SWITCHES = 60
_VOCABULARY = 4096
# from a key, or a change of the search box, to the end of the frame that shows it
_FRAME = """new Promise((done) => {{
    const started = performance.now();
    {action};
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - started)));
}})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=1000, metavar="N", help="in each document (default: 1000)")
    parser.add_argument("--stats-tokens", type=float, default=1e8, metavar="N", help="for mask-stats (default: 1e8)")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="for the temporary folder")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON here")
    parser.add_argument("--generate", nargs=3, metavar=("PREFIX", "DOCUMENTS", "TOKENS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.generate:
        generate(Path(args.generate[0]), int(args.generate[1]), int(args.generate[2]))
        return
    folder = Path(tempfile.mkdtemp(prefix="inspection-", dir=args.workdir))
    try:
        result = {
            "page": page(folder, args.documents, args.tokens),
            "mask_stats": stats(folder, int(args.stats_tokens)),
        }
    finally:
        shutil.rmtree(folder)
    report("inspection", result, args.output)


def generate(prefix: Path, num_documents: int, length: int) -> None:
    """Tokens, scores and a mask with runs of selected tokens, and a tokenizer whose tokens are words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from ifguide.data.aligned import write_aligned
    from ifguide.data.indexed import TokenDataset, write_index

    generator = np.random.default_rng(0)
    lengths = np.full(num_documents, length)
    starts = np.arange(num_documents + 1) * length
    with open(f"{prefix}.bin", "wb") as stream:
        for _ in range(num_documents):
            stream.write((generator.zipf(1.3, length) % _VOCABULARY).astype(np.uint16).tobytes())
    write_index(f"{prefix}.idx", np.uint16, lengths, starts, np.arange(num_documents + 1))
    tokens = TokenDataset.open(prefix)
    scores = (generator.standard_t(3, length).astype(np.float32) for _ in range(num_documents))
    write_aligned(f"{prefix}_scores", tokens, scores, np.float32, {})
    mask = (
        np.repeat(generator.random(-(-length // 3)) < 0.04, 3)[:length].astype(np.uint8) for _ in range(num_documents)
    )
    write_aligned(f"{prefix}_mask", tokens, mask, np.uint8, {"encoding": "binary", "threshold": 3.0})
    letters = np.array(list("etaoinshrdlucmf"))
    words = {"".join(generator.choice(letters, generator.integers(1, 9))) + str(number): number
             for number in range(_VOCABULARY)}  # fmt: skip
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=next(iter(words))))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(f"{prefix}_tokenizer.json")


def page(folder: Path, num_documents: int, length: int) -> dict[str, Any]:
    """Seconds to write the page; milliseconds until it can be used, to switch and to search."""
    prefix = folder / "page"
    run_child([__file__, "--generate", prefix, str(num_documents), str(length)])
    written = run_child(
        ["-m", "ifguide.cli", "inspect", "--data", prefix, "--mask", f"{prefix}_mask", "--scores", f"{prefix}_scores",
         "--tokenizer-type", "HFTokenizer", "--vocab-file", f"{prefix}_tokenizer.json", "--top", str(num_documents),
         "--html", folder / "page.html"]
    )  # fmt: skip
    result: dict[str, Any] = {
        "documents": num_documents,
        "tokens_per_document": length,
        "megabytes": round((folder / "page.html").stat().st_size / 1e6, 1),
        "seconds_to_write": round(written.seconds, 2),
        "peak_rss_mb": round(written.peak_rss / 1e6),
    }
    if CHROMIUM is None:
        return result | {"browser": "none on this machine"}
    with browser(folder / "profile") as tab:
        tab.resize(1280, 800)
        tab.open((folder / "page.html").as_uri())
        loaded = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        result["browser"] = tab.call("Browser.getVersion")["product"]
        result["ms_until_interactive"] = round(tab.run(loaded), 1)
        result["ms_to_show_the_documents"] = round(frame(tab, "document.getElementById('enter').click()"), 1)
        count = min(_SWITCHES, num_documents - 1)
        tab.call("Performance.enable", timeDomain="threadTicks")
        before = busy(tab)
        switches = [frame(tab, key("j")) for _ in range(count)]
        result["ms_to_switch_of_processor_time"] = round(1000 * (busy(tab) - before) / count, 1)
        result["ms_to_switch"] = {"median": round(statistics.median(switches), 1), "max": round(max(switches), 1)}
        search = (
            "const box = document.getElementById('search'); box.value = 'ta'; box.dispatchEvent(new Event('input'))"
        )
        result["ms_to_search"] = round(frame(tab, search), 1)
        assert tab.complaints == [], tab.complaints
    return result


def busy(tab: Tab) -> float:
    """Processor seconds of the page's main thread so far: what other work on this machine does not change."""
    return next(row["value"] for row in tab.call("Performance.getMetrics")["metrics"] if row["name"] == "TaskDuration")


def frame(tab: Tab, action: str) -> float:
    return tab.run(_FRAME.format(action=action))


def key(name: str) -> str:
    return f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(name)}, bubbles: true}}))"


def stats(folder: Path, num_tokens: int) -> dict[str, Any]:
    prefix = folder / "stats"
    run_child([__file__, "--generate", prefix, str(num_tokens // 1000), "1000"])
    started = time.perf_counter()
    done = run_child(
        ["-m", "ifguide.cli", "mask-stats", "--mask", f"{prefix}_mask", "--data", prefix, "--scores",
         f"{prefix}_scores", "--json"], XDG_CACHE_HOME=str(folder / "cache"),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return {
        "tokens": num_tokens,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(num_tokens / seconds),
        "peak_rss_mb": round(done.peak_rss / 1e6),
    }


if __name__ == "__main__":
    main()
