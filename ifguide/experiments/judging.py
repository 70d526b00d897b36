"""One evaluation for all models of an experiment: the same prompts, the same scorers, the same held-out texts.

Each step is what a verb does, so each has one home and one format. In the evaluation's folder, for every model:
  NAME.generations.jsonl  continuations, as `ifguide.generation.job` writes them
  NAME.jsonl              the same with scores, as `ifguide.evaluation.scored_generations` writes them

``python -m ifguide.experiments.judging JOB.json`` is `judge_model` as a process of its own: JOB.json holds its
arguments, and the numbers go to ``numbers.json`` beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import IFGuideError, tell
from ifguide.generation.options import GenerateOptions
from ifguide.system.files import hash_file, read_json, read_jsonl, write_json


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
        more_scorers: specs of further judges of the same continuations; the scorer's numbers are the main ones.
        more_heldout: name -> JSONL of ``{"text"}`` of further perplexities.
        decoding: how continuations are drawn.
    """

    prompts: Path
    heldout: Path
    scorer: str
    samples: int = 25
    max_new_tokens: int = 20
    seed: int = 0
    more_scorers: tuple[str, ...] = ()
    more_heldout: Mapping[str, Path] = field(default_factory=dict)
    decoding: GenerateOptions = field(default_factory=GenerateOptions)

    def key(self) -> dict[str, Any]:
        """What a stage is known by: the settings, and the content of the files."""
        more = {name: hash_file(path) for name, path in self.more_heldout.items()}
        files = {name: hash_file(getattr(self, name)) for name in ("prompts", "heldout")}
        return asdict(self) | files | {"more_heldout": more}


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
        EMT and TP of every subset of the prompts and the perplexity with their intervals, the share of empty texts,
        distinct-2, and how many texts the scorer read only the start of. Of a further scorer the same with ``@SCORER``
        behind, of a further held-out text ``perplexity@NAME``.

    Raises:
        IFGuideError: an unusable file, model or scorer; numbers that are not finite.
    """
    import torch

    from ifguide.evaluation.metrics import summarise, text_summary
    from ifguide.evaluation.perplexity import perplexity
    from ifguide.evaluation.scored_generations import score_generations
    from ifguide.generation.draw import Sampling
    from ifguide.generation.job import generate_file
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    sampling = Sampling(judging.samples, judging.max_new_tokens, seed=judging.seed)
    generated, scored = judged_files(folder, name)
    generate_file(model, judging.prompts, generated, sampling, judging.decoding)
    specs = [judging.scorer, *judging.more_scorers]
    found = score_generations(generated, specs, scored)["results"]

    rows = read_jsonl(scored)
    numbers: dict[str, Any] = {}
    for spec, scorer in zip(specs, found, strict=True):
        behind = "" if spec == judging.scorer else f"@{spec}"
        scores = np.array([row["scores"][scorer] for row in rows])
        for subset in dict.fromkeys(row["subset"] for row in rows):
            part = summarise(scores[[row["subset"] == subset for row in rows]], seed=judging.seed)
            numbers |= {f"{key}_{subset}{behind}": part[key] for key in ("emt", "tp")}
            numbers |= {f"{key}_{subset}{behind}_interval": part[f"{key}_interval"] for key in ("emt", "tp")}
    for text, path in {"": judging.heldout, **judging.more_heldout}.items():
        behind = f"@{text}" if text else ""
        measured = perplexity(model, [row["text"] for row in read_jsonl(path)])
        numbers[f"perplexity{behind}"] = float(measured)
        if bounds := measured.interval(judging.seed):
            numbers[f"perplexity{behind}_interval"] = list(bounds)
    numbers |= text_summary([text for row in rows for text in row["continuations"]])
    numbers["truncated"] = next(iter(found.values()))["truncated"]
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


def write_job(path: Path, name: str, model: Path, judging: Judging, threads: int) -> None:
    """Write what ``python -m ifguide.experiments.judging`` reads; files go into the folder of ``path``."""
    said = asdict(judging)
    files = {key: str(said[key]) for key in ("prompts", "heldout")}
    more = {key: str(value) for key, value in judging.more_heldout.items()}
    about = {**said, **files, "more_heldout": more}
    write_json(path, {"name": name, "model": str(model), "threads": threads, "judging": about})


def main(path: Path) -> None:
    """Do the job that `write_job` wrote: the numbers go to ``numbers.json`` beside it."""
    job = read_json(path, "job")
    said = dict(job["judging"])
    said["prompts"], said["heldout"] = Path(said["prompts"]), Path(said["heldout"])
    said["more_heldout"] = {key: Path(value) for key, value in said["more_heldout"].items()}
    said["more_scorers"] = tuple(said["more_scorers"])
    said["decoding"] = GenerateOptions(**said["decoding"])
    numbers = judge_model(job["name"], Path(job["model"]), Judging(**said), path.parent, job["threads"])
    write_json(path.parent / "numbers.json", numbers)


def _toxicity(row: Mapping[str, Any]) -> list[float]:
    """The main scorer's score of each continuation, which stands first."""
    return next(iter(row["scores"].values()))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except IFGuideError as fault:
        tell("judging", fault)
        raise SystemExit(2) from None
