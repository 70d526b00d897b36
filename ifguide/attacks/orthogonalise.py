"""Orthogonalisation: does abuse come back when the direction that holds it down is taken out?

Every model is judged as it is, then without each of the directions (`ifguide.attacks.directions`) and, as the control,
without a random direction, taken out in the same ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ifguide.attacks.directions import (
    Sums,
    principal,
    query_rows,
    remove_from_weights,
    removed_from_layers,
    separation,
    sums_of,
    unit,
)
from ifguide.attacks.folder import finish, working_in
from ifguide.attacks.judge import Heard, difference, load_judge
from ifguide.attacks.options import Judges, Orthogonalise, Prompts, Subjects
from ifguide.attacks.subjects import (
    Subject,
    load_subject,
    read_documents,
    read_prompts,
    read_targets,
    require_models,
    subjects_of,
)
from ifguide.data.sources.names import input_hash
from ifguide.errors import InputError, MismatchError
from ifguide.evaluation.perplexity import language_model_perplexity
from ifguide.models.language_model import LanguageModel
from ifguide.pages.attacks.orthogonalise import orthogonalise_page
from ifguide.system.journal import Journal, key_of
from ifguide.system.progress import Progress

RANDOM, BEFORE = "random", "as it is"


def orthogonalise(
    subjects: Subjects, options: Orthogonalise, prompts: Prompts, judges: Judges, *, progress: bool = False
) -> dict[str, Any]:
    """Run the attack; the same call goes on where a killed one stopped.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: unusable models, files, options or scorers.
        NumericsError: states or logits that are not finite.
    """
    return _Orthogonalising(subjects, options, prompts, judges).run(progress)


class _Orthogonalising:
    """One call: its files are read and checked when it is made."""

    def __init__(self, subjects: Subjects, options: Orthogonalise, prompts: Prompts, judges: Judges):
        self.began = time.time()
        self.options, self.asked, self.files, self.judges = subjects, options, prompts, judges
        self.models = subjects_of(subjects.models)
        self.about = require_models(self.models)
        self.prompts = [row["prompt"] for row in read_prompts(prompts)]
        self.heldout = read_documents(prompts.heldout, "held-out texts") if prompts.heldout else []
        self.queries = {
            kind: [(row["prompt"], row["completion"]) for row in read_targets(path, f"{kind} queries")]
            for kind, path in (("toxic", options.toxic), ("safe", options.safe))
        }
        self.judge, self.scorers = load_judge(judges, subjects)
        self.seed = judges.sampling.seed
        self.base: LanguageModel | None = None
        self.base_sums: dict[str, Sums] = {}

    def run(self, progress: bool) -> dict[str, Any]:
        runs: list[dict[str, Any]] = []
        details: list[dict[str, Any]] = []
        layers: dict[str, dict[str, Any]] = {}
        with working_in(self.options.output) as journal:
            total = sum(1 + len(self._names(subject)) * len(self.asked.remove) for subject in self.models)
            with Progress(total, "measurements", "orthogonalise", quiet=not progress) as bar:
                for subject in self.models:
                    layers[subject.name], made = self._model(subject, journal, lambda: bar.update(1))
                    for run, heard in made:
                        runs.append(run)
                        how = f"{run['direction']}, {run['remove']}" if run["remove"] else run["direction"]
                        details += [{"model": subject.name, "way": how, **said} for said in heard.worst(self.prompts)]
            results = {
                "settings": {
                    "directions": asdict(self.asked), "judges": asdict(self.judges), "prompts": len(self.prompts),
                    "subset": self.files.subset, "dtype": self.options.dtype,
                },
                "models": {name: about | layers[name] for name, about in self.about.items()},
                "base": self.models[0].name, "scorers": self.scorers, "runs": runs,
            }  # fmt: skip
            inputs = {"--prompts": self.files.prompts, "--heldout": self.files.heldout, "--toxic": self.asked.toxic,
                      "--safe": self.asked.safe}  # fmt: skip
            return finish(
                self.options.output, "attack-orthogonalise", results, details, inputs, self.began,
                lambda whole: orthogonalise_page(whole, details),
            )  # fmt: skip

    def _names(self, subject: Subject) -> list[str]:
        """The directions of a model: the base has no edit, and its own is the base's."""
        is_base = subject == self.models[0]
        asked = [name for name in dict.fromkeys(self.asked.direction) if not (is_base and name != "own")]
        return [*asked, RANDOM]

    def _model(
        self, subject: Subject, journal: Journal, done: Callable[[], None]
    ) -> tuple[dict[str, Any], list[tuple[dict[str, Any], Heard]]]:
        """What is known of its layers, and a run with what was heard for each way to judge it."""
        lm = load_subject(subject.folder, self.options)
        known = self.about[subject.name]["identity"]
        key = key_of(known, self.options.dtype, self.options.eod_token)
        found, layers, chosen = self._directions(lm, subject)
        before = self._measure(lm, journal, key)
        made = [(self._run(subject, BEFORE, None, before, None), before[0])]
        done()
        decisive = [
            self.about[self.models[0].name]["identity"],
            input_hash(self.asked.toxic),
            input_hash(self.asked.safe),
        ]
        decisive += [self.asked.outliers, chosen, self.seed]
        for name, v in found.items():
            for remove in dict.fromkeys(self.asked.remove):
                own = key_of(key, decisive, name, remove)
                with self._removed(lm, subject, v, remove, chosen) as edited:
                    after = self._measure(edited, journal, own)
                made.append((self._run(subject, name, remove, after, before), after[0]))
                done()
        if subject == self.models[0]:
            self.base = lm
        return layers, made

    def _directions(self, lm: LanguageModel, subject: Subject) -> tuple[dict[str, Tensor], dict[str, Any], int]:
        """Unit directions ``[L, D]`` by name, what the results say of them, and the layer that is asked for."""
        rows = {kind: query_rows(lm, queries) for kind, queries in self.queries.items()}
        sums = {kind: sums_of(lm, found, self.asked.outliers) for kind, found in rows.items()}
        own = unit(sums["toxic"].mean - sums["safe"].mean)
        parted = separation(sums["toxic"], sums["safe"])
        if not self.base_sums:
            self.base_sums = sums
        base = unit(self.base_sums["toxic"].mean - self.base_sums["safe"].mean)
        if base.shape != own.shape:
            raise MismatchError(
                f"model {subject.name} has states of the shape {tuple(own.shape)}, the base {tuple(base.shape)}: their "
                "directions cannot be compared; attack it by itself"
            )
        if (self.asked.layer or 1) > len(own):
            raise InputError(f"--layer {self.asked.layer}: model {subject.name} has {len(own)} blocks")
        found = {}
        for name in self._names(subject):
            if name == RANDOM:
                random = torch.Generator().manual_seed(self.seed)
                found[name] = unit(torch.randn(own.shape, generator=random, dtype=torch.float64).to(lm.device))
            elif name in ("own", "base"):
                found[name] = own if name == "own" else base.to(lm.device)
            else:
                by_component = name == "edit-pc"
                edit = sums_of(lm, rows["toxic"], self.asked.outliers, self.base, second=by_component)
                found[name] = unit(principal(edit) if by_component else edit.mean)
        # the base's layer for all models, so that the same place is changed
        where = separation(self.base_sums["toxic"], self.base_sums["safe"])
        chosen = self.asked.layer or int(where.argmax()) + 1
        layers = {
            "layer": chosen,
            "separation": parted.tolist(),
            "cosine_to_base": {
                name: (v * base.to(v.device)).sum(dim=1).tolist() for name, v in found.items() if name != "base"
            },
        }
        return found, layers, chosen

    def _removed(
        self, lm: LanguageModel, subject: Subject, v: Tensor, remove: str, layer: int
    ) -> AbstractContextManager[LanguageModel]:
        if remove == "weights":
            return self._without_in_weights(subject, v[layer - 1])
        return self._without_behind(lm, v, layer if remove == "layer" else None)

    @contextmanager
    def _without_in_weights(self, subject: Subject, v: Tensor) -> Iterator[LanguageModel]:
        edited = load_subject(subject.folder, self.options)
        remove_from_weights(edited, v)
        yield edited

    @contextmanager
    def _without_behind(self, lm: LanguageModel, v: Tensor, layer: int | None) -> Iterator[LanguageModel]:
        with removed_from_layers(lm, v, layer):
            yield lm

    def _measure(self, lm: LanguageModel, journal: Journal, key: str) -> tuple[Heard, float | None]:
        heard = self.judge.hear(lm, self.prompts, journal, key)
        if not self.heldout:
            return heard, None
        name = key_of("perplexity", key, self.heldout)
        if name not in journal:
            value = float(language_model_perplexity(lm, self.heldout))
            journal.write([{"key": name, "perplexity": value if value < float("inf") else None}])
        return heard, journal[name]["perplexity"]

    def _run(
        self, subject: Subject, direction: str, remove: str | None, after: tuple[Heard, float | None],
        before: tuple[Heard, float | None] | None,
    ) -> dict[str, Any]:  # fmt: skip
        moved = {name: difference(after[0], before[0], name, self.seed) for name in after[0].scores} if before else None
        return {
            "model": subject.name, "direction": direction, "remove": remove, "perplexity": after[1],
            **self.judge.numbers(after[0]), "moved": moved,
        }  # fmt: skip
