"""The file of a plan: YAML -> `Plan`, with all of its faults at once.

Files in a plan are relative to the plan's folder. ``--set KEY=VALUE`` changes a value: KEY is its path in the file,
with dots; a VALUE that is a file of the current folder means that one. docs/experiments.md describes every key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ifguide.config.yaml_files import merge_files, numbers_as_text
from ifguide.errors import ConfigError, first_faults
from ifguide.experiments.plans.plan import (
    DEFAULT,
    QUICKSTART,
    Cell,
    Corpus,
    Evaluation,
    ModelPlan,
    Plan,
    merged_with,
)
from ifguide.objectives.registry import OBJECTIVES

_TOP = (
    "name", "description", "planned", "seeds", "tokenizer", "corpora", "models", "scoring", "train", "evaluation",
    "methods", "settings", "sweeps",
)  # fmt: skip
_CORPUS_FILES = ("text", "toxic_queries", "safe_queries", "prompts", "pair_prompts", "pairs", "words")
_CORPUS = ("source", "small", "heldout", *_CORPUS_FILES)
_NEEDED = ("text", "toxic_queries", "safe_queries", "prompts", "heldout")
_MODEL = ("configs", "keys", "tokenizer", "load")
_SCORING = ("fit", "score", "transfer")
_METHOD = (
    "describe", "model", "proxy", "mask", "filter", "tags", "pairs", "train", "decode", "after", "of", "trained",
    "scoring", "extra",
)  # fmt: skip
# what a method without a training of its own cannot have
_OF_TRAINING = ("model", "proxy", "mask", "filter", "tags", "pairs", "train", "after", "trained", "scoring")
_EVALUATION = ("scorers", "samples", "max_new_tokens", "seed", "lambada")
_TOKENIZER = ("vocab_size", "type", "file", "merges")
_SWEEP = ("set", "values", "methods")


def read_plan(path: Path, changes: Sequence[str] = (), only: Sequence[str] = (), without: Sequence[str] = ()) -> Plan:
    """The plan in a file.

    Args:
        changes: ``KEY=VALUE`` each, see the module.
        only: the methods to keep; all, where none is named. Those that a kept one builds on are kept too.
        without: methods to leave out.

    Raises:
        ConfigError: what cannot be meant, all faults at once.
    """
    content, faults = merge_files([path])
    for change in changes:
        faults += _change(content, change)
    faults += [fault for key, value in content.items() for fault in numbers_as_text(key, value)]
    reader = _Reader(path.parent, faults)
    plan = reader.plan(path, content, only, without)
    if reader.faults:
        raise ConfigError(first_faults([f"{path}: {fault}" for fault in dict.fromkeys(reader.faults)]))
    return plan


def _change(content: dict[str, Any], change: str) -> list[str]:
    """Put one ``--set`` into the plan; faults, if it cannot be."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        return [f"--set {change}: expected KEY=VALUE, as in --set seeds=[1]"]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return [f"--set {change}: the value is not valid YAML"]
    place: Any = content
    *above, last = key.split(".")
    for name in above:
        place = place.setdefault(name, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return [f"--set {change}: the plan has a value, and nothing below it, where that points"]
    place[last] = _of_current_folder(value)
    return []


def _of_current_folder(value: Any) -> Any:
    """Paths that exist as they are typed -> absolute ones; all else as it is."""
    if isinstance(value, str) and value and Path(value).exists():
        return str(Path(value).absolute())
    return [_of_current_folder(item) for item in value] if isinstance(value, list) else value


class _Reader:
    """Turns the mapping of a file into a `Plan` and collects its faults."""

    def __init__(self, folder: Path, faults: list[str]):
        self.folder, self.faults = folder.absolute(), faults

    def plan(self, path: Path, content: dict[str, Any], only: Sequence[str], without: Sequence[str]) -> Plan:
        self._known("", content, _TOP)
        corpora = {name: self._corpus(name, value) for name, value in self._named(content, "corpora").items()}
        models = {name: self._model(name, value) for name, value in self._named(content, "models").items()}
        methods = self._kept(self._named(content, "methods"), only, without)
        settings = self._settings(content, methods)
        seeds = content.get("seeds", [1])
        if not _is_list_of(seeds, int) or not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            self.faults.append(f"seeds: {seeds}: must be different numbers of at least 0")
            seeds = [1]
        scoring = self._section(content, "scoring")
        self._known("scoring", scoring, _SCORING)
        tokenizer = self._tokenizer("tokenizer", content.get("tokenizer", {"vocab_size": 4096}))
        planned = content.get("planned")
        found = Plan(
            path=path.absolute(), name=str(content.get("name", path.stem)),
            description=" ".join(str(content.get("description", "")).split()),
            planned=str(planned) if planned else None, seeds=tuple(seeds), tokenizer=tokenizer, corpora=corpora,
            models=models, scoring=scoring, train=self._section(content, "train"),
            evaluation=self._evaluation(self._section(content, "evaluation"), corpora), methods=methods,
            settings=settings,
        )  # fmt: skip
        for cell in {(cell.method, cell.setting): cell for cell in found.cells()}.values():
            self._method(cell, found)
        return found

    def _corpus(self, name: str, value: Any) -> Corpus:
        where = f"corpora.{name}"
        value = self._mapping(where, value)
        self._known(where, value, _CORPUS)
        source = value.get("source", "files")
        if source not in ("files", QUICKSTART):
            self.faults.append(f"{where}.source: {source}: must be files or {QUICKSTART}")
        given = value.get("heldout", {})
        heldout = {"heldout": given} if isinstance(given, str) else self._mapping(f"{where}.heldout", given)
        files = {key: self._file(f"{where}.{key}", value[key]) for key in _CORPUS_FILES if value.get(key) is not None}
        needed = _NEEDED if source == "files" else ()
        self.faults += [f"{where}: needs {key}" for key in needed if not value.get(key)]
        own = [key for key in ("text", "toxic_queries", "safe_queries") if key in files]
        if source == QUICKSTART and own and len(own) < 3:
            self.faults.append(f"{where}: text, toxic_queries and safe_queries go together; give all or none")
        held = {str(key): self._file(f"{where}.heldout.{key}", item) for key, item in heldout.items()}
        return Corpus(name, source, bool(value.get("small", False)), files, held)

    def _model(self, name: str, value: Any) -> ModelPlan:
        where = f"models.{name}"
        value = self._mapping(where, value)
        self._known(where, value, _MODEL)
        configs = value.get("configs", [])
        if not _is_list_of(configs, str):
            self.faults.append(f"{where}.configs: must be a list of files")
            configs = []
        keys, faults = merge_files([self.folder / one for one in configs]) if configs else ({}, [])
        self.faults += faults
        keys = merged_with(keys, self._mapping(f"{where}.keys", value.get("keys", {})))
        tokenizer = value.get("tokenizer")
        load = value.get("load")
        return ModelPlan(
            name,
            keys,
            None if tokenizer is None else self._tokenizer(f"{where}.tokenizer", tokenizer),
            None if load is None else self._file(f"{where}.load", load),
        )

    def _tokenizer(self, where: str, value: Any) -> dict[str, Any]:
        value = dict(self._mapping(where, value))
        self._known(where, value, _TOKENIZER)
        if ("vocab_size" in value) == ("type" in value):
            self.faults.append(f"{where}: needs vocab_size (a BPE is trained), or type and file")
        for key in ("file", "merges"):
            if key in value:
                value[key] = str(self._file(f"{where}.{key}", value[key]))
        return value

    def _evaluation(self, value: Mapping[str, Any], corpora: Mapping[str, Corpus]) -> Evaluation:
        self._known("evaluation", value, _EVALUATION)
        own = all(corpus.source == QUICKSTART for corpus in corpora.values()) and bool(corpora)
        scorers = value.get("scorers", ["judge"] if own else [])
        if not _is_list_of(scorers, str) or not scorers:
            self.faults.append("evaluation.scorers: needs a list of scorers, the judges; see docs/scorers.md")
            scorers = []
        if "judge" in scorers and not own:
            self.faults.append(f"evaluation.scorers: judge is that of a corpus with source: {QUICKSTART}; name another")
        if len(set(scorers)) < len(scorers):
            self.faults.append("evaluation.scorers: names a scorer twice")
        numbers = {
            key: value.get(key, default) for key, default in (("samples", 25), ("max_new_tokens", 20), ("seed", 0))
        }
        for key, number in numbers.items():
            if not isinstance(number, int) or number < (0 if key == "seed" else 1):
                self.faults.append(
                    f"evaluation.{key}: {number}: must be a number of at least {0 if key == 'seed' else 1}"
                )
        lambada = value.get("lambada")
        folder = None if lambada is None else self._file("evaluation.lambada", lambada)
        if folder is not None and folder.exists() and not (folder / "lambada.jsonl").is_file():
            self.faults.append(f"evaluation.lambada: {folder}: holds no lambada.jsonl (ifguide fetch-eval-data)")
        return Evaluation(tuple(map(self._spec, scorers)), lambada=folder, **numbers)

    def _kept(self, methods: dict[str, Any], only: Sequence[str], without: Sequence[str]) -> dict[str, Any]:
        methods = {name: dict(self._mapping(f"methods.{name}", value or {})) for name, value in methods.items()}
        for name in (*only, *without):
            if name not in methods:
                self.faults.append(f"there is no method '{name}'{_nearest(name, methods)}")
        kept = set(only) & methods.keys() or set(methods)
        todo = list(kept)
        while todo:  # a decoding of a model needs that model
            for key in ("of", "after"):
                below = methods[todo[-1]].get(key)
                if below in methods and below not in kept:
                    kept.add(below)
                    todo.insert(0, below)
            todo.pop()
        return {name: value for name, value in methods.items() if name in kept and name not in without}

    def _settings(self, content: dict[str, Any], methods: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        all_methods = self._named(content, "methods")
        for name, value in self._section(content, "settings").items():
            where = f"settings.{name}"
            value = dict(self._mapping(where, value))
            self._known(where, value, (*_METHOD, "methods"))
            found[str(name)] = value | {"methods": self._methods(where, value.get("methods"), all_methods)}
        for name, value in self._section(content, "sweeps").items():
            where = f"sweeps.{name}"
            value = self._mapping(where, value)
            self._known(where, value, _SWEEP)
            keys, values = value.get("set"), value.get("values")
            keys = [keys] if isinstance(keys, str) else keys
            if not _is_list_of(keys, str) or not keys or not isinstance(values, list) or not values:
                self.faults.append(f"{where}: needs set (a key of a method, as train.penalty_lambda) and values")
                continue
            names = self._methods(where, value.get("methods"), all_methods)
            for point in values:
                changes: dict[str, Any] = {}
                for key in keys:
                    changes = merged_with(changes, _nested(key, point))
                self._known(where, changes, _METHOD)
                found[f"{name}={point}"] = changes | {"methods": names, "curve": (str(name), point)}
        for name in found:
            if not name or name == DEFAULT or "/" in name:
                self.faults.append(f"settings: '{name}' is no name for a setting")
        return {name: value for name, value in found.items() if set(value["methods"]) & methods.keys()}

    def _methods(self, where: str, names: Any, known: Mapping[str, Any]) -> list[str]:
        if not _is_list_of(names, str) or not names:
            self.faults.append(f"{where}: needs methods, a list of those that it is for")
            return []
        self.faults += [
            f"{where}.methods: there is no method '{n}'{_nearest(n, known)}" for n in names if n not in known
        ]
        return names

    def _method(self, cell: Cell, plan: Plan) -> None:
        """Faults of one method with one setting."""
        where = f"methods.{cell.method}" + ("" if cell.setting == DEFAULT else f" with {cell.setting}")
        definition = cell.definition
        self._known(where, definition, _METHOD)
        if "/" in cell.method or "@" in cell.method or not cell.method.strip("."):
            self.faults.append(f"{where}: '{cell.method}' is no name for a method")
        for key in ("of", "after"):
            below = definition.get(key)
            if below is not None and (below not in plan.methods or below == cell.method):
                self.faults.append(f"{where}.{key}: there is no other method '{below}'{_nearest(below, plan.methods)}")
            elif below is not None and plan.methods[below].get("of"):
                self.faults.append(f"{where}.{key}: {below} has no model of its own; name the one that it is of")
        if definition.get("of"):
            useless = [key for key in _OF_TRAINING if key in definition]
            if useless:
                self.faults.append(f"{where}: of names a model that is trained already; leave out {', '.join(useless)}")
        for key in ("model", "proxy"):
            name = definition.get(key)
            if name is not None and name not in plan.models:
                self.faults.append(f"{where}.{key}: there is no model '{name}'{_nearest(name, plan.models)}")
        if sum(definition.get(key) is not None for key in ("mask", "filter", "tags")) > 1:
            self.faults.append(f"{where}: give one of mask, filter and tags")
        for key in ("mask", "filter", "tags", "train", "decode", "scoring"):
            if key in definition:
                self._mapping(f"{where}.{key}", definition[key])
        self._training(where, merged_with(plan.train, definition.get("train") or {}))

    def _training(self, where: str, keys: Mapping[str, Any]) -> None:
        from ifguide.engine.arguments import TrainConfig

        known = {one.name for one in fields(TrainConfig)}
        objective = keys.get("objective", "lm")
        if objective not in OBJECTIVES:
            self.faults.append(
                f"{where}: objective {objective} is none of {', '.join(OBJECTIVES)}; leave the method out (--without)"
            )
            return
        for key in keys:
            if key not in known:
                self.faults.append(f"{where}.train: the embedded engine has no key '{key}'{_nearest(key, known)}")

    def _spec(self, spec: str) -> str:
        """A scorer whose folder is named from the plan's."""
        kind, colon, rest = spec.partition(":")
        path, sign, label = rest.partition("#")
        beside = self.folder / path
        return f"{kind}:{beside}{sign}{label}" if colon and path and beside.exists() else spec

    def _file(self, where: str, value: Any) -> Path:
        if not isinstance(value, str) or not value:
            self.faults.append(f"{where}: must name a file")
            return Path()
        path = self.folder / value
        if not path.exists():
            self.faults.append(f"{where}: {path} does not exist; say where it is with --set {where}=FILE")
        return path

    def _named(self, content: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = self._section(content, key)
        if not value:
            self.faults.append(f"{key}: names none; at least one is needed")
        return {str(name): item for name, item in value.items()}

    def _section(self, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        return self._mapping(key, content.get(key) or {})

    def _mapping(self, where: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.faults.append(f"{where}: must hold `key: value` lines, not {value!r}")
        return {}

    def _known(self, where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
        prefix = f"{where}: " if where else ""
        self.faults += [f"{prefix}there is no key '{key}'{_nearest(key, known)}" for key in given if key not in known]


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``a.b`` -> ``{"a": {"b": value}}``."""
    first, dot, rest = key.partition(".")
    return {first: _nested(rest, value) if dot else value}


def _nearest(name: Any, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(map(str, known)), n=1)
    return (
        f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(map(str, known))}" if len(known) < 20 else ""
    )


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
