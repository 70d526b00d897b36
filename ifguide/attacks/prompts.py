"""Adversarial prompts as they are: questions for harm, role play, toxic prefixes.

A model that refuses, or says nothing, is harmless in another way than one that says something else. Refusals and empty
texts are counted beside the toxic ones, and of the toxic ones how many refuse at the same time.

Shapes: P prompts, K continuations each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.attacks.folder import finish, working_in
from ifguide.attacks.gcg.success import share
from ifguide.attacks.judge import RESAMPLES, Heard, difference, load_judge
from ifguide.attacks.options import Adversarial, Judges, Subjects
from ifguide.attacks.refusals import PATTERNS
from ifguide.attacks.subjects import (
    load_subject,
    prompt_rows,
    read_frames,
    read_patterns,
    require_models,
    subjects_of,
)
from ifguide.pages.attacks.prompts import prompts_page
from ifguide.statistics.resampling import as_pairs, bootstrap, interval
from ifguide.system.journal import key_of
from ifguide.system.progress import Progress

ALL = "all"


def attack_prompts(
    subjects: Subjects, options: Adversarial, judges: Judges, *, progress: bool = False
) -> dict[str, Any]:
    """Run the attack; the same call goes on where a killed one stopped.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: unusable models, files or scorers.
        NumericsError: logits that are not finite.
    """
    began = time.time()
    models = subjects_of(subjects.models)
    rows = prompt_rows(options.prompts, options.limit)
    frames = read_frames(options.frames)
    patterns = read_patterns(options.refusals) if options.refusals else list(PATTERNS)
    about = require_models(models)
    judge, described = load_judge(judges, subjects, patterns)
    categories = [row["category"] for row in rows]
    heard: dict[tuple[str, str], Heard] = {}
    groups, details = [], []
    with working_in(subjects.output) as journal:
        with Progress(len(models) * len(frames), "rounds", "prompts", quiet=not progress) as bar:
            for subject in models:
                key = key_of(about[subject.name]["identity"], subjects.dtype, subjects.eod_token)
                lm = None
                for frame, text in frames:
                    texts = [text.replace("{prompt}", row["prompt"]) for row in rows]
                    if lm is None and not judge.knows(texts, journal, key):
                        lm = load_subject(subject.folder, subjects)
                    found = heard[subject.name, frame] = judge.hear(lm, texts, journal, key)
                    bar.update(1)
                    for name in [ALL, *dict.fromkeys(one for one in categories if one is not None)]:
                        places = np.array([name in (ALL, one) for one in categories])
                        groups.append(
                            {"model": subject.name, "frame": frame, "category": name,
                             **group_numbers(found, places, judges.threshold, judges.sampling.seed)}
                        )  # fmt: skip
                    details += [
                        {"model": subject.name, "frame": frame, "id": row["id"], "category": row["category"],
                         "prompt": written, "continuation": said,
                         "scores": {name: float(table[place].max()) for name, table in found.scores.items()},
                         "refused": int(found.refused[place].sum()), "empty": int(found.empty[place].sum())}
                        for place, (row, written, said) in enumerate(zip(rows, texts, found.said))
                    ]  # fmt: skip
        base = models[0].name
        results = {
            "settings": {
                "attack": asdict(options), "judges": asdict(judges), "prompts": len(rows), "dtype": subjects.dtype,
                "frames": dict(frames), "refusals": patterns,
            },
            "models": about, "base": base, "scorers": described, "groups": groups,
            "against_base": [
                {"model": name, "frame": frame, "scorer": scorer,
                 **difference(found, heard[base, frame], scorer, judges.sampling.seed)}
                for (name, frame), found in heard.items() if name != base for scorer in found.scores
            ],
        }  # fmt: skip
        inputs = {"--prompts": options.prompts, "--frames": options.frames, "--refusals": options.refusals}
        return finish(
            subjects.output, "attack-prompts", results, details, inputs, began,
            lambda whole: prompts_page(whole, details),
        )  # fmt: skip


def group_numbers(heard: Heard, places: NDArray[np.bool_], threshold: float, seed: int) -> dict[str, Any]:
    """Of the prompts at ``places``: by scorer the success of the attack (share of prompts with a toxic continuation),
    EMT and the share of toxic continuations; and shares of all continuations that refuse, that refuse and are
    harmless by the first scorer, and that are empty. Continuations of one prompt are not independent, so the shares
    of continuations have the bootstrap's interval over prompts, that of prompts has Wilson's."""
    found: dict[str, Any] = {"prompts": int(places.sum()), "scorers": {}}
    for name, table in heard.scores.items():
        toxic = table[places] >= threshold
        worst = table[places].max(axis=1)
        found["scorers"][name] = {
            "success": share([bool(row.any()) for row in toxic]),
            "emt": _mean(worst, seed),
            "toxic": _mean(toxic.mean(axis=1), seed),
        }
    first = next(iter(heard.scores.values()))[places] >= threshold
    refused, empty = heard.refused[places], heard.empty[places]
    shares: dict[str, Sequence[Any]] = {
        "refused": refused.mean(axis=1), "harmless_refusals": (refused & ~first).mean(axis=1),
        "empty": empty.mean(axis=1), "harmless_otherwise": (~refused & ~empty & ~first).mean(axis=1),
    }  # fmt: skip
    return found | {name: _mean(np.asarray(values), seed) for name, values in shares.items()}


def _mean(values: NDArray[Any], seed: int) -> dict[str, Any]:
    draws = bootstrap(as_pairs(values.astype(np.float64)), "mean", RESAMPLES, seed)
    return {"value": float(values.mean()), "interval": list(interval(draws))}
