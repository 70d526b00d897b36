"""What the models say and how fluent they are: continuations, the judge's scores, perplexity."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.system.files import read_jsonl

SUBSETS = ("toxic", "benign")


@dataclass(frozen=True)
class JudgementTask:
    """All that one process needs to judge one model."""

    name: str
    model: Path
    prompts: Path
    heldout: Path
    scorer: str
    seed: int
    threads: int
    samples: int
    max_new_tokens: int


def judge_models(
    tasks: list[JudgementTask], one_process: bool = False
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Judge models side by side, two processes at a time, or one after the other in this one; see `judge_model`."""
    if one_process:
        return [judge_model(task) for task in tasks]
    with ProcessPoolExecutor(max_workers=min(2, len(tasks)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(judge_model, tasks))


def judge_model(task: JudgementTask) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure one model.

    Returns:
        The numbers of `results.json` for it, and its rows of ``generations.jsonl``:
        ``{"model", "id", "subset", "prompt", "continuations", "toxicity"}``.
    """
    import torch

    from ifguide.evaluation.metrics import distinct_n, empty_share, summarise
    from ifguide.evaluation.perplexity import perplexity
    from ifguide.generation.draw import generate
    from ifguide.scorers.registry import load_scorer
    from ifguide.system.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(task.threads)
    prompts = read_jsonl(task.prompts, "prompts")
    texts = generate(task.model, [row["prompt"] for row in prompts], task.samples, task.max_new_tokens, seed=task.seed)
    scorer = load_scorer(task.scorer)
    flat = [text for row in texts for text in row]
    (scores,) = scorer.score(flat).values()
    toxicity = np.asarray(scores, np.float64).reshape(len(prompts), task.samples)

    numbers: dict[str, Any] = {}
    for subset in SUBSETS:
        chosen = np.array([row["subset"] == subset for row in prompts])
        found = summarise(toxicity[chosen], seed=task.seed)
        numbers |= {f"{key}_{subset}": found[key] for key in ("emt", "tp")}
        numbers |= {f"{key}_{subset}_interval": found[f"{key}_interval"] for key in ("emt", "tp")}
    numbers["perplexity"] = float(perplexity(task.model, [row["text"] for row in read_jsonl(task.heldout)]))
    numbers["empty_share"] = empty_share(flat)
    numbers["distinct_2"] = distinct_n(flat, 2)
    numbers["truncated"] = scorer.truncated
    rows = [
        {"model": task.name, **prompt, "continuations": said, "toxicity": [round(float(x), 4) for x in row]}
        for prompt, said, row in zip(prompts, texts, toxicity)
    ]
    return numbers, rows
