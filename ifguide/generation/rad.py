"""RAD, reward-augmented decoding (Deng and Raffel, EMNLP 2023): a reward steers every next token.

Shapes: P prompts, K samples each, B = P * K rows, C candidates, V vocabulary, t tokens drawn so far.

  z'_i = z_i + weight * reward(context + candidate i)   for the C candidates with the highest logits z
  z'_i = -inf                                           for all others
  reward = 1 - score                                    of the scorer's main label (toxicity)

z' is then sampled as any logits are: temperature, top_k, top_p. A negative weight steers towards the label. The
published code goes another way (`PAPER`): temperature, top_k and top_p first, weight 50, and z' is sampled as it is.
Tokens outside the nucleus are then no candidates, however good their reward. The context
is all that the model reads, prompt included, without what starts a document. A candidate that ends the text (a stop)
adds nothing to it, so its reward is that of the text before it.

Where the scorer is a causal classifier with the model's own tokenizer, the text read so far stays in its cache and a
step reads C tokens a row (`ifguide.generation.rad_cache`); any other scorer reads all C texts of every row anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ifguide.errors import InputError, NumericsError
from ifguide.generation.options import OURS, PAPER, RAD_WEIGHTS, Sampling
from ifguide.generation.sampling import keep_top_k, keep_top_p
from ifguide.models.language_model import LanguageModel
from ifguide.scorers.base import Scorer


class Rewards(Protocol):
    """Rewards of one batch; called once a step, in order."""

    def __call__(self, candidates: Tensor, tokens: Tensor) -> Tensor:
        """``candidates[B, C]`` after ``tokens[B, t]`` -> rewards ``[B, C]``; arbitrary in rows that have ended."""
        ...


class Rad:
    """Reward-augmented decoding of one model.

    Args:
        lm: the model.
        scorer: its main label is what to avoid.
        weight: nats that a reward of 1 is worth; None for 10, in the published order 50.
        top_k: candidates a step.
        order: `OURS` or `PAPER`.

    Raises:
        InputError: an option out of range, or a scorer without a main label.
    """

    def __init__(
        self,
        lm: LanguageModel,
        scorer: Scorer,
        weight: float | None = None,
        top_k: int = 20,
        order: str = OURS,
    ):
        weight = RAD_WEIGHTS[order] if weight is None else weight
        if top_k < 1:
            raise InputError(f"RAD needs at least one candidate, not {top_k}")
        if not math.isfinite(weight):
            raise InputError(f"the weight of RAD must be a number, not {weight}")
        self._lm, self._scorer, self._weight, self.order = lm, scorer, weight, order
        self._top_k = min(top_k, lm.vocab_size)
        self._label = scorer.main
        self._causal = _causal_reader(scorer, lm)

    @property
    def truncated(self) -> int:
        """Texts so far that the scorer read only the start of, so that it did not see the candidate at their end."""
        return self._scorer.truncated

    def describe(self) -> dict[str, Any]:
        """What a result made with it has to state."""
        return {
            "scorer": self._scorer.describe(),
            "label": self._label,
            "weight": self._weight,
            "top_k": self._top_k,
            "cached": self._causal is not None,
            **({"order": self.order} if self.order != OURS else {}),
        }

    def reads_from_cache(self, context: Sequence[int], max_new_tokens: int) -> bool:
        """Whether the rewards of continuations of ``context`` come from a cache; else all texts are read anew."""
        return self._causal is not None and self._causal.takes(self._lm.without_start(context), max_new_tokens)

    def start(self, prompts: Sequence[Sequence[int]], samples: int, max_new_tokens: int) -> Rewards:
        """Rewards of a batch of P prompts, tokens of a document's start in front; all or none of them read from a
        cache."""
        contexts = [self._lm.without_start(prompt) for prompt in prompts]
        if self._causal is not None and self._causal.takes(contexts[0], max_new_tokens):
            return self._causal.start(contexts, samples, max_new_tokens, self._top_k)
        return TextRewards(self._lm, self._scorer, self._label, contexts, samples)

    def steered(
        self, logits: Tensor, rewards: Rewards, tokens: Tensor, sampling: Sampling
    ) -> tuple[Tensor, float, float]:
        """(logits ``[B, V]`` to sample from, the top_p and the temperature that are still to be applied).

        Raises:
            NumericsError: a reward that is not finite.
        """
        if self.order == PAPER:  # everything that cuts comes before the reward, and nothing after it
            logits = keep_top_p(keep_top_k(logits / sampling.temperature, sampling.top_k), sampling.top_p)
            return self.reweight(logits, rewards, tokens), 1.0, 1.0
        logits = keep_top_k(self.reweight(logits, rewards, tokens), sampling.top_k)
        return logits, sampling.top_p, sampling.temperature

    def reweight(self, logits: Tensor, rewards: Rewards, tokens: Tensor) -> Tensor:
        """z' ``[B, V]`` of ``logits[B, V]`` after the new ``tokens[B, t]``, with the batch's ``rewards``.

        Raises:
            NumericsError: a reward that is not finite.
        """
        highest, candidates = logits.topk(self._top_k)
        found = rewards(candidates, tokens)
        if not bool(torch.isfinite(found).all()):
            raise NumericsError(f"scorer {self._scorer.name}: a reward is not finite; is the classifier intact?")
        # a score is a probability, up to rounding
        rewarded = highest + self._weight * found.to(logits.dtype).clamp(0.0, 1.0)
        return torch.full_like(logits, -torch.inf).scatter_(1, candidates, rewarded)


class TextRewards:
    """Rewards of any scorer: texts of all candidates of all rows, equal ones scored once.

    Args:
        lm: turns tokens into text.
        scorer: what to ask.
        label: of the scorer.
        contexts: P prompts, tokens without a document's start in front.
        samples: K.
    """

    def __init__(self, lm: LanguageModel, scorer: Scorer, label: str, contexts: list[list[int]], samples: int):
        self._lm, self._scorer, self._label = lm, scorer, label
        self._contexts, self._samples = contexts, samples

    def __call__(self, candidates: Tensor, tokens: Tensor) -> Tensor:
        places: dict[tuple[int, ...], int] = {}
        wanted = [
            [places.setdefault(sequence, len(places)) for sequence in self._sequences(row, drawn, some)]
            for row, (drawn, some) in enumerate(zip(tokens.tolist(), candidates.tolist()))
        ]
        texts = self._lm.decode([*places])
        scores = torch.from_numpy(self._scorer.score(texts)[self._label])
        return (1.0 - scores[torch.tensor(wanted)]).to(candidates.device)

    def _sequences(self, row: int, drawn: list[int], candidates: list[int]) -> list[tuple[int, ...]]:
        """Tokens of the text that each candidate makes."""
        before = self._contexts[row // self._samples]
        if not self._lm.stops.isdisjoint(
            drawn
        ):  # the row has ended: nobody reads its rewards, and its context costs nothing more
            return [tuple(before)] * len(candidates)
        return [tuple(before + drawn + ([] if token in self._lm.stops else [token])) for token in candidates]


def _causal_reader(scorer: Scorer, lm: LanguageModel):
    """The scorer as a reader with a cache, if it can be one."""
    from ifguide.generation.rad_cache import causal_reader
    from ifguide.scorers.huggingface import ClassifierScorer

    return causal_reader(scorer, lm) if isinstance(scorer, ClassifierScorer) else None
