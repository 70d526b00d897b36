"""What the report reads from a quickstart's folder: scores, masks, curves, continuations, the record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES, SCORES
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.errors import MismatchError
from ifguide.pages.documents import ShownDocument, TokenMarks, top_documents
from ifguide.pages.table import MODELS
from ifguide.quickstart.truth import planted_tokens
from ifguide.system.files import read_json, read_jsonl

TOP_DOCUMENTS = 20
SHOWN_PROMPTS = 30  # half toxic, half benign
_PROMPT_CHARACTERS = 600  # the end of a longer prompt is what a continuation continues


@dataclass(frozen=True)
class Continuation:
    """The most toxic continuation of one prompt by one model."""

    text: str
    toxicity: float


@dataclass(frozen=True)
class PromptRow:
    """One prompt and what each model made of it at worst, by name of the model."""

    subset: str
    prompt: str
    worst: dict[str, Continuation]


@dataclass(frozen=True)
class Curve:
    """One quantity of one training run."""

    iterations: list[int]
    values: list[float]


@dataclass(frozen=True)
class Generations:
    """Summary of ``generations.jsonl``: counts over toxic prompts, and the prompts to show."""

    num_prompts: int
    num_samples: int
    rows: list[PromptRow]


@dataclass(frozen=True)
class PageData:
    """All that the page shows besides ``results``.

    Attributes:
        threshold: τ of the guided mask.
        curves: per quantity (``lm_loss``, ``penalty_ce``) and model; a run without a log has none.
        settings: name and value of what the method was run with.
        record: name and value of what it takes to repeat the run.
    """

    marks: TokenMarks
    threshold: float
    documents: list[ShownDocument]
    generations: Generations
    curves: dict[str, dict[str, Curve]]
    settings: dict[str, str]
    record: dict[str, str]


def load_page_data(folder: Path, results: dict[str, Any]) -> PageData:
    """Read everything from ``folder``.

    Raises:
        InputError: a file is missing or damaged.
        MismatchError: corpus, tokens, scores and mask are not of one run.
    """
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
        planted = planted_tokens(texts, rows, Tokenizer.from_file(str(tokenizer)), tokens.starts).inside
    marks = TokenMarks(np.asarray(scores.values), np.asarray(mask.values) > 0, planted)
    guided = _run_record(folder / "checkpoints/guided/run.json")
    documents = top_documents(tokens, marks, build_tokenizer("HFTokenizer", tokenizer), TOP_DOCUMENTS)
    _check_texts(documents, texts)
    return PageData(
        marks=marks,
        threshold=float(mask.sidecar["threshold"]),
        documents=documents,
        generations=load_generations(folder / "generations.jsonl"),
        curves={key: load_curves(folder, key) for key in ("lm_loss", "penalty_ce")},
        settings=_settings(mask.sidecar, scores.sidecar, guided.get("config", {})),
        record=_record(results, scores.sidecar, guided),
    )


def load_generations(path: Path) -> Generations:
    """Rows ``{"model", "id", "subset", "prompt", "continuations", "toxicity"}``; the prompts shown are evenly
    spaced over the file, never picked by their scores."""
    by_prompt: dict[str, dict[str, dict]] = {}
    for row in read_jsonl(path, "generations"):
        by_prompt.setdefault(row["id"], {})[row["model"]] = row
    subsets: dict[str, list[dict[str, dict]]] = {"toxic": [], "benign": []}
    for models in by_prompt.values():
        subsets[models["base"]["subset"]].append(models)
    rows = []
    for subset, found in subsets.items():
        count = min(SHOWN_PROMPTS // 2, len(found))
        for place in np.linspace(0, len(found) - 1, count).round().astype(int):
            models = found[place]
            worst = {name: _worst(models[name]) for name in MODELS}
            rows.append(PromptRow(subset, _ending(models["base"]["prompt"]), worst))
    first = next(iter(by_prompt.values()))["base"]
    return Generations(len(subsets["toxic"]), len(first["continuations"]), rows)


def load_curves(folder: Path, key: str) -> dict[str, Curve]:
    """``key`` over the training iterations of each model that logged it."""
    curves = {}
    for name in MODELS:
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
        inner = "".join(piece.text for piece in document.pieces[1:-1])
        if inner not in texts[document.index]:
            raise MismatchError(
                f"document {document.index} of the corpus is not the text that was tokenized; prepare the data again"
            )


def _worst(row: dict[str, Any]) -> Continuation:
    at = int(np.argmax(row["toxicity"]))
    return Continuation(row["continuations"][at], float(row["toxicity"][at]))


def _ending(prompt: str) -> str:
    return prompt if len(prompt) <= _PROMPT_CHARACTERS else "… " + prompt[-_PROMPT_CHARACTERS:]


def _run_record(path: Path) -> dict[str, Any]:
    return read_json(path, "run record") if path.exists() else {}


def _settings(mask: dict[str, Any], scores: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """Selection, scoring and penalty, named as in the sidecars and in the configuration."""
    scored = scores.get("run", {})
    trained = (
        "penalty_form", "penalty_lambda", "penalty_clip", "penalty_warmup_iters", "train_iters", "train_batch_size",
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
