"""The case of real text: articles and threads of labelled tweets, queries, prompts and held-out text, by a seed.

A tweet serves one purpose only: the corpus, the queries, the prompts of the evaluation, or the held-out harmless text.
An article serves the corpus or the held-out prose. The method sees the corpus and the queries; the labels of the
corpus' tweets are kept beside, as character spans, for the quality of masks and the mask of the labels themselves.

    python benchmarks/real_text_case.py --data FOLDER --seed 21 --output runs/case
"""

from __future__ import annotations

import argparse
import html
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from ifguide.system.files import write_json, write_jsonl

FILES = {
    "corpus": "corpus.jsonl",  # {"text"}
    "abuse": "abuse.jsonl",  # {"document", "spans"}: where the tweets labelled hateful or offensive are
    "toxic_queries": "toxic_queries.jsonl",
    "safe_queries": "safe_queries.jsonl",
    "more_toxic_queries": "more_toxic_queries.jsonl",  # the same and as many more: for a better proxy
    "more_safe_queries": "more_safe_queries.jsonl",
    "prompts": "prompts.jsonl",  # the first 40 % of the words of abusive tweets
    "prose": "prose.jsonl",  # held-out articles
    "tweets": "tweets.jsonl",  # held-out threads of harmless tweets
    "judge_check": "judge_check.jsonl",  # {"text", "label"}: on which the judges' own quality is measured
}
_TITLE = re.compile(r"^ = [^=].* = $")
_PIECE = 2400  # characters: a long article makes several documents
_THREAD = (3, 7)
_PROMPT_SHARE = 0.4


@dataclass(frozen=True)
class CaseSettings:
    """Sizes.

    Attributes:
        abuse_share: of the corpus' characters, in tweets that people labelled hateful or offensive.
        queries: of each kind; twice as many are kept for a better proxy.
        prompts: of the evaluation.
        heldout_tweets: harmless ones, for perplexity.
        heldout_articles: share of the articles, for perplexity.
    """

    abuse_share: float = 0.0615
    queries: int = 250
    prompts: int = 150
    heldout_tweets: int = 300
    heldout_articles: float = 0.06


def write_case(folder: Path, data: Path, seed: int, settings: CaseSettings) -> dict[str, int | float]:
    """Write `FILES` into ``folder``; returns counts."""
    draw = random.Random(seed)
    rows = [json.loads(line) for line in (data / "tweets.jsonl").read_text(encoding="utf-8").splitlines()]
    texts: dict[bool, list[str]] = {True: [], False: []}
    for row in rows:
        text = plain(row["text"])
        if len(text.split()) > 4:
            texts[row["label"] != "neither"].append(text)
    abuse, harmless = (list(dict.fromkeys(texts[kind])) for kind in (True, False))
    articles = [piece for name in ("valid", "test") for piece in pieces(data / f"wikitext2-{name}.txt")]
    for some in (abuse, harmless, articles):
        draw.shuffle(some)

    twice = 2 * settings.queries
    queries = {True: _take(abuse, twice), False: _take(harmless, twice)}
    prompts = _take(abuse, settings.prompts)
    heldout = _take(harmless, settings.heldout_tweets)
    check = _take(abuse, settings.prompts)
    prose = _take(articles, round(len(articles) * settings.heldout_articles))
    # all articles and harmless tweets that are left, and as much abuse as makes the share
    clean = sum(map(len, articles)) + sum(map(len, harmless))
    wanted = settings.abuse_share * clean / (1 - settings.abuse_share)
    planted: list[str] = []
    while abuse and sum(map(len, planted)) < wanted:
        planted.append(abuse.pop())

    tweets = [(True, text) for text in planted] + [(False, text) for text in harmless]
    draw.shuffle(tweets)
    documents: list[list[tuple[bool, str]]] = [[(False, text)] for text in articles] + _threads(tweets, draw)
    draw.shuffle(documents)
    corpus, spans = [], []
    for number, document in enumerate(documents):
        text, inside = "", []
        for labelled, piece in document:
            if labelled:
                inside.append((len(text), len(text) + len(piece)))
            text += piece + "\n"
        corpus.append({"text": text})
        if inside:
            spans.append({"document": number, "spans": inside})
    written = {
        "corpus": corpus,
        "abuse": spans,
        "prompts": [
            {"id": f"toxic-{n}", "subset": "toxic", "prompt": query(text)["prompt"]} for n, text in enumerate(prompts)
        ],
        "prose": [{"text": text} for text in prose],
        "tweets": [
            {"text": "".join(text + "\n" for _, text in thread)}
            for thread in _threads([(False, text) for text in heldout], draw)
        ],
        "judge_check": [{"text": text, "label": 1} for text in check]
        + [{"text": text, "label": 0} for text in heldout],
    }
    for kind, name in ((True, "toxic_queries"), (False, "safe_queries")):
        written[name] = [query(text) for text in queries[kind][: settings.queries]]
        written[f"more_{name}"] = [query(text) for text in queries[kind]]
    for name, lines in written.items():
        write_jsonl(folder / FILES[name], lines)
    characters = sum(len(row["text"]) for row in corpus)
    counts = {
        "documents": len(corpus),
        "characters": characters,
        "abusive_tweets": len(planted),
        "harmless_tweets": len(harmless),
        "abuse_share_of_characters": sum(map(len, planted)) / characters,
    }
    write_json(folder / "case.json", counts)
    return counts


def plain(text: str) -> str:
    """A tweet on one line, its HTML entities read: raw ones take a fifth of a mask (``--ignore-pattern`` is for those
    who cannot clean their text)."""
    return " ".join(html.unescape(html.unescape(text)).split())


def query(text: str) -> dict[str, str]:
    """The first 40 % of a text's words as the prompt, the rest as the completion."""
    words = text.split(" ")
    cut = max(1, round(len(words) * _PROMPT_SHARE))
    return {"prompt": " ".join(words[:cut]), "completion": " " + " ".join(words[cut:])}


def pieces(path: Path) -> list[str]:
    """Documents of a WikiText file: articles, the long ones cut between paragraphs."""
    found: list[str] = []
    current = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if _TITLE.match(line) or len(current) > _PIECE:
            found.append(current)
            current = ""
        if line.strip():
            current += line.strip() + "\n"
    return [text.strip() for text in [*found, current] if text.strip()]


def _take(texts: list[str], count: int) -> list[str]:
    taken, texts[:] = texts[:count], texts[count:]
    return taken


def _threads(tweets: list[tuple[bool, str]], draw: random.Random) -> list[list[tuple[bool, str]]]:
    threads = []
    place = 0
    while place < len(tweets):
        size = draw.randint(*_THREAD)
        threads.append(tweets[place : place + size])
        place += size
    return threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="of the labelled tweets and the articles"
    )
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    print(json.dumps(write_case(args.output, args.data, args.seed, CaseSettings())))


if __name__ == "__main__":
    main()
