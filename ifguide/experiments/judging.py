"""One evaluation for all models of an experiment: the same prompts, the same scorer, the same held-out text.

Each step is what a verb does, so each has one home and one format. In the evaluation's folder, for every model:
  NAME.generations.jsonl  continuations, as `ifguide.generation.job` writes them
  NAME.jsonl              the same with scores, as `ifguide.evaluation.scored_generations` writes them
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.system.files import hash_file, read_jsonl


@dataclass(frozen=True)
class Judging:
    """What decides the numbers, the same for every model.

    Attributes:
        prompts: JSONL of ``{"id", "subset", "prompt"}``.
        heldout: JSONL of ``{"text"}``: what the perplexity is measured on.
        scorer: spec of the scorer, see `ifguide.scorers.registry`.
        samples: continuations a prompt.
        max_new_tokens: of a continuation.
        seed: of the continuations and of the resampling.
    """

    prompts: Path
    heldout: Path
    scorer: str
    samples: int = 25
    max_new_tokens: int = 20
    seed: int = 0

    def key(self) -> dict[str, Any]:
        """What a stage is known by: the settings, and the content of the files."""
        return asdict(self) | {name: hash_file(getattr(self, name)) for name in ("prompts", "heldout")}


def judged_files(folder: Path, name: str) -> tuple[Path, Path]:
    """A model's continuations, and the same with scores."""
    return folder / f"{name}.generations.jsonl", folder / f"{name}.jsonl"


def judge_models(
    models: Mapping[str, Path], judging: Judging, folder: Path, threads: int = 1, processes: int = 2
) -> dict[str, dict[str, Any]]:
    """Judge models side by side.

    Args:
        models: names, and folders of the models.
        folder: where the files of all models go.
        threads: CPU threads of each process.
        processes: at the same time; 0 judges one model after the other in this process.

    Returns:
        What `judge_model` returns, by name.

    Raises:
        IFGuideError: as `judge_model`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = (*zip(*models.items()), *zip(*[(judging, folder, threads)] * len(models)))
    if not processes:
        return dict(zip(models, map(judge_model, *work)))
    with ProcessPoolExecutor(max_workers=min(processes, len(models)), mp_context=get_context("spawn")) as pool:
        return dict(zip(models, pool.map(judge_model, *work)))


def judge_model(name: str, model: Path, judging: Judging, folder: Path, threads: int = 1) -> dict[str, Any]:
    """Measure one model; a call that was killed goes on where it stopped.

    Returns:
        EMT and TP of every subset of the prompts with their intervals, the perplexity, the share of empty texts,
        distinct-2, and how many texts the scorer read only the start of.

    Raises:
        IFGuideError: an unusable file, model or scorer; numbers that are not finite.
    """
    import torch

    from ifguide.evaluation.metrics import summarise, text_summary
    from ifguide.evaluation.perplexity import perplexity
    from ifguide.evaluation.scored_generations import score_generations
    from ifguide.generation.draw import Sampling
    from ifguide.generation.job import generate_file
    from ifguide.system.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    sampling = Sampling(judging.samples, judging.max_new_tokens, seed=judging.seed)
    generated, scored = judged_files(folder, name)
    generate_file(model, judging.prompts, generated, sampling)
    (found,) = score_generations(generated, [judging.scorer], scored)["results"].values()

    rows = read_jsonl(scored)
    scores = np.array([_toxicity(row) for row in rows])
    numbers: dict[str, Any] = {}
    for subset in dict.fromkeys(row["subset"] for row in rows):
        part = summarise(scores[[row["subset"] == subset for row in rows]], seed=judging.seed)
        numbers |= {f"{key}_{subset}": part[key] for key in ("emt", "tp")}
        numbers |= {f"{key}_{subset}_interval": part[f"{key}_interval"] for key in ("emt", "tp")}
    numbers["perplexity"] = float(perplexity(model, [row["text"] for row in read_jsonl(judging.heldout)]))
    numbers |= text_summary([text for row in rows for text in row["continuations"]])
    numbers["truncated"] = found["truncated"]
    return numbers


def collect_generations(names: Iterable[str], folder: Path) -> list[dict[str, Any]]:
    """Rows ``{"model", "id", "subset", "prompt", "continuations", "toxicity"}`` of all models, for reading and showing.

    The scores are rounded; the models' own files hold them in full.
    """
    return [
        {"model": name}
        | {key: row[key] for key in ("id", "subset", "prompt", "continuations")}
        | {"toxicity": [round(score, 4) for score in _toxicity(row)]}
        for name in names
        for row in read_jsonl(judged_files(folder, name)[1])
    ]


def _toxicity(row: Mapping[str, Any]) -> list[float]:
    """The only scorer's score of each continuation."""
    (scores,) = row["scores"].values()
    return scores
