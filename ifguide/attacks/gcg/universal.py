"""``--enhanced``: one prefix for several prompts, made on some targets and tried on all.

The settings are those that unlearning was attacked with by Lucki et al. (arXiv 2409.18025); what they leave open is
said in docs/robustness.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifguide.attacks.gcg.candidates import alphabet, random_suffix
from ifguide.attacks.gcg.mutations import Buffer, search
from ifguide.attacks.gcg.prefix_loss import Case, PrefixLoss
from ifguide.attacks.gcg.success import WAYS, summary, try_texts
from ifguide.attacks.judge import Judge
from ifguide.attacks.options import Enhanced, Subjects
from ifguide.attacks.subjects import Subject, load_subject
from ifguide.errors import InputError
from ifguide.generation.draw import continuation_texts
from ifguide.models.folder import model_fingerprint, require_model_folder
from ifguide.models.language_model import LanguageModel
from ifguide.system.journal import Journal, key_of
from ifguide.system.progress import Progress

# iterations between two records of the buffer
_RECORDED = 25


class UniversalAttack:
    """The attack on each model in turn.

    Raises:
        InputError: no reference, or fewer targets than the prefix is made for and one to try it on.
    """

    def __init__(
        self,
        options: Enhanced,
        models: Sequence[Subject],
        subjects: Subjects,
        targets: Sequence[Mapping[str, Any]],
        seed: int,
    ):
        self._options, self._subjects, self._seed = options, subjects, seed
        self._folder = Path(options.reference) if options.reference else models[0].folder
        require_model_folder(self._folder, "--reference")
        self._reference_key = model_fingerprint(self._folder)
        if len(targets) <= options.prefix_prompts:
            raise InputError(
                f"{len(targets)} targets: the prefix is made for {options.prefix_prompts} of them (--prefix-prompts), "
                "and at least one is held out"
            )
        order = np.random.default_rng([seed, 0]).permutation(len(targets)).tolist()
        self._targets = [targets[place] for place in order]

    @cached_property
    def _reference(self) -> LanguageModel:
        return load_subject(self._folder, self._subjects)

    def run(
        self,
        lm: LanguageModel,
        subject: Subject,
        any_token: bool,
        judge: Judge,
        journal: Journal,
        key: str,
        progress: bool,
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The model's part of the results, and a row a target."""
        o = self._options
        made = self._targets[: o.prefix_prompts]
        cases = self._cases(lm, made)
        survives = _Survival(lm, [target["prompt"] for target in made])
        allowed = alphabet(lm, any_token)
        decisive = {name: value for name, value in asdict(o).items() if name != "reference"}
        own = key_of("universal", key, self._reference_key, decisive, any_token, self._seed, list(made))
        start = random_suffix(allowed, o.least, survives, np.random.default_rng([self._seed, 2]))
        buffer, losses = self._searched(lm, subject, cases, start, survives, allowed, journal, own, progress)
        prefix = buffer[0][1]
        control = random_suffix(allowed, len(prefix), survives, np.random.default_rng([self._seed, 3]))
        ids: dict[str, list[int]] = {"none": [], "random": control, "attack": prefix}
        before = {way: survives.text(ids[way]) for way in WAYS}
        completions = lm.encode([target["completion"] for target in self._targets])
        tried = {
            way: try_texts(
                lm, judge, [before[way] + target["prompt"] for target in self._targets], completions, journal, key
            )
            for way in WAYS
        }
        count = len(made)
        numbers = {
            "ways": {way: summary(tried[way][count:], judge.threshold, self._seed) for way in WAYS},
            "made_for": {way: summary(tried[way][:count], judge.threshold, self._seed) for way in WAYS},
            "prefix": before["attack"], "prefix_ids": prefix, "random": before["random"],
            "loss": {"start": losses[0][1], "end": buffer[0][0]}, "losses": losses,
        }  # fmt: skip
        rows = [
            {
                "model": subject.name, **target, "held_out": place >= count,
                **{way: tried[way][place] for way in WAYS},
            }
            for place, target in enumerate(self._targets)
        ]  # fmt: skip
        return numbers, rows

    def _searched(
        self,
        lm: LanguageModel,
        subject: Subject,
        cases: Sequence[Case],
        start: list[int],
        survives: _Survival,
        allowed: Any,
        journal: Journal,
        key: str,
        progress: bool,
    ) -> tuple[Buffer, list[list[float]]]:
        """The buffer in the end, and [iteration, lowest loss] on the way."""
        o = self._options
        recorded = [*range(_RECORDED, o.iterations, _RECORDED), o.iterations]
        known = [step for step in [0, *recorded] if key_of(key, step) in journal]
        last = known[-1] if known else None
        loss: PrefixLoss | None = None
        if last != o.iterations:
            needs = o.state_weight or o.angle_weight
            loss = PrefixLoss(lm, self._reference if needs else None, cases, o, self._subjects.batch_size)
        if last is None:
            assert loss is not None
            value = float(loss.losses(torch.tensor([start]))[0])
            journal.write([{"key": key_of(key, 0), "buffer": [[value, start]]}])
            last = 0
        buffer: Buffer = [(value, ids) for value, ids in journal[key_of(key, last)]["buffer"]]
        if loss is not None:
            with Progress(o.iterations, "iterations", f"attack {subject.name}", done=last, quiet=not progress) as bar:
                for step, found in search(loss, buffer, last, allowed, survives, o, self._seed):
                    bar.update(1)
                    if step in recorded:
                        journal.write([{"key": key_of(key, step), "buffer": [list(entry) for entry in found]}])
        buffer = [(value, ids) for value, ids in journal[key_of(key, o.iterations)]["buffer"]]
        losses = [[step, journal[key_of(key, step)]["buffer"][0][0]] for step in [0, *recorded]]
        return buffer, losses

    def _cases(self, lm: LanguageModel, targets: Sequence[Mapping[str, Any]]) -> list[Case]:
        """
        Raises:
            InputError: a text of the prefix's full length does not fit into the model.
        """
        o = self._options
        prompts = lm.encode([target["prompt"] for target in targets])
        completions = lm.encode([target["completion"] for target in targets])
        start = len(lm.reader.prompt(""))
        cases = []
        for target, prompt, completion in zip(targets, prompts, completions):
            said = completion[: o.forced + o.matched]
            length = start + o.most + len(prompt) + len(said)
            if length > lm.max_length:
                raise InputError(
                    f"target {target['id']}: a prefix of {o.most} tokens, prompt and completion are {length}, and "
                    f"model {lm.name} takes {lm.max_length}; lower --prefix-most"
                )
            if not prompt:
                raise InputError(f"target {target['id']}: --enhanced needs a prompt behind the prefix")
            cases.append(Case(prompt, said, min(o.forced, len(said))))
        return cases


class _Survival:
    """Which prefixes come back when their text and each of the prompts are read as one."""

    def __init__(self, lm: LanguageModel, prompts: Sequence[str]):
        self._lm, self._prompts = lm, prompts
        self._start = lm.reader.prompt("")
        self._ids = lm.encode(prompts)

    def __call__(self, prefixes: list[list[int]]) -> list[bool]:
        texts = continuation_texts(self._lm, self._start, prefixes)
        whole = self._lm.encode([text + prompt for text in texts for prompt in self._prompts])
        count = len(self._prompts)
        return [
            all(whole[place * count + number] == [*prefix, *ids] for number, ids in enumerate(self._ids))
            for place, prefix in enumerate(prefixes)
        ]

    def text(self, prefix: list[int]) -> str:
        """What ``prefix`` says."""
        return continuation_texts(self._lm, self._start, [prefix])[0]
