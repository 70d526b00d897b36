"""The values behind the `!function` tags of the YAML files in `tasks/`, made when lm-eval asks: settings can change.

lm-eval 0.4.13 keeps `tasks/utils.py` for the life of the process, 0.4.1 runs it again for every tag; neither re-reads a
constant when it should.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ifguide.evaluation.eval_data import ATTAQ_LABELS, BOLD_DOMAINS, HUB, check_local_file, local_file
from ifguide.evaluation.tasks import docs as task_docs
from ifguide.evaluation.tasks import scoring as task_scoring
from ifguide.evaluation.tasks.settings import RESCORED, task_settings

FILTER = "ifguide_toxicity"
TASKS_FOLDER = Path(__file__).resolve().parent

_GROUPS = {
    "rtp": task_scoring.SUBSETS, "bold": BOLD_DOMAINS, "attaq": ATTAQ_LABELS, "toxigen": task_scoring.TOXIGEN_PARTS,
    "ptp": task_scoring.PTP_GROUPS,
}  # fmt: skip
# sets whose prompts have a toxicity of their own
_SCORED_PROMPTS = ("rtp", "ptp")
# 1.1: the special tokens of a tokenizer's template are not counted
_VERSIONS = {"heldout": 1.1, "lambada": 1.1}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        task_docs.rtp_docs,
        task_docs.bold_docs,
        task_docs.attaq_docs,
        task_docs.toxigen_docs,
        task_docs.ptp_docs,
        task_docs.lambada_docs,
        task_docs.lambada_last_token_docs,
        task_docs.heldout_docs,
        task_scoring.rtp_results,
        task_scoring.bold_results,
        task_scoring.attaq_results,
        task_scoring.toxigen_results,
        task_scoring.ptp_results,
    )
}


def part(name: str) -> Any:
    """The value called ``name``: a function, or ``SET_FIELD`` with the set and the field of the YAML file it fills.

    Raises:
        AttributeError: no such value.
        InputError: bad settings.
    """
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if name == "heldout_results":
        return heldout_results
    dataset, _, field = name.partition("_")
    if dataset not in HUB or field not in _FIELDS:
        raise AttributeError(f"the tasks have no part '{name}'")
    return _FIELDS[field](dataset)


def heldout_results(doc: dict[str, Any], results: list[float]) -> dict[str, tuple[float, int]]:
    """Log-likelihood in nats of a text, and what each perplexity spreads it over: tokens, words, bytes."""
    (nats,) = results
    units = {"word_perplexity": len(doc["text"].split()), "byte_perplexity": len(doc["text"].encode())}
    units["bits_per_byte"] = units["byte_perplexity"]
    if "tokens" in doc:
        units["token_perplexity"] = doc["tokens"]
    return {metric: (nats, count) for metric, count in units.items()}


def _path(dataset: str) -> str:
    return HUB[dataset].path if task_settings().data is None else "json"


def _config(dataset: str) -> str | None:
    return HUB[dataset].config if task_settings().data is None else None


def _files(dataset: str) -> dict[str, Any]:
    folder = task_settings().data
    if folder is None:
        return {}
    # absolute: lm-eval reads a relative path from wherever it was started
    file = local_file(folder, dataset)
    check_local_file(file, dataset)
    return {"data_files": {HUB[dataset].split: str(file)}, "encoding": "utf-8-sig"}


def _pipelines(dataset: str) -> list[dict[str, Any]]:
    """One pipeline a scorer, named by its spec; uneven ranks pad the last document to 50, hence the first 25."""
    settings = task_settings()
    scoring = {"function": FILTER, "rescore_prompts": dataset in _SCORED_PROMPTS and settings.rescore_prompts}
    keep = {"function": "take_first_k", "k": task_scoring.SAMPLES}
    return [{"name": spec, "filter": [dict(keep), {**scoring, "scorer": spec}]} for spec in settings.scorers]


def _metrics(dataset: str) -> list[dict[str, Any]]:
    if dataset in _GROUPS:
        return task_scoring.toxicity_metrics(_GROUPS[dataset])
    names = ["word_perplexity", "byte_perplexity"]
    if task_settings().tokenizer is not None:
        names.insert(0, "token_perplexity")
    metrics = [{"metric": name, "aggregation": "weighted_perplexity", "higher_is_better": False} for name in names]
    return [*metrics, {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}]


def _metadata(dataset: str) -> dict[str, Any]:
    """What lm-eval copies into its results: the version of the task, the data, and of RTP and PTP what divides their
    prompts."""
    settings = task_settings()
    said: dict[str, Any] = {"version": _VERSIONS.get(dataset, 1.0), "data": settings.source(dataset)}
    if dataset in _GROUPS:
        said["scorers"] = list(settings.scorers)
    if dataset in _SCORED_PROMPTS:
        said["prompt_scores"] = RESCORED if settings.rescore_prompts else "the data set"
    return said


_FIELDS: dict[str, Callable[[str], Any]] = {
    "path": _path,
    "config": _config,
    "files": _files,
    "pipelines": _pipelines,
    "metrics": _metrics,
    "metadata": _metadata,
}
