"""The plan of an experiment: which methods are tried on what, and how all of them are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT = "default"  # the setting that changes nothing
QUICKSTART = "quickstart"


@dataclass(frozen=True)
class Corpus:
    """Texts of one corpus.

    Attributes:
        name: of it.
        source: ``files``, or ``quickstart``: made by `ifguide quickstart --corpus-only`.
        small: a tenth of the quickstart's own corpus.
        files: by their keys in the plan; of source ``files`` all that are needed.
        heldout: name -> JSONL of ``{"text"}`` that a perplexity is measured on, the first one first.
    """

    name: str
    source: str = "files"
    small: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)
    heldout: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelPlan:
    """A model that is trained or scored with.

    Attributes:
        name: of it.
        keys: training keys, those of its configuration files among them.
        tokenizer: of the plan's form; None for the plan's.
        load: Hugging Face folder that training starts from.
    """

    name: str
    keys: Mapping[str, Any]
    tokenizer: Mapping[str, Any] | None = None
    load: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """How all are judged.

    Attributes:
        scorers: specs; the first one's numbers have no name behind them. ``judge`` is the quickstart's.
        samples, max_new_tokens, seed: of the continuations.
        lambada: folder with ``lambada.jsonl``; None leaves it out.
    """

    scorers: tuple[str, ...]
    samples: int = 25
    max_new_tokens: int = 20
    seed: int = 0
    lambada: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One thing to be judged.

    Attributes:
        corpus, method, setting, seed: that it is.
        definition: the method's part of the plan with the setting's changes.
        curve: name and value of the sweep that the setting is a point of.
    """

    corpus: str
    method: str
    setting: str
    seed: int
    definition: Mapping[str, Any]
    curve: tuple[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """A plan that can be meant.

    Attributes:
        path: of the file.
        planned: why it is not to be run as it is; None for one that is.
        tokenizer: ``vocab_size`` of a BPE that is trained on the text, or ``type``, ``file`` and ``merges``.
        scoring: options of fit-factors, score and transfer-scores.
        train: training keys of all methods.
        methods: by name, without their settings.
        settings: by name: ``methods`` it is for, and what it changes in them; a point of a sweep has a ``curve``.
    """

    path: Path
    name: str
    description: str
    planned: str | None
    seeds: tuple[int, ...]
    tokenizer: Mapping[str, Any]
    corpora: Mapping[str, Corpus]
    models: Mapping[str, ModelPlan]
    scoring: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluation: Evaluation
    methods: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, Any]]

    def cells(self) -> list[Cell]:
        """Everything that is judged: by corpus, method, setting and seed."""
        found = []
        for corpus in self.corpora:
            for method, definition in self.methods.items():
                for setting, changes in {DEFAULT: {}, **self.settings}.items():
                    if setting != DEFAULT and method not in changes["methods"]:
                        continue
                    changed = {key: value for key, value in changes.items() if key not in ("methods", "curve")}
                    merged = merged_with(definition, changed)
                    found += [Cell(corpus, method, setting, seed, merged, changes.get("curve")) for seed in self.seeds]
        return found

    def label(self, cell: Cell) -> str:
        """The name of a cell's numbers over all seeds: the method's, with what is not the only one or the default."""
        name = cell.method if cell.setting == DEFAULT else f"{cell.method}@{cell.setting}"
        return name if len(self.corpora) == 1 else f"{cell.corpus}/{name}"

    def files(self) -> list[Path]:
        """What the plan reads, itself first."""
        named = [
            path for corpus in self.corpora.values() for path in (*corpus.files.values(), *corpus.heldout.values())
        ]
        named += [model.load for model in self.models.values() if model.load is not None]
        named += [Path(value["file"]) for value in self._tokenizers() if "file" in value]
        named += [Path(value["merges"]) for value in self._tokenizers() if "merges" in value]
        return [self.path, *dict.fromkeys(named)]

    def _tokenizers(self) -> Iterator[Mapping[str, Any]]:
        yield self.tokenizer
        yield from (model.tokenizer for model in self.models.values() if model.tokenizer is not None)


def merged_with(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, section by section; None takes a value away."""
    merged = dict(deepcopy(dict(base)))
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merged_with(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged
