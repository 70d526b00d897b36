"""What every analysis works with: models with names, texts with tokens, and what was finished before.

Everything is checked before anything is loaded.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ifguide.analysis.hooks import Anatomy, anatomy_of
from ifguide.analysis.options import Analyse
from ifguide.data.sources.reading import read_rows
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, InputError, MismatchError
from ifguide.generation.draw import prompt_contexts
from ifguide.generation.job import read_prompts
from ifguide.influence.batches import NO_LABEL
from ifguide.influence.queries import Query, load_query_sets
from ifguide.models.folder import model_fingerprint, read_config, require_model_folder
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.models.named import named_models
from ifguide.scorers.base import Scorer
from ifguide.scorers.registry import load_scorer
from ifguide.system.files import hash_value
from ifguide.system.journal import Journal, key_of
from ifguide.system.progress import Progress

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
# what must be the same of all models, in their configuration
_SHAPE = ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size")
T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """A prompt with its completion as the model reads it.

    Attributes:
        tokens: ids, from the start of a document on.
        is_target: of each token, whether it is the completion's.
    """

    tokens: tuple[int, ...]
    is_target: tuple[bool, ...]

    @cached_property
    def prompt(self) -> tuple[int, ...]:
        """The tokens before the completion."""
        return self.tokens[: self.is_target.index(True)]

    @cached_property
    def targets(self) -> list[int]:
        """The places of the completion's tokens."""
        return [place for place, target in enumerate(self.is_target) if target]


@dataclass
class Subject:
    """One of the models, loaded when it is first asked for.

    Attributes:
        label: what it is called.
        folder: Hugging Face folder.
    """

    label: str
    folder: Path
    load: Callable[[Path], LanguageModel]

    @cached_property
    def fingerprint(self) -> str:
        return model_fingerprint(self.folder)

    @cached_property
    def lm(self) -> LanguageModel:
        return self.load(self.folder)

    @cached_property
    def anatomy(self) -> Anatomy:
        return anatomy_of(self.lm)

    def release(self) -> None:
        """Give the memory back; it is loaded again if it is asked for again."""
        for name in ("anatomy", "lm"):
            self.__dict__.pop(name, None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def record(self) -> dict[str, str]:
        return {"label": self.label, "path": str(self.folder.absolute()), "identity": self.fingerprint}


class Bench:
    """The work table of one analysis.

    Args:
        asked: the options.
        device: torch's name of it.
        progress: whether progress is shown.

    Attributes:
        models: the base first.
        journal: pieces that are finished, None where nothing is kept.

    Raises:
        ConfigError, InputError, MismatchError: models that cannot be used, or not together.
    """

    def __init__(self, asked: Analyse, device: str = "cpu", progress: bool = False):
        self.asked, self.device, self.progress = asked, device, progress
        self._bar = Progress(0, "pieces", "", quiet=True)
        self.journal: Journal | None = None
        self.models = [Subject(label, folder, self._load) for label, folder in _with_folders(asked.models)]
        self.reader = _one_reader(self.models, asked.eod_token)

    def _load(self, folder: Path) -> LanguageModel:
        return load_language_model(folder, _DTYPES[self.asked.dtype], self.device, self.asked.eod_token)

    @property
    def base(self) -> Subject:
        return self.models[0]

    @property
    def others(self) -> list[Subject]:
        return self.models[1:]

    def each(self) -> Iterator[Subject]:
        """The models one after the other, one in memory at a time."""
        for model in self.models:
            yield model
            model.release()

    @cached_property
    def queries(self) -> tuple[list[Text], list[Text]]:
        """Toxic and safe texts, as many of each as were asked for.

        Raises:
            InputError, ConfigError: files that are no queries.
        """
        assert self.asked.toxic_queries and self.asked.safe_queries  # `require_options` looked
        sets = load_query_sets(self.asked.toxic_queries, self.asked.safe_queries, self.reader, self.window)
        return self.drawn([text_of(query) for query in sets[0]]), self.drawn([text_of(query) for query in sets[1]])

    @cached_property
    def window(self) -> int | None:
        """Longest text in tokens, of the shortest model."""
        limits = [read_config(model.folder).get("max_position_embeddings") for model in self.models]
        return min((limit for limit in limits if limit), default=None)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Lines of ``--prompts``, else of ``--toxic-queries``.

        Raises:
            InputError, ConfigError: not a file of prompts.
        """
        path = self.asked.prompts or self.asked.toxic_queries
        assert path is not None  # `require_options` looked
        return read_prompts(path)

    @cached_property
    def prompts(self) -> list[str]:
        """Different prompts, drawn at random."""
        different = list(dict.fromkeys(row["prompt"] for row in self.rows))
        return self.drawn(different, self.asked.speech.max_prompts)

    @cached_property
    def scorer(self) -> Scorer:
        return load_scorer(self.asked.scorer, device=self.device)

    def contexts(self, lm: LanguageModel) -> list[list[int]]:
        """Tokens before each continuation of `prompts`."""
        return prompt_contexts(lm, self.prompts, self.asked.speech.max_new_tokens)

    def texts(self, path: str | os.PathLike) -> list[str]:
        """The "text" of each line.

        Raises:
            InputError, ConfigError: no such file, or lines without a text.
        """
        found, faults = [], []
        for place, row in read_rows(path, "text"):
            if isinstance(row.get("text"), str):
                found.append(row["text"])
            else:
                faults.append(place.message("text", 'needs a "text" that is text'))
        if faults or not found:
            raise ConfigError(faults[:20] or [f"text {path}: the file is empty"])
        return self.drawn(found)

    def kept(self, compute: Callable[[], T], *parts: Any) -> T:
        """What ``compute`` gives (plain values), from the journal where it was finished before.

        Args:
            parts: all that can change it.
        """
        if self.journal is None:
            return compute()
        key = key_of(*parts, self.asked.dtype, self.device.partition(":")[0])
        if key in self.journal:
            self._bar.skip(1)
        else:
            self.journal.write([{"key": key, "value": compute()}])
            self._bar.update(1)
        return self.journal[key]["value"]

    @contextlib.contextmanager
    def working(self, label: str, pieces: int, journal: Journal) -> Iterator[None]:
        """Keep finished pieces in ``journal`` for a while, and show how many of all there are."""
        self.journal = journal
        with Progress(pieces, "pieces", label, quiet=not self.progress) as self._bar:
            try:
                yield
            finally:
                self.journal = None

    def drawn(self, items: Sequence[T], most: int | None = None) -> list[T]:
        """At most ``most`` of ``items`` in their order, the same ones for every model."""
        most = most or self.asked.max_texts
        if len(items) <= most:
            return list(items)
        return [items[place] for place in sorted(random.Random(self.asked.seed).sample(range(len(items)), most))]


def _with_folders(given: Sequence[str]) -> list[tuple[str, Path]]:
    """`named_models`, whose folders hold models.

    Raises:
        ConfigError: names or folders that are not usable; all of them.
    """
    models = named_models(given)
    faults = []
    for label, folder in models:
        try:
            require_model_folder(folder, f"model {label}:")
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError(faults)
    return models


def text_of(query: Query) -> Text:
    """The whole text of a query, whose inputs lack the last token."""
    labels = query.labels
    return Text((*query.inputs.tolist(), int(labels[-1])), (False, *(labels != NO_LABEL).tolist()))


def texts_fingerprint(texts: Sequence[Text]) -> str:
    """Hash of what a model reads."""
    return hash_value([[text.tokens, text.is_target] for text in texts])


def prompt_groups(texts: Sequence[Text]) -> np.ndarray:
    """int64[N]: equal for texts with one prompt, which belong into one fold."""
    numbers: dict[tuple[int, ...], int] = {}
    return np.array([numbers.setdefault(text.prompt, len(numbers)) for text in texts], dtype=np.int64)


def _one_reader(models: Sequence[Subject], eod_token: str | None) -> TextReader:
    """The reader of the base, which must read as those of the others do.

    Raises:
        MismatchError: models of other shapes or tokenizers; all of them.
    """
    base = models[0]
    shape = {key: read_config(base.folder).get(key) for key in _SHAPE}
    reader = TextReader.of_model(base.folder, eod_token=eod_token)
    for model in models[1:]:
        config = read_config(model.folder)
        other = [f"{key} {config.get(key)}, not {value}" for key, value in shape.items() if config.get(key) != value]
        if TextReader.of_model(model.folder, eod_token=eod_token).fingerprint != reader.fingerprint:
            other.append("another tokenizer")
        if other:
            raise MismatchError(
                f"model {model.label} is of another kind than {base.label} ({'; '.join(other)}), so that layers and "
                "tokens cannot be held against each other; analyse it in a folder of its own, and see both with "
                "`ifguide compare`"
            )
    return reader
