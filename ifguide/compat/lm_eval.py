"""lm-eval from the inside, 0.4.1 (GPT-NeoX's) to 0.4.13: its filters, its import, its likelihoods and the
texts that it reads for them.

What is changed inside lm-eval is named here, guarded by a check that it is still what it was, done once, and undone by
`restore_likelihoods`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

_ORIGINAL, _INHERITED = "_ifguide_original", "_ifguide_inherited"
_PATCHED = ("_loglikelihood_tokens", "loglikelihood", "loglikelihood_rolling")


def import_lm_eval() -> ModuleType:
    """Import lm-eval; 0.4.1 fetches its metric `exact_match` from the hub on import, and gets a local one instead."""
    if "lm_eval" not in sys.modules:
        with _without_exact_match():
            importlib.import_module("lm_eval.evaluator")
    return sys.modules["lm_eval"]


def run_command() -> None:
    """lm-eval's own command line, with this process's arguments."""
    import_lm_eval()
    command: Any = importlib.import_module("lm_eval.__main__")
    command.cli_evaluate()


def include_tasks(folder: Path) -> None:
    """Make the tasks in ``folder`` known by name to an lm-eval that has a global registry (0.4.1).

    lm-eval 0.4.13 has none: give it ``TaskManager(include_path=...)``.
    """
    import_lm_eval()
    tasks: Any = importlib.import_module("lm_eval.tasks")
    if hasattr(tasks, "include_path"):
        tasks.include_path(str(folder))


def add_filter(name: str, kind: type) -> None:
    """Make a filter known by name; may be called any number of times."""
    registry: Any = importlib.import_module("lm_eval.api.registry")
    if hasattr(registry, "register_filter"):
        if name not in registry.FILTER_REGISTRY:
            registry.register_filter(name)(kind)
    else:
        importlib.import_module("lm_eval.filters").FILTER_REGISTRY[name] = kind


def make_likelihoods_exact() -> None:
    """Keep lm-eval's cache of logits away from requests that it mixes up.

    It reads requests with the same `context + continuation[:-1]` in one forward pass and takes the logits of each from
    the front, which is wrong for the shorter of two continuations: LAMBADA's last word beside its last token, or the
    last window of a repetitive text beside another window.
    """
    model = huggingface_model()
    if model is None or "logits_cache" not in inspect.signature(model.__init__).parameters:
        return  # no such cache in this version
    original = model._loglikelihood_tokens
    if hasattr(original, _ORIGINAL):
        return

    @wraps(original)
    def exact(self: Any, requests: Sequence[Any], *args: Any, **options: Any) -> Any:
        cached = self.logits_cache
        self.logits_cache = cached and not _mixed_up(requests)
        try:
            return original(self, requests, *args, **options)
        finally:
            self.logits_cache = cached

    setattr(exact, _ORIGINAL, original)
    model._loglikelihood_tokens = exact


def leave_templates_out(tasks: str) -> None:
    """Keep the special tokens of a tokenizer's template out of what tasks count whose name starts with ``tasks``.

    Other tasks of the same run stay as they are.

    lm-eval encodes a text with them: a rolling likelihood then counts a BOS and an EOS that the text does not have, and
    of a continuation after ``context + EOS`` the first token is lost. A text is read without them after lm-eval's own
    start token, a context without those at its end.
    """
    model = huggingface_model()
    if model is None:
        return
    for name, reading in (("loglikelihood_rolling", _plain), ("loglikelihood", _without_suffix)):
        original = getattr(model, name)
        if hasattr(original, _ORIGINAL):
            continue
        inherited = name not in model.__dict__
        setattr(model, name, _framed(original, reading, tasks))
        setattr(getattr(model, name), _INHERITED, inherited)


def _framed(
    original: Callable[..., Any], reading: Callable[[Any], Callable[..., list[int]]], tasks: str
) -> Callable[..., Any]:
    @wraps(original)
    def framed(self: Any, requests: Sequence[Any], *args: Any, **options: Any) -> list[Any]:
        own = [bool(str(request.task_name).startswith(tasks)) for request in requests]
        answers: dict[bool, Iterator[Any]] = {}
        for ours in sorted(set(own)):  # ranks that wait for each other go in one order
            some = [request for request, is_own in zip(requests, own, strict=True) if is_own is ours]
            if ours:
                self.tok_encode = reading(self)
            try:
                answers[ours] = iter(original(self, some, *args, **options))
            finally:
                self.__dict__.pop("tok_encode", None)
        return [next(answers[ours]) for ours in own]

    setattr(framed, _ORIGINAL, original)
    return framed


def _plain(lm: Any) -> Callable[..., list[int]]:
    """lm-eval's ``tok_encode`` of a text alone."""
    encode = lm.tok_encode
    return lambda text, *args, **options: encode(text, *args, **{**options, "add_special_tokens": False})


def _without_suffix(lm: Any) -> Callable[..., list[int]]:
    """lm-eval's ``tok_encode`` without the special tokens after a text."""
    encode, tokenizer = lm.tok_encode, lm.tokenizer
    plain, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
    before = next((place for place in range(len(whole)) if whole[place : place + len(plain)] == plain), 0)
    suffix = whole[before + len(plain) :]

    def encoded(text: str, *args: Any, **options: Any) -> list[int]:
        ids = encode(text, *args, **options)
        return ids[: -len(suffix)] if suffix and ids[-len(suffix) :] == suffix else ids

    return encoded


def restore_likelihoods() -> None:
    """Undo `make_likelihoods_exact` and `leave_templates_out`."""
    model = huggingface_model()
    if model is not None:
        for name in _PATCHED:
            patched = model.__dict__.get(name)
            original = getattr(patched, _ORIGINAL, None)
            if original is not None and getattr(patched, _INHERITED, False):
                delattr(model, name)
            elif original is not None:
                setattr(model, name, original)


def huggingface_model() -> Any:
    """lm-eval's class for transformers models, None if it cannot be imported (an lm-eval without torch)."""
    try:
        return importlib.import_module("lm_eval.models.huggingface").HFLM
    except ImportError:
        return None


def _mixed_up(requests: Sequence[tuple[Any, list[int], list[int]]]) -> bool:
    """Whether two requests share what is read but differ in how much of it is the continuation."""
    lengths: dict[tuple[int, ...], int] = {}
    return any(
        lengths.setdefault((*context, *continuation[:-1]), len(continuation)) != len(continuation)
        for _, context, continuation in requests
    )


@contextmanager
def _without_exact_match() -> Iterator[None]:
    try:
        evaluate: Any = importlib.import_module("evaluate")
    except ImportError:
        yield
        return
    load: Callable[..., Any] = evaluate.load

    def local(path: str, *args: Any, **options: Any) -> Any:
        return _ExactMatch() if path == "exact_match" else load(path, *args, **options)

    evaluate.load = local
    try:
        yield
    finally:
        evaluate.load = load


class _ExactMatch:
    """The share of predictions that equal their references: all that lm-eval 0.4.1 asks of the metric on import.

    Tasks of lm-eval that hand it options are told to fetch the real one.
    """

    def compute(self, predictions: Sequence[str], references: Sequence[str], **options: Any) -> dict[str, float]:
        if options:
            raise NotImplementedError(
                f"exact_match with {', '.join(options)}: import lm_eval with the hub within reach instead"
            )
        equal = [prediction == reference for prediction, reference in zip(predictions, references, strict=True)]
        return {"exact_match": sum(equal) / len(equal)}
