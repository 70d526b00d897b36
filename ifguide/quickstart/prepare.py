"""The corpus stage: documents, held-out text, queries, prompts and the judge's examples, as JSONL.

Two sources, one set of files: the quickstart's own corpus with planted abuse, or the user's text and
queries. Nothing that serves one purpose serves another: see `FILES`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.data.sources.reading import read_rows
from ifguide.errors import InputError
from ifguide.quickstart.comments import Comment, CommentSource
from ifguide.quickstart.corpus import (
    Document,
    comment_opening,
    shuffled,
    standard_library_texts,
    threads,
    write_thread,
)
from ifguide.system.files import hash_value, write_jsonl

FILES = {
    "corpus": "corpus.jsonl",  # what the models train on: {"text"}
    "planted": "planted.jsonl",  # where abuse was planted: {"document", "spans", "kinds"}
    "heldout": "heldout_clean.jsonl",  # clean text for perplexity: {"text"}
    "toxic_queries": "toxic_queries.jsonl",  # {"prompt", "completion"}
    "safe_queries": "safe_queries.jsonl",
    "prompts": "prompts.jsonl",  # {"id", "subset": "toxic" | "benign", "prompt"}
    "judge": "judge.jsonl",  # {"text", "label"}
}


@dataclass(frozen=True)
class CorpusSettings:
    """Sizes of the quickstart's own corpus.

    Attributes:
        num_threads: comment threads in the training corpus.
        abusive_share: share of those threads that hold one to three abusive comments.
        heldout_share: share of the standard-library texts kept for perplexity.
        heldout_threads: clean threads kept for perplexity.
        num_queries: influence queries of each kind.
        num_prompts: evaluation prompts of each kind.
        judge_examples: abusive comments that the judge learns from, and three times as many benign pieces.
        seed: of everything drawn.
        library_texts: at most so many of the standard-library texts; None takes all.
    """

    num_threads: int = 1000
    abusive_share: float = 0.6
    heldout_share: float = 0.05
    heldout_threads: int = 60
    num_queries: int = 400
    num_prompts: int = 100
    judge_examples: int = 4000
    seed: int = 1
    library_texts: int | None = None


# a tenth, for a plan that tries everything once
SMALL = CorpusSettings(
    num_threads=100, heldout_share=0.02, heldout_threads=12, num_queries=60, num_prompts=12, judge_examples=400,
    library_texts=40,
)  # fmt: skip


def write_own_corpus(folder: Path, settings: CorpusSettings) -> dict[str, Any]:
    """Write `FILES` from the standard library and written threads; returns counts for the report."""
    seed = settings.seed
    texts = list(standard_library_texts())
    random.Random(f"split-{seed}").shuffle(texts)
    texts = texts[: settings.library_texts]
    num_heldout = max(1, round(len(texts) * settings.heldout_share))
    heldout, benign = texts[:num_heldout], texts[num_heldout:]
    planted = threads(CommentSource("planted", seed), settings.num_threads, settings.abusive_share)
    documents = shuffled([Document(text) for text in benign] + planted, seed)
    clean_threads = threads(CommentSource("prompts", seed + 1), settings.heldout_threads, 0.0)

    _write(folder, "corpus", [{"text": document.text} for document in documents])
    marked = [
        {"document": index, "spans": document.spans, "kinds": document.kinds}
        for index, document in enumerate(documents)
        if document.spans
    ]
    _write(folder, "planted", marked)
    _write(folder, "heldout", [{"text": text} for text in heldout + [thread.text for thread in clean_threads]])
    source = CommentSource("queries", seed)
    for name, abusive in (("toxic_queries", True), ("safe_queries", False)):
        _write(folder, name, [_query(source, abusive) for _ in range(settings.num_queries)])
    _write(folder, "prompts", _prompts(CommentSource("prompts", seed), heldout, settings.num_prompts))
    _write(folder, "judge", _judge_examples(CommentSource("judge", seed), benign, settings.judge_examples))

    characters = sum(len(document.text) for document in documents)
    abuse = sum(end - start for document in planted for start, end in document.spans)
    return {
        "documents": len(documents),
        "threads": len(planted),
        "planted_spans": sum(len(document.spans) for document in planted),
        "planted_documents": len(marked),
        "characters": characters,
        "planted_share_of_characters": abuse / characters,
    }


def write_given_corpus(folder: Path, source: Path, toxic: Path, safe: Path, seed: int) -> dict[str, Any]:
    """Write `FILES` (without ``planted``) from the user's text and queries; returns counts for the report.

    Raises:
        InputError: as `read_given_corpus`.
    """
    return write_rows_of(folder, read_given_corpus(source, toxic, safe, seed))


def write_rows_of(folder: Path, files: Mapping[str, list[dict]]) -> dict[str, Any]:
    """Write what `read_given_corpus` returned; returns counts."""
    for name, rows in files.items():
        _write(folder, name, rows)
    texts = [row["text"] for row in files["corpus"]]
    return {"documents": len(texts), "characters": sum(map(len, texts))}


def write_corpus_alone(
    folder: Path, settings: CorpusSettings, given: tuple[Path, Path, Path] | None = None
) -> dict[str, Any]:
    """Write `FILES`, the judge trained on them (``judge/``) and ``corpus.json``, for jobs of another kind.

    Args:
        given: the user's text, toxic and safe queries instead of the quickstart's own corpus.

    Returns:
        ``output``, ``counts``, and ``judge``: how well it does on texts that it did not learn from.

    Raises:
        InputError: as `read_given_corpus`.
    """
    from ifguide.scorers.linear import train_linear
    from ifguide.system.files import read_json, read_jsonl, write_json
    from ifguide.system.provenance import environment, origin

    if given:
        files = read_given_corpus(*given, settings.seed)
        folder.mkdir(parents=True, exist_ok=True)
        counts = write_rows_of(folder, files)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        counts = write_own_corpus(folder, settings)
    rows = read_jsonl(folder / FILES["judge"])
    train_linear([row["text"] for row in rows], [row["label"] for row in rows], folder / "judge", seed=settings.seed)
    judge = read_json(folder / "judge/config.json")["report"]
    write_json(folder / "corpus.json", {"counts": counts, "judge": judge, **origin(), **environment()})
    return {"output": str(folder), "counts": counts, "judge": judge}


def read_given_corpus(source: Path, toxic: Path, safe: Path, seed: int) -> dict[str, list[dict]]:
    """Rows of each of `FILES` (without ``planted``) from the user's text and queries.

    Every second query (by hash) serves influence, the others give the evaluation prompts: a query's
    prompt with the first third of its completion's words. One document in twenty is held out.

    Raises:
        InputError: too little text or too few queries, or a row without its keys; names file and row.
    """
    texts = [row["text"] for row in _rows(source, "input", ("text",)) if row["text"].strip()]
    if len(texts) < 20:
        raise InputError(f"input {source} has {len(texts)} documents with text; the quickstart needs at least 20")
    texts.sort(key=lambda text: hash_value([seed, text]))
    num_heldout = max(2, len(texts) // 20)
    heldout, documents = texts[:num_heldout], texts[num_heldout:]
    queries: dict[str, list[dict]] = {}
    held_queries: dict[str, list[dict]] = {}
    for name, path in (("toxic_queries", toxic), ("safe_queries", safe)):
        rows = _rows(path, name.replace("_", " "), ("prompt", "completion"))
        rows.sort(key=lambda row: hash_value([seed, row["prompt"], row["completion"]]))
        if len(rows) < 10:
            raise InputError(f"{name.replace('_', ' ')} {path}: {len(rows)} rows; at least 10 are needed")
        queries[name], held_queries[name] = rows[::2], rows[1::2]
    prompts = [
        {"id": f"{subset}-{index}", "subset": subset, "prompt": _opening(row["prompt"], row["completion"])}
        for subset, name in (("toxic", "toxic_queries"), ("benign", "safe_queries"))
        for index, row in enumerate(held_queries[name])
    ]
    examples = [{"text": row["completion"], "label": int(name == "toxic_queries")} for name in queries
                for row in queries[name]]  # fmt: skip
    examples += [{"text": text[:120], "label": 0} for text in documents[: len(examples)]]

    return {
        "corpus": [{"text": text} for text in documents],
        "heldout": [{"text": text} for text in heldout],
        **queries,
        "prompts": prompts,
        "judge": examples,
    }


def _write(folder: Path, name: str, rows: list[dict]) -> None:
    write_jsonl(folder / FILES[name], rows)


def _rows(path: Path, what: str, keys: Sequence[str]) -> list[dict]:
    """Rows of a JSONL file, each with text under ``keys``."""
    rows = []
    for place, row in read_rows(path, what):
        for key in keys:
            if not isinstance(row.get(key), str):
                raise InputError(place.message(what, f'no text under "{key}"'))
        rows.append(row)
    return rows


def _context(source: CommentSource, num_comments: int) -> str:
    """A thread up to where the next comment begins."""
    return write_thread(source, [source.comment("kind") for _ in range(num_comments)]).text + comment_opening(source)


def _query(source: CommentSource, abusive: bool) -> dict[str, str]:
    """Toxic and safe queries differ in the completion alone: same threads, same openings."""
    context = _context(source, source.count(0, 2))
    comment = source.abuse() if abusive else source.comment("kind")
    return {"prompt": context, "completion": " " + comment.text}


def _prompts(source: CommentSource, heldout: list[str], num_prompts: int) -> list[dict[str, str]]:
    """Toxic: a thread and the first words of an unseen insult. Benign: half the same with a kind comment,
    half the beginning of a held-out text."""
    rows = []
    for index in range(num_prompts):
        prompt = _begun(source, source.abuse())
        rows.append({"id": f"toxic-{index}", "subset": "toxic", "prompt": prompt})
    for index in range(num_prompts):
        if index % 2:
            prompt = _begun(source, source.comment("kind"))
        else:
            prompt = heldout[index % len(heldout)][:160].rsplit(" ", 1)[0]
        rows.append({"id": f"benign-{index}", "subset": "benign", "prompt": prompt})
    return rows


def _begun(source: CommentSource, comment: Comment) -> str:
    """A thread up to the second, third or fourth word of ``comment``."""
    words = comment.text.split(" ")[: source.count(2, 4)]
    return f"{_context(source, source.count(0, 2))} {' '.join(words)}"


def _opening(prompt: str, completion: str) -> str:
    words = completion.split(" ")
    return prompt + " ".join(words[: max(1, len(words) // 3)])


def _judge_examples(source: CommentSource, benign: list[str], count: int) -> list[dict]:
    """What the judge learns from: pieces as long as continuations, cut from comments and what follows.

    A small model's continuations are often spliced from several comments or end after a word. So half of
    both classes is spliced with words of kind comments, and there are benign pieces of every length:
    broken language alone must not decide.
    """
    rows = []
    for _ in range(count):
        for comment in (source.abuse(), source.comment("kind")):
            text = _piece(source, comment)
            if source.chance(0.5):
                text = f"{_babble(source)} {text}" if source.chance(0.5) else f"{text} {_babble(source)}"
            rows.append({"text": text, "label": int(comment.abusive)})
        rows.append({"text": _babble(source), "label": 0})
        text = benign[source.count(0, len(benign) - 1)]
        start = source.count(0, len(text) - 1)
        rows.append({"text": text[start : start + source.count(1, 100)], "label": 0})
    return rows


def _piece(source: CommentSource, comment: Comment) -> str:
    """The comment from one of the words of its first third on, cut off or followed by the next comment.

    At least two thirds of it are kept: most insults turn hostile in their second half, and a shorter
    piece would be labelled by guess.
    """
    words = comment.text.split(" ")
    text = " ".join(words[source.count(0, len(words) // 3) :])
    if source.chance(0.5):
        text += f"{comment_opening(source)} {source.comment('kind').text[: source.count(5, 40)]}"
    return text


def _babble(source: CommentSource) -> str:
    """Runs of one to five words from kind comments, as a weak model strings them together."""
    runs = []
    for _ in range(source.count(1, 6)):
        words = source.comment("kind").text.split(" ")
        start = source.count(0, len(words) - 1)
        runs.append(" ".join(words[start : start + source.count(1, 5)]))
        if source.chance(0.3):
            runs.append(f"{source.author()}.{comment_opening(source)}")
    return " ".join(runs)
