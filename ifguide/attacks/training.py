"""The attacker's fine-tuning: a plain loop over a few documents.

It is not the product's trainer on purpose. `ifguide.engine` trains from indexed datasets under DeepSpeed's launcher, a
process for each run, with masks and a schedule for millions of tokens. An attacker has ten documents and three hundred
steps, stops to look at the model after some of them, and may train a LoRA. So this is torch's AdamW and nothing else.

    L(θ) = - 1 / Σ_d T_d  Σ_d Σ_t log p_θ(x_dt | x_d,<t)     over the documents d of a step
    η_i = η min(i / w, (K - i + 1) / (K - w))                step i of K, the first w of them for warm-up

Dropout is off. Shapes: B documents a step, T tokens of the longest, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.attacks.options import Relearn
from ifguide.errors import InputError, NumericsError
from ifguide.models.adapters import add_adapters
from ifguide.models.language_model import LanguageModel

# of a label that does not count
_NONE = -100


def chosen(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` of ``texts``, drawn by the seed alone: the same for every model, and among those of a larger count."""
    order = np.random.default_rng([seed, 0]).permutation(len(texts))
    return [texts[index] for index in order[:count]]


def token_rows(lm: LanguageModel, texts: Sequence[str], most: int) -> list[list[int]]:
    """Each document as packed training reads it, EOD before and after it, cut to ``most`` tokens of its own.

    Raises:
        InputError: a document has no tokens.
    """
    start = lm.reader.prompt("")
    end = [*lm.reader.suffix, *([] if lm.eod is None else [lm.eod])]
    rows = []
    for index, ids in enumerate(lm.encode(texts)):
        if not ids:
            raise InputError(f"document {index} has no tokens")
        rows.append([*start, *ids[:most], *(end if len(ids) <= most else [])][: lm.max_length])
    return rows


def document_loss(model: Any, rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """L of one step's documents, each of two tokens at least."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows], device=device)
    labels = torch.tensor([[*row[1:], *[_NONE] * (width - len(row))] for row in rows], device=device)
    # padding is on the right, where a causal model never looks back from
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_NONE)


def rate_at(step: int, steps: int, warmup: float) -> float:
    """η_i / η of step ``step``, from 1."""
    first = math.ceil(warmup * steps)
    return step / first if step <= first else (steps - step + 1) / (steps - first)


def tune(lm: LanguageModel, rows: Sequence[Sequence[int]], recipe: Relearn, seed: int) -> Iterator[float]:
    """Train ``lm`` in place; yields L of each step, after it, until the last step of ``recipe``.

    Every pass through ``rows`` has an order of its own, which follows from the seed.

    Raises:
        InputError: LoRA without peft, or rows of one token.
        NumericsError: a loss that is not finite.
    """
    usable = [row for row in rows if len(row) > 1]
    if not usable:
        raise InputError("the documents have no token to predict: one token each, and nothing before it")
    steps = recipe.at[-1]
    weights = _trained(lm, recipe, seed)
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.learning_rate)
    batches = _batches(len(usable), min(recipe.documents_a_step, len(usable)), seed)
    for step in range(1, steps + 1):
        with torch.enable_grad():
            loss = document_loss(lm.model, [usable[index] for index in next(batches)], lm.device)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise NumericsError(f"the loss of step {step} is not finite; take a lower --learning-rate")
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, recipe.max_norm)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate_at(step, steps, recipe.warmup)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield value


def _batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Indices of each step's documents, pass after pass; a pass's last documents stand with the next one's first."""
    waiting: list[int] = []
    number = 1
    while True:
        while len(waiting) < size:
            waiting += np.random.default_rng([seed, number]).permutation(count).tolist()
            number += 1
        yield waiting[:size]
        waiting = waiting[size:]


def _trained(lm: LanguageModel, recipe: Relearn, seed: int) -> list[torch.nn.Parameter]:
    """The weights to train: all of them, or a LoRA's, which is put into the model."""
    if recipe.lora is None:
        lm.model.requires_grad_(True)
        return list(lm.model.parameters())
    adapted = add_adapters(lm.model, rank=recipe.lora, alpha=recipe.lora_alpha, dropout=0.0, seed=seed)
    # it goes into the model's own layers, which then generate with it
    return [weight for weight in adapted.parameters() if weight.requires_grad]
