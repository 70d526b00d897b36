"""Rewards of a causal classifier, which never reads a token twice.

Shapes: P prompts of at most L tokens, K samples each, B = P * K rows, C candidates, t tokens drawn so far.

All candidates of a row are one call: C tokens at the same position, each of which sees the cached text and itself.
The one that is drawn stays in the cache, the others are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ifguide.compat.transformers_cache import RoomyLayer, new_cache, told_of
from ifguide.generation.prefix_cache import Prefixes, fill_up, takes_mixed_lengths
from ifguide.models.language_model import LanguageModel
from ifguide.scorers.huggingface import ClassifierScorer


class CausalReader:
    """A causal classifier with the language model's tokenizer.

    Args:
        scorer: the classifier.
        prefix: special tokens that it starts every text with.
        stops: the language model's, int64.
    """

    def __init__(self, scorer: ClassifierScorer, prefix: list[int], stops: Tensor):
        self._scorer, self._prefix, self.stops = scorer, prefix, stops
        self._column = scorer.labels.index(scorer.main)

    def takes(self, context: Sequence[int], max_new_tokens: int) -> bool:
        """Whether texts from this context fit into it, and there is something to read yet."""
        length = len(self._prefix) + len(context)
        return length > 0 and length + max_new_tokens <= self._scorer.max_tokens

    def start(self, contexts: Sequence[Sequence[int]], samples: int, max_new_tokens: int, top_k: int) -> CausalRewards:
        """Read the prompts once, for all of their samples."""
        prompts = [[*self._prefix, *context] for context in contexts]
        return CausalRewards(self, prompts, samples, room=max_new_tokens + top_k)

    @property
    def device(self) -> torch.device:
        return self._scorer.model.device

    def new_cache(self) -> Any:
        return new_cache(self._scorer.model.config)

    def read(self, tokens: Tensor, cache: Any, **where: Any) -> Tensor:
        """``tokens[B, T]`` after what is cached -> rewards ``[B, T]`` of the text up to each of them."""
        model = self._scorer.model
        where |= told_of(model.base_model, cache)
        hidden = model.base_model(input_ids=tokens, use_cache=True, **where).last_hidden_state
        return 1.0 - self._scorer.probabilities(model.score(hidden))[..., self._column]

    def candidate_mask(self, held: Tensor, candidates: int) -> Tensor:
        """``held[B, L + t]``, where there is text -> ``[B, 1, C, L + t + C]``, added to the attention: the text and
        oneself."""
        dtype = self._scorer.model.dtype
        oneself = torch.eye(candidates, dtype=torch.bool, device=held.device).expand(len(held), -1, -1)
        seen = torch.cat([held[:, None].expand(-1, candidates, -1), oneself], dim=2)
        return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


class CausalRewards:
    """`Rewards` of one batch of P prompts, none of them empty; see `CausalReader.start`."""

    def __init__(self, reader: CausalReader, prompts: Sequence[Sequence[int]], samples: int, room: int):
        self._reader, cache = reader, reader.new_cache()
        lengths = [len(prompt) for prompt in prompts]
        rewards = reader.read(fill_up(prompts, reader.device), cache)
        last = torch.tensor(lengths, device=reader.device)[:, None] - 1
        # the reward of each row's text as it stands, [B]
        self._now = rewards.gather(1, last)[:, 0].repeat_interleave(samples)
        self._prefixes = Prefixes(cache, lengths, samples, room, reader.device)

    def __call__(self, candidates: Tensor, tokens: Tensor) -> Tensor:
        """See `ifguide.generation.rad.Rewards`."""
        prefixes, new = self._prefixes, tokens.shape[1]
        if new:
            self._keep(tokens[:, -1], prefixes.length + new - 1)
        self._candidates = candidates
        ends = torch.isin(candidates, self._reader.stops)
        self._rewards = self._reader.read(
            # the classifier may have no row for a stop beyond the tokenizer, and does not read one
            candidates.masked_fill(ends, 0),
            prefixes.cache,
            attention_mask=self._reader.candidate_mask(prefixes.held(new), candidates.shape[1]),
            position_ids=(prefixes.positions[:, None] + new).expand_as(candidates),
        )
        return torch.where(ends, self._now[:, None], self._rewards)

    def _keep(self, chosen: Tensor, length: int) -> None:
        """Keep the ``chosen[B]`` candidates after ``length`` tokens."""
        # a row that has ended may hold a stop that was no candidate: any place will do
        place = (self._candidates == chosen[:, None]).int().argmax(dim=1)
        for layer in self._prefixes.cache.layers:
            assert isinstance(layer, RoomyLayer)  # `causal_reader` looked
            layer.keep_one(place, length)
        self._now = self._rewards.gather(1, place[:, None])[:, 0]


def causal_reader(scorer: ClassifierScorer, lm: LanguageModel) -> CausalReader | None:
    """``scorer`` as a reader, or None if it looks at later tokens, has another tokenizer or cannot cache its past."""
    model, prefix = scorer.model, _prefix(scorer.tokenizer)
    same_tokens = prefix is not None and scorer.tokenizer.get_vocab() == _vocabulary(lm)
    if not same_tokens or not _is_causal(model) or lm.device != model.device:
        return None
    return CausalReader(scorer, prefix or [], lm.stop_tokens)


def _vocabulary(lm: LanguageModel) -> dict[str, int]:
    names = ((lm.reader.tokenizer.token_name(index), index) for index in range(lm.vocab_size))
    return {name: index for name, index in names if name is not None}


def _is_causal(model: Any) -> bool:
    """Whether it is a decoder with a linear head on the last token and plain caches."""
    if not isinstance(getattr(model, "score", None), torch.nn.Linear) or not getattr(model.config, "is_causal", True):
        return False
    return takes_mixed_lengths(model.base_model)


def _prefix(tokenizer: Any) -> list[int] | None:
    """Special tokens before a text, None if some come after it."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    special = tokenizer("a")["input_ids"]
    return special[: len(special) - len(plain)] if special[len(special) - len(plain) :] == plain else None
