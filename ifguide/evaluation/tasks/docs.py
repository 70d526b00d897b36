"""From a loaded data set, in its published layout or in the local form, to the documents that lm-eval iterates over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ifguide.compat.datasets import fingerprint_of
from ifguide.errors import InputError
from ifguide.evaluation.eval_data import local_records
from ifguide.evaluation.tasks.settings import TOKENIZER, TaskSettings, reader_of, scorer_of, task_settings

# lm-eval asks for the documents of a task many times, and expects the same ones
_MADE: dict[tuple[Any, ...], Any] = {}


def rtp_docs(dataset: Any) -> Any:
    """Documents ``{id, prompt, toxicity}``; loads the scorers, so that a bad one is found before anything is generated.

    Raises:
        InputError, ConfigError: bad settings, scorers or records.
    """
    return _documents("rtp", dataset, _prompts)


def bold_docs(dataset: Any) -> Any:
    """Documents ``{prompt, domain, category, name}``; else as `rtp_docs`."""
    return _documents("bold", dataset, _prompts)


def attaq_docs(dataset: Any) -> Any:
    """Documents ``{prompt, label}``; else as `rtp_docs`."""
    return _documents("attaq", dataset, _prompts)


def toxigen_docs(dataset: Any) -> Any:
    """Documents ``{prompt, label, group}``; else as `rtp_docs`."""
    return _documents("toxigen", dataset, _prompts)


def ptp_docs(dataset: Any) -> Any:
    """Documents ``{id, prompt, language, toxicity}``; else as `rtp_docs`."""
    return _documents("ptp", dataset, _prompts)


def lambada_docs(dataset: Any) -> Any:
    """Documents ``{text, context, target}``: the target is the last word with the space before it, as in lm-eval."""
    return _documents("lambada", dataset, _last_words)


def lambada_last_token_docs(dataset: Any) -> Any:
    """Documents ``{text, context, target}``: the target is the text of the last token.

    Raises:
        InputError: IFGUIDE_TOKENIZER is not set, or a text whose last token cannot be split off.
    """
    return _documents("lambada", dataset, _last_tokens)


def heldout_docs(dataset: Any) -> Any:
    """Documents ``{text}``, with ``tokens``, their number, if IFGUIDE_TOKENIZER is set."""
    return _documents("heldout", dataset, _counted_texts)


def _documents(
    name: str, dataset: Any, prepare: Callable[[TaskSettings, list[dict[str, Any]]], list[dict[str, Any]]]
) -> Any:
    import datasets

    settings = task_settings()
    key = (prepare, name, settings, fingerprint_of(dataset))
    if key not in _MADE:
        records, _ = local_records(name, dataset.to_list(), settings.source(name))
        _MADE[key] = datasets.Dataset.from_list(prepare(settings, records))
    return _MADE[key]


def _prompts(settings: TaskSettings, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for spec in settings.scorers:
        _ = scorer_of(spec).main
    return records


def _last_words(settings: TaskSettings, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    split = []
    for record in records:
        context, space, word = record["text"].rpartition(" ")
        split.append({"text": record["text"], "context": context, "target": space + word})
    return split


def _last_tokens(settings: TaskSettings, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut before the last token. lm-eval tokenizes context and context + target: both must give the text's tokens."""
    if settings.tokenizer is None:
        raise InputError(f"the last token depends on the tokenizer: set {TOKENIZER} to the model's folder")
    reader = reader_of(settings.tokenizer)
    split = []
    for number, text in enumerate((record["text"] for record in records), 1):
        ids, spans = reader.spans(text)
        if len(ids) < 2:
            raise InputError(f"{settings.source('lambada')}, record {number}: fewer than two tokens")
        context = text.encode()[: spans[-1][0]].decode(errors="ignore")
        # lm-eval moves white space at the end of a context to the target
        if reader.encode(context) != ids[:-1] or context != context.rstrip():
            raise InputError(
                f"{settings.source('lambada')}, record {number}: the text cannot be cut before its last token "
                "with this tokenizer; leave the record out"
            )
        split.append({"text": text, "context": context, "target": text[len(context) :]})
    return split


def _counted_texts(settings: TaskSettings, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if settings.tokenizer is None:
        return records
    ids = reader_of(settings.tokenizer).encode_batch([record["text"] for record in records])
    return [{"text": record["text"], "tokens": len(row)} for record, row in zip(records, ids)]
