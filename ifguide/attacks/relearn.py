"""Relearning: how many documents and steps bring back what a model no longer says.

Each model is fine-tuned on N toxic or N clean documents, the same for all models and in the same order, and judged
after some steps. A model that only hides its abuse has it back after a few steps, even on clean documents; one that
never learned it has to learn it. The level to reach is that of the untouched base:

    steps to the base = the first measured step s with  EMT_model(s) >= EMT_base(0)

Its interval is the bootstrap's over prompts, the same draws for both; "never" counts as later than any step.

Shapes: P prompts, K continuations, S measured steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.attacks.folder import finish, working_in
from ifguide.attacks.judge import RESAMPLES, Heard, load_judge
from ifguide.attacks.options import Judges, Prompts, Relearn, Subjects
from ifguide.attacks.subjects import (
    Subject,
    load_subject,
    read_documents,
    read_prompts,
    require_models,
    subjects_of,
)
from ifguide.attacks.training import chosen, token_rows, tune
from ifguide.errors import InputError
from ifguide.evaluation.perplexity import language_model_perplexity
from ifguide.models.language_model import LanguageModel
from ifguide.pages.attacks.relearn import relearn_page
from ifguide.requirements.ranges import installed
from ifguide.statistics.resampling import bootstrap
from ifguide.system.files import hash_value
from ifguide.system.journal import Journal, key_of
from ifguide.system.progress import Progress

# what two means of the same numbers, summed in another order, may differ by
_ROUNDING = 1e-12
# step, mean training loss since the measurement before, what was said, perplexity
Measured = tuple[int, float | None, Heard, float | None]


def steps_to_level(
    worst: NDArray[np.float64], level: NDArray[np.float64], at: Sequence[int], seed: int = 0
) -> dict[str, Any]:
    """The first of the steps ``at`` whose mean is at least that of ``level``.

    Args:
        worst: ``[S, P]``, of each prompt its highest score (or whether that is toxic).
        level: ``[P]``, the same of the untouched base.

    Returns:
        ``step`` and the two ends of its 95 % ``interval`` over prompts, None for "never within K", and ``never``: the
        share of resamples in which it is never reached.
    """
    columns = np.concatenate([worst, level[None]]).T  # [P, S + 1]
    pairs = np.stack([columns, np.ones_like(columns)], axis=-1)
    draws = np.concatenate([columns.mean(axis=0)[None], bootstrap(pairs, "mean", RESAMPLES, seed)])
    reached = draws[:, :-1] >= draws[:, -1:] - _ROUNDING  # [1 + R, S]
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(at))
    low, high = np.quantile(first[1:], [0.025, 0.975], method="inverted_cdf").tolist()

    def step(index: int) -> int | None:
        return None if index == len(at) else at[index]

    return {
        "step": step(int(first[0])),
        "interval": [step(int(low)), step(int(high))],
        "never": float((first[1:] == len(at)).mean()),
    }


def relearn(
    subjects: Subjects, recipe: Relearn, prompts: Prompts, judges: Judges, *, progress: bool = False
) -> dict[str, Any]:
    """Run the attack; the same call goes on where a killed one stopped.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: unusable models, files, options or scorers.
        NumericsError: a loss or logits that are not finite.
    """
    return _Relearning(subjects, recipe, prompts, judges).run(progress)


class _Relearning:
    """One call: its files are read and checked when it is made."""

    def __init__(self, subjects: Subjects, recipe: Relearn, prompts: Prompts, judges: Judges):
        self.began = time.time()
        self.options, self.recipe, self.files, self.judges = subjects, recipe, prompts, judges
        if subjects.dtype not in ("float32", "float64"):
            raise InputError(f"--dtype {subjects.dtype}: weights are trained here; take float32")
        if recipe.toxic is None and recipe.clean is None:
            raise InputError("give --toxic or --clean documents, or both")
        self.models = subjects_of(subjects.models)
        self.about = require_models(self.models)
        self.rows = read_prompts(prompts)
        self.prompts = [row["prompt"] for row in self.rows]
        self.heldout = read_documents(prompts.heldout, "held-out texts") if prompts.heldout else []
        named = {"toxic": recipe.toxic, "clean": recipe.clean}
        self.texts = {kind: read_documents(path, f"{kind} documents") for kind, path in named.items() if path}
        for kind, texts in self.texts.items():
            if len(texts) < recipe.documents[-1]:
                raise InputError(f"--documents {recipe.documents[-1]}: --{kind} {named[kind]} has only {len(texts)}")
        self.judge, self.scorers = load_judge(judges, subjects)
        self.seed = judges.sampling.seed

    def run(self, progress: bool) -> dict[str, Any]:
        sets = [(kind, count) for kind in self.texts for count in self.recipe.documents]
        at = self.recipe.measured_at
        total = len(self.models) * (1 + len(sets) * (len(at) - 1))
        found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        heard: dict[tuple[str, str, int], list[Heard]] = {}
        details = []
        with working_in(self.options.output) as journal:
            with Progress(total, "measurements", "relearn", quiet=not progress) as bar:
                for subject in self.models:
                    untouched = self._untouched(subject, journal)
                    bar.update(1)
                    for kind, count in sets:
                        points: list[Measured] = [(0, None, *untouched)]
                        for point in self._tuned(subject, kind, count, journal):
                            points.append(point)
                            bar.update(1)
                        key = (subject.name, kind, count)
                        heard[key] = [one[2] for one in points]
                        found[key] = [self._point(*one) for one in points]
                        details += [
                            {"model": subject.name, "documents": f"{count} {kind}", "step": one[0], **said}
                            for one in points
                            for said in one[2].worst(self.prompts)
                        ]
            base = self.models[0].name
            results = {
                "settings": {
                    "recipe": asdict(self.recipe) | {"at": list(at)}, "judges": asdict(self.judges),
                    "prompts": len(self.rows), "subset": self.files.subset, "dtype": self.options.dtype,
                    "peft": installed("peft") if self.recipe.lora else None,
                },
                "models": self.about, "base": base, "scorers": self.scorers,
                "runs": [
                    {
                        "model": name, "kind": kind, "documents": count, "points": found[name, kind, count],
                        "to_base": self._to_base(heard[name, kind, count], heard[base, kind, count][0], at),
                    }
                    for name, kind, count in found
                ],
            }  # fmt: skip
            inputs = {"--prompts": self.files.prompts, "--heldout": self.files.heldout,
                      "--toxic": self.recipe.toxic, "--clean": self.recipe.clean}  # fmt: skip
            return finish(
                self.options.output, "attack-relearn", results, details, inputs, self.began,
                lambda whole: relearn_page(whole, details),
            )  # fmt: skip

    def _untouched(self, subject: Subject, journal: Journal) -> tuple[Heard, float | None]:
        key = self._key(subject)
        lm = None if self._knows(journal, key) else load_subject(subject.folder, self.options)
        return self._measure(lm, journal, key)

    def _tuned(self, subject: Subject, kind: str, count: int, journal: Journal) -> Iterator[Measured]:
        """After each measured step but 0."""
        texts = chosen(self.texts[kind], count, self.seed)
        recipe = {
            name: value for name, value in asdict(self.recipe).items() if name not in ("toxic", "clean", "documents")
        }
        recipe["at"] = self.recipe.at[-1]  # the schedule's length; where it is looked at changes nothing
        at = self.recipe.measured_at[1:]
        keys = {step: self._key(subject, recipe, hash_value(texts), step) for step in at}
        losses = {step: key_of("loss", keys[step]) for step in at}
        if all(self._knows(journal, keys[step]) and losses[step] in journal for step in at):
            for step in at:
                yield (step, journal[losses[step]]["loss"], *self._measure(None, journal, keys[step]))
            return
        lm = load_subject(subject.folder, self.options)
        rows = token_rows(lm, texts, self.recipe.max_tokens)
        since: list[float] = []
        for step, loss in enumerate(tune(lm, rows, self.recipe, self.seed), start=1):
            since.append(loss)
            if step in keys:
                heard, ppl = self._measure(lm, journal, keys[step])
                mean = sum(since) / len(since)
                if losses[step] not in journal:
                    journal.write([{"key": losses[step], "loss": mean}])
                yield step, mean, heard, ppl
                since = []

    def _key(self, subject: Subject, *more: Any) -> str:
        known = self.about[subject.name]["identity"]
        return key_of(known, self.options.dtype, self.options.eod_token, self.seed if more else None, *more)

    def _knows(self, journal: Journal, key: str) -> bool:
        known = self.judge.knows(self.prompts, journal, key)
        return known and (not self.heldout or self._perplexity_key(key) in journal)

    def _perplexity_key(self, key: str) -> str:
        return key_of("perplexity", key, self.heldout)

    def _measure(self, lm: LanguageModel | None, journal: Journal, key: str) -> tuple[Heard, float | None]:
        """``lm`` is None where the journal is known to have it all."""
        heard = self.judge.hear(lm, self.prompts, journal, key)
        if not self.heldout:
            return heard, None
        name = self._perplexity_key(key)
        if name not in journal:
            assert lm is not None
            value = float(language_model_perplexity(lm, self.heldout))
            # a model that was tuned to pieces may have none that JSON can hold
            journal.write([{"key": name, "perplexity": value if math.isfinite(value) else None}])
        return heard, journal[name]["perplexity"]

    def _point(self, step: int, loss: float | None, heard: Heard, ppl: float | None) -> dict[str, Any]:
        return {"step": step, "training_loss": loss, "perplexity": ppl, **self.judge.numbers(heard)}

    def _to_base(self, points: Sequence[Heard], base: Heard, at: Sequence[int]) -> dict[str, Any]:
        """By scorer: how many steps until the base's EMT, and until its TP."""
        found = {}
        for name in base.scores:
            worst = np.stack([heard.scores[name].max(axis=1) for heard in points])
            level = base.scores[name].max(axis=1)
            toxic = self.judges.threshold
            found[name] = {
                "emt": steps_to_level(worst, level, at, self.seed),
                "tp": steps_to_level((worst >= toxic).astype(float), (level >= toxic).astype(float), at, self.seed),
            }
        return found
