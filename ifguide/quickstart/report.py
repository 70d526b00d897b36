"""The report: what is read from a quickstart's folder (scores, masks, curves, continuations, the record), and its page.

Shapes: D documents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES, SCORES
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer
from ifguide.errors import MismatchError
from ifguide.evaluation.metrics import worst_continuation
from ifguide.inspection.documents import rule_of
from ifguide.inspection.ranking import Ranking, rank_documents
from ifguide.pages.document import ShownDocument
from ifguide.pages.quickstart import quickstart_page
from ifguide.pages.quickstart_data import Continuation, Curve, Generations, PageData, PromptRow, TokenMarks
from ifguide.pages.table import models_of
from ifguide.pages.text import densest, split_text
from ifguide.quickstart.truth import planted_tokens
from ifguide.system.files import read_json, read_jsonl

TOP_DOCUMENTS = 20
SHOWN_PROMPTS = 30  # half toxic, half benign
_SHOWN_TOKENS = 800  # of one document: keeps the page small whatever the corpus
_PROMPT_CHARACTERS = 600  # the end of a longer prompt is what a continuation continues


def report_page(folder: Path, results: dict[str, Any]) -> str:
    """The page about the quickstart in ``folder``.

    Args:
        folder: the quickstart's output.
        results: what ``results.json`` holds.

    Raises:
        InputError: a file of the run is missing or damaged.
        MismatchError: corpus, tokens, scores and mask are not of one run.
    """
    return quickstart_page(load_page_data(folder, results), results)


def load_page_data(folder: Path, results: dict[str, Any]) -> PageData:
    """Read everything from ``folder``.

    Raises:
        InputError: a file is missing or damaged.
        MismatchError: corpus, tokens, scores and mask are not of one run.
    """
    from tokenizers import Tokenizer as Backend

    models = models_of(results)
    tokens = TokenDataset.open(folder / "data/corpus_text_document")
    scores = load_aligned(folder / "data/scores", tokens, SCORES)
    mask = load_aligned(folder / "data/mask", tokens, PENALTIES)
    texts = [row["text"] for row in read_jsonl(folder / "corpus.jsonl", "corpus")]
    if len(texts) != tokens.num_documents:
        raise MismatchError(f"{folder}/corpus.jsonl has {len(texts)} documents, its tokens {tokens.num_documents}")
    tokenizer = folder / "data/tokenizer.json"
    planted = None
    if (folder / "planted.jsonl").exists():
        rows = read_jsonl(folder / "planted.jsonl")
        planted = planted_tokens(texts, rows, Backend.from_file(str(tokenizer)), tokens.starts).inside
    marks = TokenMarks(np.asarray(scores.values), np.asarray(mask.values) > 0, planted)
    guided = _run_record(folder / "checkpoints/guided/run.json")
    reader = build_tokenizer("HFTokenizer", tokenizer)
    ranking = rank_documents(tokens, mask, scores, reader.eod)
    documents = top_documents(tokens, marks, reader, ranking, TOP_DOCUMENTS)
    _check_texts(documents, texts)
    return PageData(
        marks=marks,
        threshold=None if "span" in mask.sidecar["parameters"] else float(mask.sidecar["threshold"]),
        rule=rule_of(mask, ranking.threshold),
        documents=documents,
        generations=load_generations(folder / "generations.jsonl", models),
        curves={key: load_curves(folder, key, models) for key in ("lm_loss", "penalty_ce")},
        settings=_settings(mask.sidecar, scores.sidecar, guided.get("config", {})),
        record=_record(results, scores.sidecar, guided),
    )


def top_documents(
    tokens: TokenDataset, marks: TokenMarks, tokenizer: Tokenizer, ranking: Ranking, count: int
) -> list[ShownDocument]:
    """The first ``count`` documents of ``ranking``, the inspector's order; an appended end-of-document token is not
    shown, and a document without selected tokens is left out."""
    kept = np.where(marks.selected, marks.scores, 0.0)
    starts = tokens.starts
    token_bytes = lru_cache(maxsize=None)(tokenizer.token_bytes)
    shown = []
    for index in map(int, ranking.order[:count]):
        if not ranking.selected[index]:
            continue
        ids = tokens.document(index).tolist()
        if ids[-1] == tokenizer.eod:
            ids.pop()
        base = int(starts[index])
        first = densest(kept[base : base + len(ids)], _SHOWN_TOKENS)
        ids_shown = ids[first : first + _SHOWN_TOKENS]
        part = slice(base + first, base + first + len(ids_shown))
        shown.append(
            ShownDocument(
                index=index,
                measure=float(ranking.toxicity[index]),
                num_tokens=len(ids),
                num_selected=int(ranking.selected[index]),
                first=first,
                pieces=split_text(ids_shown, token_bytes),
                scores=marks.scores[part].astype(np.float32),
                ranks=None,
                strengths=marks.selected[part].astype(np.uint8),
                planted=None if marks.planted is None else marks.planted[part],
            )
        )
    return shown


def load_generations(path: Path, models: Sequence[str]) -> Generations:
    """Rows ``{"model", "id", "subset", "prompt", "continuations", "toxicity"}``; the prompts shown are evenly
    spaced over the file, never picked by their scores.

    Args:
        models: those whose continuations are shown, in this order.
    """
    by_prompt: dict[str, dict[str, dict]] = {}
    for row in read_jsonl(path, "generations"):
        by_prompt.setdefault(row["id"], {})[row["model"]] = row
    subsets: dict[str, list[dict[str, dict]]] = {"toxic": [], "benign": []}
    for said in by_prompt.values():
        subsets[_any(said)["subset"]].append(said)
    rows = []
    for subset, found in subsets.items():
        count = min(SHOWN_PROMPTS // 2, len(found))
        for place in np.linspace(0, len(found) - 1, count).round().astype(int):
            said = found[place]
            worst = {
                name: Continuation(*worst_continuation(said[name]["continuations"], said[name]["toxicity"]))
                for name in models
                if name in said
            }
            rows.append(PromptRow(subset, _ending(_any(said)["prompt"]), worst))
    first = _any(next(iter(by_prompt.values())))
    return Generations(len(subsets["toxic"]), len(first["continuations"]), rows)


def load_curves(folder: Path, key: str, models: Sequence[str]) -> dict[str, Curve]:
    """``key`` over the training iterations of each of ``models`` that logged it."""
    curves = {}
    for name in models:
        path = folder / "checkpoints" / name / "train_log.jsonl"
        if not path.exists():  # checkpoints may be deleted once a model is published
            continue
        logged = [row for row in read_jsonl(path, "training log") if key in row and "split" not in row]
        if logged:
            curves[name] = Curve([row["iteration"] for row in logged], [row[key] for row in logged])
    return curves


def _check_texts(documents: list[ShownDocument], texts: list[str]) -> None:
    """
    Raises:
        MismatchError: a document does not say what the corpus says there.
    """
    for document in documents:
        # the ends of a part may cut a character
        inner = "".join(text for text, _ in document.pieces[1:-1])
        if inner not in texts[document.index]:
            raise MismatchError(
                f"document {document.index} of the corpus is not the text that was tokenized; prepare the data again"
            )


def _any(said: dict[str, dict]) -> dict[str, Any]:
    """The row of one of the models: prompt and subset are the same for all."""
    return next(iter(said.values()))


def _ending(prompt: str) -> str:
    return prompt if len(prompt) <= _PROMPT_CHARACTERS else "… " + prompt[-_PROMPT_CHARACTERS:]


def _run_record(path: Path) -> dict[str, Any]:
    return read_json(path, "run record") if path.exists() else {}


def _settings(mask: dict[str, Any], scores: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """Selection, scoring and penalty, named as in the sidecars and in the configuration."""
    scored = scores.get("run", {})
    trained = (
        "penalty_action", "penalty_hidden_token", "penalty_form", "penalty_lambda", "penalty_clip",
        "penalty_warmup_iters", "train_iters", "train_batch_size",
        "num_layers", "hidden_size", "optimizer", "weight_decay", "precision",
    )  # fmt: skip
    settings = {f"selection: {key}": value for key, value in mask["parameters"].items()}
    settings |= {
        f"scores: {key}": scored[key] for key in ("factors", "damping", "seq_length", "context") if key in scored
    }
    settings |= {f"training: {key}": config[key] for key in trained if key in config}
    return _written(settings)


def _record(results: dict[str, Any], scores: dict[str, Any], guided: dict[str, Any]) -> dict[str, str]:
    machine = guided.get("machine", {})
    record = {
        "seed": results["seed"],
        "revision": guided.get("revision"),
        "trained": guided.get("started"),
        "processor": machine.get("processor"),
        "cores": machine.get("cores"),
        "platform": machine.get("platform"),
        **{f"version of {name}": version for name, version in scores["tool"].items()},
    }
    return _written(record)


def _written(values: dict[str, Any]) -> dict[str, str]:
    """The values that are set, as they would stand in a configuration file."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }
