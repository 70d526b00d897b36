"""Continuations of prompts by a causal language model: several samples a prompt, one prefill a prompt.

Shapes: P prompts of at most L tokens (EOD included), K samples each, B = P * K rows, T new tokens, V vocabulary.

A prompt is what `TextReader.prompt` makes of it: the start of a document, as in packed training. Prompts of similar
length are worked on together; each is read once and its cache is copied to its K samples. What a prompt computes is
what it computes alone, up to the order of sums: see `ifguide.generation.prefix_cache`. Its random numbers depend on the
seed, its own tokens and how often it came before, and on nothing else: not on its batch, its place in the list, or the
prompts beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.compat.transformers_cache import new_cache, told_of
from ifguide.errors import InputError, NumericsError
from ifguide.generation.batching import plan_batches, rows_that_fit
from ifguide.generation.options import Sampling
from ifguide.generation.prefix_cache import Prefixes, fill_up, takes_mixed_lengths
from ifguide.generation.rad import Rad
from ifguide.generation.sampling import keep_top_k, sample_top_p
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.system.progress import Progress


def generate(
    model_dir: str | os.PathLike,
    prompts: Sequence[str],
    samples: int = 25,
    max_new_tokens: int = 20,
    top_p: float = 0.9,
    temperature: float = 1.0,
    seed: int = 0,
    *,
    rows_per_batch: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: bool = False,
) -> list[list[str]]:
    """Sample continuations with the model of a Hugging Face folder.

    Args:
        model_dir: folder with a causal language model and its tokenizer.
        prompts: texts to continue.
        samples, max_new_tokens, top_p, temperature, seed: see `Sampling`.
        rows_per_batch: samples worked on at once, None for what fits; changes memory and speed, not the distribution.
        dtype: of the weights while generating.
        device: where to run.
        progress: show a progress bar.

    Returns:
        ``[prompt][sample]``: the continuation only; it ends before the first token that stops (`LanguageModel.stops`).

    Raises:
        InputError: an option out of range, an unusable folder, or a prompt without tokens and no EOD to start from.
        MismatchError: tokenizer and model do not belong together.
        NumericsError: the model's logits are not finite; names the prompt.
    """
    sampling = Sampling(samples, max_new_tokens, top_p, temperature, seed)
    lm = load_language_model(model_dir, dtype, device)
    contexts = prompt_contexts(lm, prompts, max_new_tokens)
    drawn = sample_continuations(lm, contexts, sampling, rows_per_batch=rows_per_batch, progress=progress)
    return [continuation_texts(lm, context, ids) for context, ids in zip(contexts, drawn)]


def prompt_contexts(
    lm: LanguageModel, prompts: Sequence[str], max_new_tokens: int, condition: int | None = None
) -> list[list[int]]:
    """Tokens before each continuation: EOD, the template's leading tokens, the condition, and the prompt; of a prompt
    too long for the model, its last tokens that fit, after the condition if there is one.

    Raises:
        InputError: no room for a prompt at all, or an empty prompt without an EOD token to start from.
    """
    room = lm.max_length - max_new_tokens
    if room < 1:
        raise InputError(
            f"max_new_tokens {max_new_tokens} leaves no room for a prompt: the model takes {lm.max_length} tokens"
        )
    start = lm.reader.prompt("")
    if condition is None:
        contexts = [(start + ids)[-room:] for ids in lm.encode(prompts)]
    else:
        first = [*start, condition][-room:]
        contexts = [first + (ids[-(room - len(first)) :] if room > len(first) else []) for ids in lm.encode(prompts)]
    for index, context in enumerate(contexts):
        if not context:
            raise InputError(
                f"prompt {index} has no tokens and the tokenizer has no end-of-document token to start from"
            )
    return contexts


def sample_continuations(
    lm: LanguageModel,
    contexts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    rows_per_batch: int | None = None,
    rad: Rad | None = None,
    progress: bool = False,
) -> list[list[list[int]]]:
    """``[prompt][sample]`` -> new tokens, ended before a stop. ``contexts`` must not be empty (`prompt_contexts`).

    Raises:
        NumericsError: the model's logits are not finite; names the prompt.
    """
    drawing = Drawing(lm, contexts, sampling, rows_per_batch=rows_per_batch, rad=rad)
    drawn: list[list[list[int]]] = [[] for _ in contexts]
    total = len(contexts) * sampling.samples
    with Progress(total, "continuations", "generate", quiet=not progress) as bar:
        for batch in drawing.batches:
            for index, rows in zip(batch, drawing.draw(batch)):
                drawn[index] = rows
            bar.update(len(batch) * sampling.samples)
    return drawn


class Drawing:
    """Continuations of ``contexts``, batch by batch.

    The batches follow from the contexts, ``rows_per_batch`` and the machine alone, so a run that was killed and goes on
    with the batches it lacks computes each of them from the very same tensors.

    Args:
        lm: the model.
        contexts: tokens before each continuation, none of them empty (`prompt_contexts`).
        sampling: what to draw.
        rows_per_batch: samples worked on at once, None for what fits.
        rad: rewards that re-weight the next token.
        banned: tokens that are never drawn.

    Attributes:
        batches: indices of contexts.
    """

    def __init__(
        self,
        lm: LanguageModel,
        contexts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        rows_per_batch: int | None = None,
        rad: Rad | None = None,
        banned: Collection[int] = (),
    ):
        self._banned = torch.tensor(sorted(banned), dtype=torch.int64, device=lm.device) if banned else None
        self._lm, self._contexts, self._sampling, self._rad = lm, contexts, sampling, rad
        self._identities = _identities(contexts)
        self.batches = self._plan(rows_per_batch)

    def _plan(self, rows: int | None) -> list[list[int]]:
        lm, sampling = self._lm, self._sampling
        # a batch's rewards are read in one way
        alike: dict[bool, list[int]] = {}
        for index, context in enumerate(self._contexts):
            cached = self._rad is not None and self._rad.reads_from_cache(context, sampling.max_new_tokens)
            alike.setdefault(cached, []).append(index)
        return [
            [some[place] for place in batch]
            for some in alike.values()
            for batch in plan_batches(
                [len(self._contexts[index]) for index in some],
                sampling.samples,
                sampling.max_new_tokens,
                lambda length: rows or rows_that_fit(lm, length),
                mixed=takes_mixed_lengths(lm.model),
            )
        ]

    def draw(self, batch: Sequence[int]) -> list[list[list[int]]]:
        """``[prompt of the batch][sample]`` -> new tokens, ended before a stop; the batch's halves one after the
        other where the memory does not suffice for all of it.

        Raises:
            NumericsError: the model's logits are not finite; names the prompt.
        """
        try:
            return self._draw(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()  # outside of the handler, which keeps the failed batch alive
        half = len(batch) // 2
        return self.draw(batch[:half]) + self.draw(batch[half:])

    @torch.inference_mode()
    def _draw(self, batch: Sequence[int]) -> list[list[list[int]]]:
        lm, sampling = self._lm, self._sampling
        shape = (sampling.samples, sampling.max_new_tokens, 2)
        uniforms = np.stack(
            [np.random.default_rng([sampling.seed, *self._identities[index]]).random(shape) for index in batch]
        )
        prompts = {index: self._contexts[index] for index in batch}
        drawn = torch.from_numpy(uniforms).to(lm.device)
        tokens = _sample_batch(lm, prompts, drawn, sampling, self._rad, self._banned)
        return [[before_stop(row, lm.stops) for row in rows] for rows in tokens.cpu().tolist()]


def continuation_texts(lm: LanguageModel, context: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[str]:
    """Text that each continuation adds to the decoded prompt: what tokens mean can depend on what precedes them."""
    prompt = lm.without_start(context)
    before, *after = lm.decode([prompt, *(prompt + list(ids) for ids in continuations)])
    # a prompt that ends inside a character decodes differently once the character is complete
    return [text[_common_prefix(before, text) :] for text in after]


def _sample_batch(
    lm: LanguageModel,
    prompts: Mapping[int, Sequence[int]],
    uniforms: Tensor,
    sampling: Sampling,
    rad: Rad | None,
    banned: Tensor | None = None,
) -> Tensor:
    """P ``prompts`` by their index, ``uniforms[P, K, T, 2]`` -> tokens ``[P, K, T]``; what follows a stop is
    arbitrary."""
    k, t = sampling.samples, sampling.max_new_tokens
    b = len(prompts) * k
    uniforms = uniforms.reshape(b, t, 2)
    logits, prefixes = _read(lm, [*prompts.values()], k, t)
    tokens = torch.full((b, t), min(lm.stops, default=-1), dtype=torch.int64, device=lm.device)
    ended = torch.zeros(b, dtype=torch.bool, device=lm.device)
    rewards = rad.start([*prompts.values()], k, t) if rad else None
    for step in range(t):
        logits = _finite(lm, logits, ended, prompts)
        if lm.undrawable is not None:
            logits = logits.masked_fill(lm.undrawable, -torch.inf)
        if banned is not None:
            logits = logits.index_fill(1, banned, -torch.inf)
        top_p, temperature = sampling.top_p, sampling.temperature
        if rad and rewards:
            logits, top_p, temperature = rad.steered(logits, rewards, tokens[:, :step], sampling)
        else:
            logits = keep_top_k(logits, sampling.top_k)
        tokens[:, step] = sample_top_p(logits, uniforms[:, step], top_p, temperature)
        ended |= torch.isin(tokens[:, step], lm.stop_tokens)
        if step + 1 == t or bool(ended.all()):
            break
        logits = _next_logits(lm, tokens[:, step : step + 1], prefixes.cache, **prefixes.options(step))[:, 0]
    return tokens.view(-1, k, t)


def _read(lm: LanguageModel, prompts: Sequence[Sequence[int]], samples: int, room: int) -> tuple[Tensor, Prefixes]:
    """Logits ``[B, V]`` of the first new token, and the prompts' cache for all samples."""
    lengths = [len(prompt) for prompt in prompts]
    cache = new_cache(lm.model.config)
    # prompts end at different places: logits of all these places, each prompt's own picked out
    ends = sorted(set(lengths))
    own = torch.tensor([ends.index(length) for length in lengths], device=lm.device)
    last = 1 if len(ends) == 1 else torch.tensor(ends, device=lm.device) - 1
    logits = _next_logits(lm, fill_up(prompts, lm.device), cache, logits_to_keep=last)
    logits = logits[torch.arange(len(prompts), device=lm.device), own].repeat_interleave(samples, dim=0)
    return logits, Prefixes(cache, lengths, samples, room, lm.device)


def _next_logits(lm: LanguageModel, tokens: Tensor, cache: Any, **options: Any) -> Tensor:
    """``tokens[B, L]`` after what is cached -> logits ``[B, places, V]`` over what may be drawn, 0 where an id between
    the tokenizer's vocabulary and a stop beyond it is no token."""
    options = {"logits_to_keep": 1, **options, **told_of(lm.model, cache)}
    output = lm.model(input_ids=tokens, use_cache=True, **options)
    # rows that only pad the embedding are no tokens, and may hold anything
    logits = output.logits[..., : lm.drawn_ids]
    return logits if lm.undrawable is None else logits.masked_fill(lm.undrawable, 0.0)


def _finite(lm: LanguageModel, logits: Tensor, ended: Tensor, prompts: Mapping[int, Sequence[int]]) -> Tensor:
    """``logits[B, V]``, with rows that nobody reads any more made harmless.

    Raises:
        NumericsError: a row that has not ended holds a NaN or an infinity; names its prompt.
    """
    # one sum is one pass over the logits, three times as fast as looking at each
    finite = torch.isfinite(logits.sum(-1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32))
    if bool(finite.all()):
        return logits
    broken = (~finite & ~ended).nonzero()
    if broken.numel():
        index = [*prompts][int(broken[0]) // (len(ended) // len(prompts))]
        text = lm.decode([lm.without_start(prompts[index])])[0]
        raise NumericsError(
            f"model {lm.name}: logits after prompt {index} ({text[:40]!r}) are not finite in "
            f"{str(logits.dtype).removeprefix('torch.')}; is the model intact?"
        )
    return logits.masked_fill(~finite[:, None], 0.0)


def _identities(contexts: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """What a prompt's random numbers depend on besides the seed: its tokens, and its count among equal ones."""
    seen: Counter[int] = Counter()
    identities = []
    for context in contexts:
        digest = hashlib.blake2b(np.asarray(context, dtype="<i8").tobytes(), digest_size=16).digest()
        identity = int.from_bytes(digest, "little")
        identities.append((identity, seen[identity]))
        seen[identity] += 1
    return identities


def before_stop(tokens: Sequence[int], stops: Collection[int]) -> list[int]:
    """``tokens`` up to the first that stops."""
    return list(takewhile(lambda token: token not in stops, tokens))


def _common_prefix(left: str, right: str) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))
