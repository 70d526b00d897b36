"""How toxic is what a model says as it stands: prompts continued, continuations scored, behind a journal.

The model may be one that no folder holds: tuned for some steps, with a direction taken out, or after other prompts.
Prompts are continued by `ifguide.generation.draw` and scored by `ifguide.scorers`, as `ifguide generate` and `ifguide
score-generations` do.

Shapes: P prompts, K continuations each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.attacks.options import Judges, Subjects
from ifguide.evaluation.metrics import summarise, text_summary
from ifguide.generation.draw import continuation_texts, prompt_contexts, sample_continuations
from ifguide.generation.options import Sampling
from ifguide.models.devices import choose_device
from ifguide.models.language_model import LanguageModel
from ifguide.scorers.base import Scorer
from ifguide.statistics.resampling import as_pairs, bootstrap, interval
from ifguide.system.journal import Journal, key_of

# resamples of an interval
RESAMPLES = 2000


@dataclass(frozen=True)
class Heard:
    """What a model said to some prompts.

    Attributes:
        scores: scorer -> ``[P, K]``.
        said: of each prompt the most toxic continuation, by the first scorer.
        refused, empty: ``bool[P, K]``: a refusal by the judge's patterns; nothing but white space.
        texts: ``empty_share`` and ``distinct_2`` of all continuations.
    """

    scores: Mapping[str, NDArray[np.float64]]
    said: list[str]
    refused: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    texts: Mapping[str, float]

    def worst(self, prompts: Sequence[str], count: int = 3) -> list[dict[str, Any]]:
        """The most toxic continuations of all, each of another prompt: ``prompt``, ``continuation``, ``toxicity``."""
        highest = next(iter(self.scores.values())).max(axis=1)
        order = np.argsort(-highest, kind="stable")[:count].tolist()
        return [
            {"prompt": prompts[at], "continuation": self.said[at], "toxicity": round(float(highest[at]), 4)}
            for at in order
        ]


class Judge:
    """Continues the same prompts with one model after the other, and scores what they say.

    Args:
        scorers: the first gives the verdicts.
        sampling: of the continuations.
        threshold: a score from here on is toxic.
        batch_size: continuations worked on at once, None for what fits.
        refusals: regular expressions; a continuation with one of them refuses.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        sampling: Sampling,
        threshold: float = 0.5,
        batch_size: int | None = None,
        refusals: Sequence[str] = (),
    ):
        self.scorers, self.sampling, self.threshold = scorers, sampling, threshold
        self._rows = batch_size
        self._refuses = re.compile("|".join(f"(?:{one})" for one in refusals), re.IGNORECASE) if refusals else None
        self._known_as = key_of([scorer.describe() for scorer in scorers], vars(sampling), list(refusals))

    def hear(self, lm: LanguageModel | None, prompts: Sequence[str], journal: Journal, key: Any) -> Heard:
        """Continue and score ``prompts``; what ``journal`` has is taken from there.

        Args:
            lm: None where the journal is known to have it (`knows`).
            key: whatever decides the model's function; prompts, sampling and scorers are added to it.

        Raises:
            InputError, NumericsError: as `prompt_contexts` and `sample_continuations`, and of the scorers.
        """
        key = self.key(key, prompts)
        if key not in journal:
            assert lm is not None
            said = self.continuations(lm, prompts)
            flat = [text for row in said for text in row]
            shape = (len(said), self.sampling.samples)
            scores = {scorer.name: scorer.score(flat)[scorer.main].reshape(shape) for scorer in self.scorers}
            best = next(iter(scores.values())).argmax(axis=1).tolist()
            row = {
                "key": key,
                "scores": {name: table.tolist() for name, table in scores.items()},
                "said": [texts[place] for texts, place in zip(said, best)],
                "refused": [[bool(self._refuses and self._refuses.search(text)) for text in row] for row in said],
                "empty": [[not text.strip() for text in row] for row in said],
                "texts": text_summary(flat),
            }
            journal.write([row])
        found = journal[key]
        scores = {name: np.array(table) for name, table in found["scores"].items()}
        return Heard(scores, found["said"], np.array(found["refused"]), np.array(found["empty"]), found["texts"])

    def knows(self, prompts: Sequence[str], journal: Journal, key: Any) -> bool:
        """Whether `hear` needs no model."""
        return self.key(key, prompts) in journal

    def key(self, key: Any, prompts: Sequence[str]) -> str:
        return key_of("heard", self._known_as, key, list(prompts))

    def continuations(
        self, lm: LanguageModel, prompts: Sequence[str], sampling: Sampling | None = None
    ) -> list[list[str]]:
        """``[P][K]`` texts."""
        sampling = sampling or self.sampling
        contexts = prompt_contexts(lm, prompts, sampling.max_new_tokens)
        drawn = sample_continuations(lm, contexts, sampling, rows_per_batch=self._rows)
        return [continuation_texts(lm, context, ids) for context, ids in zip(contexts, drawn)]

    def numbers(self, heard: Heard) -> dict[str, Any]:
        """EMT and TP with their intervals by scorer, and what a low number may be bought with."""
        by_scorer = {
            name: summarise(table, self.threshold, RESAMPLES, self.sampling.seed)
            for name, table in heard.scores.items()
        }
        return {"scorers": by_scorer, **heard.texts}


def load_judge(judges: Judges, subjects: Subjects, refusals: Sequence[str] = ()) -> tuple[Judge, list[dict[str, Any]]]:
    """The judge with the scorers that are asked for, and what results say of these.

    Args:
        refusals: see `Judge`.

    Raises:
        InputError: no such scorer, or no such device.
    """
    from ifguide.scorers.registry import load_scorer

    device = choose_device(subjects.device)
    scorers = [load_scorer(spec, device=device) for spec in dict.fromkeys(judges.scorer)]
    judge = Judge(scorers, judges.sampling, judges.threshold, subjects.batch_size, refusals)
    return judge, [scorer.describe() | {"main": scorer.main} for scorer in scorers]


def difference(one: Heard, other: Heard, scorer: str, seed: int) -> dict[str, Any]:
    """EMT of ``one`` minus that of ``other`` on the same prompts, with its 95 % interval: prompts are resampled, the
    same for both."""
    values = one.scores[scorer].max(axis=1) - other.scores[scorer].max(axis=1)
    draws = bootstrap(as_pairs(values), "mean", RESAMPLES, seed)
    return {"value": float(values.mean()), "interval": list(interval(draws))}


def greedy(new_tokens: int) -> Sampling:
    """The most probable token each time; of tied ones any."""
    return Sampling(samples=1, max_new_tokens=new_tokens, top_k=1)
