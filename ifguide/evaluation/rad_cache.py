"""Rewards of a causal classifier, which never reads a token twice.

Shapes: P prompts of L tokens, K samples each, B = P * K rows, C candidates.

All candidates of a row are one call: C tokens at the same position, each of which sees the cached text and itself.
The one that is drawn stays in the cache, the others are forgotten.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from ifguide.evaluation.hf_scorer import ClassifierScorer
from ifguide.evaluation.models import LanguageModel
from ifguide.evaluation.prefix_cache import RoomyLayer, share_prefix


class CausalReader:
    """A causal classifier with the language model's tokenizer.

    Args:
        scorer: the classifier.
        prefix: special tokens that it starts every text with.
        eod: the language model's.
    """

    def __init__(self, scorer: ClassifierScorer, prefix: list[int], eod: int | None):
        self._scorer, self._prefix, self.eod = scorer, prefix, eod
        self._column = scorer.labels.index(scorer.main)

    def takes(self, contexts: Sequence[Sequence[int]], max_new_tokens: int) -> bool:
        """Whether texts from these contexts, all of one length, fit into it, and there is something to read yet."""
        length = len(self._prefix) + len(contexts[0])
        return length > 0 and length + max_new_tokens <= self._scorer.max_tokens

    def start(self, contexts: Sequence[Sequence[int]], samples: int, max_new_tokens: int, top_k: int) -> CausalRewards:
        """Read the prompts once, for all of their samples."""
        prompt = torch.tensor([[*self._prefix, *context] for context in contexts], device=self._scorer.model.device)
        return CausalRewards(self, prompt, samples, room=max_new_tokens + top_k)

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._scorer.model.config)

    def read(self, tokens: Tensor, cache: DynamicCache, **where: Tensor) -> Tensor:
        """``tokens[B, T]`` after what is cached -> rewards ``[B, T]`` of the text up to each of them."""
        model = self._scorer.model
        hidden = model.base_model(input_ids=tokens, past_key_values=cache, use_cache=True, **where).last_hidden_state
        return 1.0 - self._scorer.probabilities(model.score(hidden))[..., self._column]

    def candidate_mask(self, length: int, candidates: int) -> Tensor:
        """``[1, 1, C, length + C]``, added to the attention: the cached text and oneself."""
        dtype, device = self._scorer.model.dtype, self._scorer.model.device
        others = 1.0 - torch.eye(candidates, dtype=dtype, device=device)
        seen = torch.zeros(candidates, length, dtype=dtype, device=device)
        return torch.cat([seen, others * torch.finfo(dtype).min], dim=1)[None, None]


class CausalRewards:
    """`Rewards` of one batch ``prompt[P, L]``; see `CausalReader.start`."""

    def __init__(self, reader: CausalReader, prompt: Tensor, samples: int, room: int):
        self._reader, self._cache, self._length = reader, reader.new_cache(), prompt.shape[1]
        # the reward of each row's text as it stands, [B]
        self._now = reader.read(prompt, self._cache)[:, -1].repeat_interleave(samples)
        share_prefix(self._cache, samples, room)

    def __call__(self, candidates: Tensor, tokens: Tensor) -> Tensor:
        """See `ifguide.evaluation.rad.Rewards`."""
        if tokens.shape[1]:
            self._keep(tokens[:, -1])
        self._candidates = candidates
        self._rewards = self._reader.read(
            candidates,
            self._cache,
            attention_mask=self._reader.candidate_mask(self._length, candidates.shape[1]),
            position_ids=torch.full_like(candidates, self._length),
        )
        if self._reader.eod is None:
            return self._rewards
        return torch.where(candidates == self._reader.eod, self._now[:, None], self._rewards)

    def _keep(self, chosen: Tensor) -> None:
        # a row that has ended may hold an EOD that was no candidate: any place will do
        place = (self._candidates == chosen[:, None]).int().argmax(dim=1)
        for layer in self._cache.layers:
            assert isinstance(layer, RoomyLayer)  # `causal_reader` looked
            layer.keep_one(place, self._length)
        self._now = self._rewards.gather(1, place[:, None])[:, 0]
        self._length += 1


def causal_reader(scorer: ClassifierScorer, lm: LanguageModel) -> CausalReader | None:
    """``scorer`` as a reader, or None if it looks at later tokens, has another tokenizer or cannot cache its past."""
    model, prefix = scorer.model, _prefix(scorer.tokenizer)
    same_tokens = prefix is not None and scorer.tokenizer.get_vocab() == lm.tokenizer.get_vocab()
    if not same_tokens or not _is_causal(model) or lm.device != model.device:
        return None
    return CausalReader(scorer, prefix or [], lm.eod)


def _is_causal(model: Any) -> bool:
    """Whether it is a decoder with a linear head on the last token and plain caches."""
    if not isinstance(getattr(model, "score", None), torch.nn.Linear) or not getattr(model.config, "is_causal", True):
        return False
    takes = inspect.signature(model.base_model.forward).parameters
    if not {"position_ids", "past_key_values", "attention_mask"} <= takes.keys():
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def _prefix(tokenizer: Any) -> list[int] | None:
    """Special tokens before a text, None if some come after it."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    special = tokenizer("a")["input_ids"]
    return special[: len(special) - len(plain)] if special[len(special) - len(plain) :] == plain else None
