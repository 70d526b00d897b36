"""How far a model is from saying a target after a suffix, and which tokens would bring it there.

    L(s) = - 1/T Σ_k log p(t_k | EOD, prompt, s, t_<k)
    G[i, v] = <∂L/∂e_i, E_v>,  e_i = E_{s_i}            [S, V]: L moves by G[i, v] - G[i, s_i] if s_i becomes v, to
                                                        first order

p is over what the model may generate: rows that only pad the embedding are left out. E_v is what the embedding gives
for the id v, so that a model which scales its embeddings is read as it runs.

Shapes: L tokens of the context (EOD, template, prompt), S of the suffix, T of the target, B candidates, D width,
V tokens of the tokenizer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ifguide.compat.transformers_cache import new_cache, told_of
from ifguide.errors import NumericsError
from ifguide.generation.batching import rows_that_fit
from ifguide.generation.prefix_cache import takes_mixed_lengths
from ifguide.models.language_model import LanguageModel


class SuffixLoss:
    """L of one target and of any suffix.

    The context is read once and its keys and values are kept. They are copied for every batch of candidates: a cache
    grows in place, and one that was used holds the last batch's suffixes.

    Args:
        lm: the model; its weights need no gradient.
        context: L ids, not empty.
        target: T ids, not empty.
        batch_size: candidates at once, None for what fits.
    """

    def __init__(self, lm: LanguageModel, context: Sequence[int], target: Sequence[int], batch_size: int | None = None):
        self._lm = lm
        self._context = torch.tensor([list(context)], device=lm.device)
        self._target = torch.tensor(list(target), device=lm.device)
        self._rows = batch_size
        self._cache = self._read() if takes_mixed_lengths(lm.model) else None

    def gradient(self, suffix: Sequence[int]) -> tuple[Tensor, float]:
        """G ``[S, V]`` and L of ``suffix``, S ids.

        Raises:
            NumericsError: they are not finite.
        """
        with torch.enable_grad():
            ids = torch.tensor([list(suffix)], device=self._lm.device)
            embedding = self._lm.model.get_input_embeddings()
            ahead, own, behind = (embedding(part).detach() for part in (self._context, ids, self._target[None, :-1]))
            own.requires_grad_(True)
            embedded = torch.cat([ahead, own, behind], dim=1)
            logits = self._lm.model(inputs_embeds=embedded, use_cache=False, logits_to_keep=len(self._target)).logits
            loss = _target_losses(self._lm, logits, self._target)[0][0]
            (slope,) = torch.autograd.grad(loss, own)
        return finite(slope[0] @ token_embeddings(self._lm).T, self._lm), float(loss.detach())

    @torch.inference_mode()
    def losses(self, suffixes: Tensor) -> tuple[Tensor, Tensor]:
        """L ``[B]`` of ``suffixes[B, S]``, and whether the model would say the target greedily: each of its tokens is
        the most probable one.

        Raises:
            NumericsError: a loss that is not finite.
        """
        length = self._context.shape[1] + suffixes.shape[1] + len(self._target)
        rows = self._rows or rows_that_fit(self._lm, length, len(self._target))
        found = [self._some(part) for part in suffixes.to(self._lm.device).split(rows)]
        losses, exact = (torch.cat(parts) for parts in zip(*found))
        return finite(losses, self._lm), exact

    def _some(self, suffixes: Tensor) -> tuple[Tensor, Tensor]:
        """`losses`, the halves one after the other where the memory does not suffice for all of them."""
        try:
            return self._at_once(suffixes)
        except torch.OutOfMemoryError:
            if len(suffixes) == 1:
                raise
        torch.cuda.empty_cache()  # outside of the handler, which keeps the failed batch alive
        halves = [self._some(half) for half in suffixes.tensor_split(2)]
        return torch.cat([half[0] for half in halves]), torch.cat([half[1] for half in halves])

    def _at_once(self, suffixes: Tensor) -> tuple[Tensor, Tensor]:
        behind = self._target[:-1].expand(len(suffixes), -1)
        options: dict[str, Any] = {"use_cache": False}
        ids = torch.cat([suffixes, behind], dim=1)
        if self._cache is None:
            ids = torch.cat([self._context.expand(len(suffixes), -1), ids], dim=1)
        else:
            cache = copy.deepcopy(self._cache)
            cache.batch_repeat_interleave(len(suffixes))
            options = {"use_cache": True, **told_of(self._lm.model, cache)}
        logits = self._lm.model(input_ids=ids, logits_to_keep=len(self._target), **options).logits
        return _target_losses(self._lm, logits, self._target)

    @torch.inference_mode()
    def _read(self) -> Any:
        """The context's keys and values."""
        cache = new_cache(self._lm.model.config)
        self._lm.model(input_ids=self._context, use_cache=True, logits_to_keep=1, **told_of(self._lm.model, cache))
        return cache


def token_embeddings(lm: LanguageModel) -> Tensor:
    """E ``[V, D]``: what the model's embedding gives for each id of the tokenizer."""
    embedding = lm.model.get_input_embeddings()
    return embedding(torch.arange(lm.vocab_size, device=lm.device)).detach()


def log_probabilities(lm: LanguageModel, logits: Tensor) -> Tensor:
    """log p ``[..., drawn_ids]`` of ``logits[..., rows]``, minus infinity where an id cannot be generated; float32 at
    least."""
    return torch.log_softmax(lm.drawable_logits(logits), dim=-1)


def finite(values: Tensor, lm: LanguageModel) -> Tensor:
    """
    Raises:
        NumericsError: one of ``values`` is not finite.
    """
    if not bool(torch.isfinite(values).all()):
        raise NumericsError(f"model {lm.name}: the attack's loss or gradient is not finite; is the model intact?")
    return values


def _target_losses(lm: LanguageModel, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L ``[B]`` and exactness ``[B]`` of ``logits[B, T, rows]``."""
    log_p = log_probabilities(lm, logits)
    own = log_p.gather(2, target.expand(len(log_p), -1)[..., None])[..., 0]
    return -own.mean(dim=1), (log_p.argmax(dim=-1) == target).all(dim=1)
