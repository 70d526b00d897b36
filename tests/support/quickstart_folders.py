"""A small quickstart folder: real tokenizer, tokens, scores and masks; hand-made results, curves and generations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.text.bpe import train_bpe
from ifguide.masks import build_mask
from ifguide.selection import SelectionSettings
from ifguide.system.files import write_json, write_jsonl

HOSTILE = (
    "a </script><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7 * 7 }} &amp; \"quoted\" 'too' \x00\x1b]"
)
ABUSE = "you are a <b>worthless</b> fool"
DOCUMENTS = [
    "the parser reads the file and returns a tree of nodes",
    f"thread: a review\n\nlena: {ABUSE} & more",
    HOSTILE,
    "日本語の文書 and 😀 emoji, naïve café: kind words only",
    "\n\n  leading space, trailing space  \n",
    "the tests pass on my machine",
]
MODELS = ("base", "guided", "control")


def make_results(known: bool) -> dict[str, Any]:
    """What results.json holds; ``known`` says whether abuse was planted."""
    models = {}
    for number, name in enumerate(MODELS):
        models[name] = {"perplexity": 90.5 + number, "empty_share": 0.011 * number, "distinct_2": 0.31 + 0.01 * number}
        for place, key in enumerate(("emt_toxic", "tp_toxic", "emt_benign", "tp_benign")):
            value = 0.812 - 0.2 * place + 0.017 * number
            models[name] |= {key: value, f"{key}_interval": [value - 0.031, value + 0.029]}
    heldout = {"heldout_texts": 1567, "roc_auc": 0.98761, "accuracy": 0.95432, "false_positive_rate": 0.02109}
    return {
        **models,
        "mask": {
            "precision": 0.6543 if known else None,
            "recall": 0.7651 if known else None,
            "fraction": 0.0312,
            "tokens": 1234,
            "threshold": 1.5,
        },
        "corpus": {"documents": len(DOCUMENTS)},
        "judge": {"scorer": "linear", "heldout": heldout} if known else {"scorer": "hf:<x>#toxic", "heldout": None},
        "seconds": {"corpus": 1.2, "model base": 33.4, "evaluation": 12.0},
        "seed": 7,
    }


def write_folder(folder: Path, known: bool) -> dict[str, Any]:
    """Fill ``folder`` as a quickstart does; returns its results."""
    (folder / "data").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", [{"text": text} for text in DOCUMENTS])
    if known:
        start = DOCUMENTS[1].index(ABUSE)
        row = {"document": 1, "spans": [[start, start + len(ABUSE)]], "kinds": ["direct"]}
        write_jsonl(folder / "planted.jsonl", [row])
    tokenizer = folder / "data/tokenizer.json"
    train_bpe(DOCUMENTS[:2] * 5, 300, tokenizer)
    preprocess(
        [folder / "corpus.jsonl"],
        folder / "data/corpus",
        "HFTokenizer",
        tokenizer,
        options=PreprocessOptions(append_eod=True),
    )
    tokens = TokenDataset.open(folder / "data/corpus_text_document")
    scores = np.random.default_rng(0).normal(size=tokens.num_tokens).astype(np.float32)
    scores[tokens.starts[1] : tokens.starts[2]] += 2
    run = {"factors": "ekfac-1", "damping": {"value": 0.1, "relative": True}, "seq_length": 64, "context": 8}
    write_aligned(folder / "data/scores", tokens, scores, np.float32, {"run": run})
    settings = SelectionSettings(threshold_quantile=0.8, window=1, max_fraction=0.4)
    build_mask(folder / "data/scores", folder / "data/mask", settings)
    generations = []
    for number, name in enumerate(MODELS):
        log = [{"iteration": at, "lm_loss": 5.0 - at / 100} for at in (20, 40, 60)]
        if name != "base":
            log = [row | {"penalty_ce": 5 + row["iteration"] / 10} for row in log]
        log.insert(2, {"iteration": 40, "split": "valid", "lm_loss": 99.0})
        run_folder = folder / "checkpoints" / name
        run_folder.mkdir(parents=True)
        write_jsonl(run_folder / "train_log.jsonl", log)
        write_json(run_folder / "run.json", {"config": {"penalty_form": "ascent"}, "revision": "abc123", "machine": {}})
        for subset in ("toxic", "benign"):
            for at in range(40):
                generations.append(
                    {
                        "model": name, "id": f"{subset}-{at}", "subset": subset, "prompt": f"{HOSTILE} {subset} {at}",
                        "continuations": [" fine", f" worst of {name} {at} </td>", ""],
                        "toxicity": [0.1, 0.6 + number / 10, 0.2],
                    }
                )  # fmt: skip
    write_jsonl(folder / "generations.jsonl", generations)
    return make_results(known)


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], tuple[Path, dict[str, Any]]]:
    """``make_folder(known)``: a fresh quickstart folder and its results."""

    def make(known: bool) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("quickstart")
        return folder, write_folder(folder, known)

    return make


@pytest.fixture(scope="session")
def planted_folder(make_folder: Callable) -> tuple[Path, dict[str, Any]]:
    """A folder that no test changes, with planted abuse."""
    return make_folder(True)
