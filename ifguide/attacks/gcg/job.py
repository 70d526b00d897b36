"""``ifguide attack gcg``: a suffix for each target, or with ``--enhanced`` a prefix for all, for each model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ifguide.attacks.folder import finish, working_in
from ifguide.attacks.gcg.candidates import alphabet, survivors
from ifguide.attacks.gcg.loss import SuffixLoss
from ifguide.attacks.gcg.search import attack
from ifguide.attacks.gcg.success import WAYS, summary, try_texts
from ifguide.attacks.gcg.universal import UniversalAttack
from ifguide.attacks.judge import Judge, load_judge
from ifguide.attacks.options import Enhanced, Gcg, Judges, Subjects
from ifguide.attacks.subjects import Subject, load_subject, read_targets, require_models, subjects_of
from ifguide.errors import InputError
from ifguide.generation.draw import continuation_texts
from ifguide.models.language_model import LanguageModel
from ifguide.pages.attacks.gcg import gcg_page
from ifguide.system.files import hash_value
from ifguide.system.journal import Journal, key_of
from ifguide.system.progress import Progress


def gcg(
    subjects: Subjects, options: Gcg, enhanced: Enhanced, judges: Judges, *, progress: bool = False
) -> dict[str, Any]:
    """Run the attack; the same call goes on where a killed one stopped.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: unusable models, targets, options or scorers.
        NumericsError: losses or logits that are not finite.
    """
    began = time.time()
    models = subjects_of(subjects.models)
    targets = read_targets(options.targets, limit=options.limit)
    about = require_models(models)
    judge, described = load_judge(judges, subjects)
    universal = (
        UniversalAttack(enhanced, models, subjects, targets, judges.sampling.seed) if enhanced.enhanced else None
    )
    found: dict[str, Any] = {}
    details: list[dict[str, Any]] = []
    with working_in(subjects.output) as journal:
        for subject in models:
            lm = load_subject(subject.folder, subjects)
            key = key_of(about[subject.name]["identity"], subjects.dtype, subjects.eod_token)
            if universal is None:
                run = _SuffixAttack(lm, subject, options, judge, journal, key, subjects.batch_size)
                found[subject.name], rows = run.run(targets, progress)
            else:
                found[subject.name], rows = universal.run(lm, subject, options.any_token, judge, journal, key, progress)
            details += rows
        results = {
            "settings": {
                "search": asdict(options), "enhanced": asdict(enhanced) if universal else None,
                "judges": asdict(judges), "targets": len(targets), "dtype": subjects.dtype,
            },
            "models": {name: about[name] | found[name] for name in found},
            "base": models[0].name, "scorers": described,
        }  # fmt: skip
        inputs = {"--targets": options.targets}
        return finish(
            subjects.output, "attack-gcg", results, details, inputs, began, lambda whole: gcg_page(whole, details)
        )


class _SuffixAttack:
    """A suffix for each target, of one model."""

    def __init__(
        self,
        lm: LanguageModel,
        subject: Subject,
        options: Gcg,
        judge: Judge,
        journal: Journal,
        key: str,
        batch_size: int | None,
    ):
        self._lm, self._name, self._options, self._judge = lm, subject.name, options, judge
        self._journal, self._rows = journal, batch_size
        self._seed = judge.sampling.seed
        decisive = {
            name: value for name, value in asdict(options).items() if name not in ("targets", "limit", "restarts")
        }
        self._key = key_of(key, decisive, self._seed)
        self._model_key = key
        self._allowed = alphabet(lm, options.any_token)

    def run(self, targets: Sequence[Mapping[str, Any]], progress: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The model's part of the results, and a row a target."""
        lm = self._lm
        encoded = lm.encode([target["completion"] for target in targets])
        contexts = [lm.reader.prompt(target["prompt"]) for target in targets]
        self._check(targets, contexts, encoded)
        attempts = []
        with Progress(len(targets), "targets", f"attack {self._name}", quiet=not progress) as bar:
            for target, context, ids in zip(targets, contexts, encoded):
                attempts.append(self._restarts(target["prompt"], context, ids))
                bar.update(1)
        best = [min(some, key=lambda one: (not one["exact"], one["loss"])) for some in attempts]
        # as many random suffixes as attempts, and like them the best: the chance that the search began with
        control = [min(some, key=lambda one: one["start_loss"]) for some in attempts]
        suffixes = {
            "none": [[] for _ in targets],
            "random": [one["start"] for one in control],
            "attack": [one["suffix"] for one in best],
        }
        texts = {
            way: [
                target["prompt"] + continuation_texts(lm, context, [suffix])[0]
                for target, context, suffix in zip(targets, contexts, suffixes[way])
            ]
            for way in WAYS
        }
        tried = {way: try_texts(lm, self._judge, texts[way], encoded, self._journal, self._model_key) for way in WAYS}
        numbers = {
            "ways": {way: summary(tried[way], self._judge.threshold, self._seed) for way in WAYS},
            "curve": exact_curve(attempts, self._options.steps * self._options.restarts),
            "loss": {
                "start": float(np.mean([one["start_loss"] for one in control])),
                "end": float(np.mean([one["loss"] for one in best])),
            },
            "steps": int(sum(one["steps"] for some in attempts for one in some)),
            "candidates": int(sum(one["tried"] for some in attempts for one in some)),
        }
        rows = [
            {
                "model": self._name, **target,
                "suffix": texts["attack"][place][len(target["prompt"]) :], "suffix_ids": best[place]["suffix"],
                "random": texts["random"][place][len(target["prompt"]) :],
                "loss": best[place]["loss"], "random_loss": control[place]["start_loss"],
                "restarts": [{key: one[key] for key in ("steps", "exact", "loss")} for one in attempts[place]],
                "losses": best[place]["losses"],
                **{way: tried[way][place] for way in WAYS},
            }
            for place, target in enumerate(targets)
        ]  # fmt: skip
        return numbers, rows

    def _restarts(self, prompt: str, context: Sequence[int], target: Sequence[int]) -> list[dict[str, Any]]:
        """Attempts until one is exact, from the journal or made now."""
        loss: SuffixLoss | None = None
        survives = survivors(self._lm, prompt)
        found: list[dict[str, Any]] = []
        for restart in range(self._options.restarts):
            key = key_of("attempt", self._key, list(context), list(target), restart)
            if key not in self._journal:
                loss = loss or SuffixLoss(self._lm, context, target, self._rows)
                identity = int(hash_value([list(context), list(target)])[:15], 16)
                random = np.random.default_rng([self._seed, identity, restart])
                made = attack(loss, self._allowed, survives, self._options, random)
                self._journal.write([{"key": key, **made.as_row()}])
            found.append(self._journal[key])
            if found[-1]["exact"]:
                break
        return found

    def _check(
        self, targets: Sequence[Mapping[str, Any]], contexts: Sequence[Sequence[int]], encoded: Sequence[Sequence[int]]
    ) -> None:
        """
        Raises:
            InputError: a target that does not fit into the model, or has nothing before it.
        """
        new = self._judge.sampling.max_new_tokens
        for target, context, ids in zip(targets, contexts, encoded):
            length = len(context) + self._options.suffix_tokens + max(len(ids), new)
            if length > self._lm.max_length:
                raise InputError(
                    f"target {target['id']}: prompt, suffix and completion are {length} tokens, and model {self._name} "
                    f"takes {self._lm.max_length}; give a shorter prompt or fewer --suffix-tokens"
                )
            if not context:
                raise InputError(f"target {target['id']}: its prompt is empty, and the tokenizer has no separator")


def exact_curve(attempts: Sequence[Sequence[Mapping[str, Any]]], most: int) -> list[list[float]]:
    """[step, share of targets that were exact by then], from 0 to ``most``; the steps of a target's restarts count one
    after the other."""
    ends = []
    for some in attempts:
        if some[-1]["exact"]:
            ends.append(sum(one["steps"] for one in some))
    points = sorted({0, *ends, most})
    return [[step, sum(end <= step for end in ends) / len(attempts)] for step in points]
