"""The estimated share of abuse against the true one, on corpora of articles and labelled tweets.

    python benchmarks/share.py --workdir DIR --tweets tweets.jsonl --articles a.txt b.txt [--shares 0 0.02 0.06]
        [--seeds 1 2 3 4 5] [--output FILE.json]

tweets.jsonl has ``text`` and ``label``: ``neither`` is harmless, every other label abuse. A classifier of 250 + 250 of
them scores a corpus of known share, and clean text that shares nothing with it. Prints JSON, and a Markdown table on
stderr. Skips, with the reason, without the two files.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import markdown_table, report

QUERIES = 250
_PARAGRAPHS, _THREAD = 4, (3, 7)  # paragraphs of an article, tweets of a thread
_SHORTEST_PARAGRAPH = 100

Texts = list[tuple[bool, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workdir", type=Path, required=True, metavar="DIR", help="for the corpora, for the time being"
    )
    parser.add_argument("--tweets", type=Path, metavar="FILE")
    parser.add_argument("--articles", type=Path, nargs="+", metavar="FILE", default=[], help="text, a paragraph a line")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.005, 0.02, 0.06, 0.12], metavar="S")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON here")
    args = parser.parse_args()
    if args.tweets is None or not args.tweets.is_file() or not args.articles:
        print("skipped: name labelled tweets with --tweets and articles with --articles", file=sys.stderr)
        return
    rows = []
    for share in args.shares:
        for seed in args.seeds:
            folder = Path(tempfile.mkdtemp(prefix="share-", dir=args.workdir))
            try:
                rows.append(estimate(folder, args.tweets, args.articles, share, seed))
            finally:
                shutil.rmtree(folder)
    covered = sum(row["low"] <= row["truth"] <= row["high"] for row in rows)
    report("share", {"runs": rows, "covered": covered}, args.output)
    table = [
        (f"{row['truth']:.2%}", row["seed"], f"{row['share']:.2%}", f"{row['low']:.2%}", f"{row['high']:.2%}",
         f"{row['safe_queries_share']:.2%}", f"{row['roc_auc']:.3f}")
        for row in rows
    ]  # fmt: skip
    heads = ["true", "seed", "estimate", "low", "high", "by the safe queries", "cross-validated ROC-AUC"]
    print(markdown_table(heads, table), file=sys.stderr)
    print(f"{covered} of {len(rows)} intervals hold the truth", file=sys.stderr)


def estimate(folder: Path, tweets: Path, articles: list[Path], share: float, seed: int) -> dict[str, Any]:
    """One corpus of this share of abuse, by characters, and what is estimated."""
    draw = random.Random(seed)
    labelled = [json.loads(line) for line in tweets.read_text(encoding="utf-8").splitlines() if line.strip()]
    abuse = [plain(row["text"]) for row in labelled if row["label"] != "neither"]
    harmless = [plain(row["text"]) for row in labelled if row["label"] == "neither"]
    lines = [line.strip() for path in articles for line in path.read_text(encoding="utf-8").splitlines()]
    paragraphs = [line for line in lines if len(line) > _SHORTEST_PARAGRAPH]
    for texts in (abuse, harmless, paragraphs):
        draw.shuffle(texts)
    for name, texts in (("toxic", abuse[:QUERIES]), ("safe", harmless[:QUERIES])):
        write(folder / f"{name}.jsonl", [query(text) for text in texts if len(text.split()) > 3])
    abuse, harmless = abuse[QUERIES:], harmless[QUERIES:]
    half, middle = len(paragraphs) // 2, len(harmless) // 2
    size = sum(map(len, paragraphs[half:])) + sum(map(len, harmless[middle:]))
    wanted = size * share / (1 - share)
    chosen: list[str] = []
    while abuse and wanted > 0:
        chosen.append(abuse.pop())
        wanted -= len(chosen[-1]) + 1
    truth = corpus(folder / "corpus.jsonl", paragraphs[half:], harmless[middle:], chosen, draw)
    corpus(folder / "clean.jsonl", paragraphs[:half], harmless[:middle], [], draw)
    quality = run("train-classifier", "--toxic-queries", folder / "toxic.jsonl", "--safe-queries",
                  folder / "safe.jsonl", "--output", folder / "classifier")  # fmt: skip
    for name in ("corpus", "clean"):
        run("preprocess", "--input", folder / f"{name}.jsonl", "--output-prefix", folder / name, "--tokenizer-type",
            "CharLevelTokenizer", "--append-eod", "--spans")  # fmt: skip
        run("score-text", "--data", folder / f"{name}_text_document", "--scorer", f"linear:{folder / 'classifier'}",
            "--output", folder / f"{name}_scores")  # fmt: skip
    asked = ["mask-stats", "--estimate", "--scores", folder / "corpus_scores", "--seed", seed]
    found = run(*asked, "--clean-data", folder / "clean_scores")["estimate"]
    return {
        "seed": seed,
        "truth": truth,
        **{key: found[key] for key in ("share", "low", "high", "observed", "false_positive_rate", "documents")},
        "safe_queries_share": run(*asked)["estimate"]["share"],
        **{key: quality[key] for key in ("roc_auc", "true_positive_rate", "calibration_error")},
    }


def corpus(path: Path, paragraphs: list[str], harmless: list[str], abuse: list[str], draw: random.Random) -> float:
    """Articles and threads in random order; returns the share of bytes that are abuse, newlines with their lines."""
    documents: list[Texts] = [
        [(False, text) for text in paragraphs[start : start + _PARAGRAPHS]]
        for start in range(0, len(paragraphs), _PARAGRAPHS)
    ]
    posts = [(False, text) for text in harmless] + [(True, text) for text in abuse]
    draw.shuffle(posts)
    while posts:
        size = draw.randint(*_THREAD)
        documents.append(posts[:size])
        posts = posts[size:]
    draw.shuffle(documents)
    write(path, [{"text": "\n".join(text for _, text in document)} for document in documents])
    sizes = [(is_abuse, len(text.encode()) + 1) for document in documents for is_abuse, text in document]
    return sum(size for is_abuse, size in sizes if is_abuse) / sum(size for _, size in sizes)


def plain(text: str) -> str:
    """On one line, as a corpus would hold it."""
    return " ".join(text.split())


def query(text: str) -> dict[str, str]:
    """The first 40 % of the words, and the others."""
    words = text.split()
    cut = max(1, int(len(words) * 0.4))
    return {"prompt": " ".join(words[:cut]), "completion": " " + " ".join(words[cut:])}


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(*words: Any) -> dict[str, Any]:
    """The command in this process, and its result."""
    from ifguide.cli import main as command

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        code = command([*map(str, words), "--json"])
    if code:
        raise SystemExit(f"{words[0]}: exit code {code}")
    return json.loads(said.getvalue())


if __name__ == "__main__":
    main()
