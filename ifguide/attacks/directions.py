"""Directions in which toxic and safe states differ, or an edited model's and its base's, and models without them.

    r_l = mean over tokens of h_l(toxic completions) - mean of h_l(safe completions)          own, base
    r_l = mean over tokens of h_l - h°_l on toxic completions, ° the base                     edit
    r_l = first principal component of h_l - h°_l on toxic completions                        edit-pc
    v_l = r_l / |r_l|

    layers, layer    h_l <- h_l - (h_l · v_l) v_l, behind each block or behind one
    weights          W <- W - v vᵀ W, b <- b - v (vᵀ b) of every matrix that writes to the residual stream, and of the
                     embeddings; then v · x_l = 0 for every l. The head keeps its matrix.

Shapes: N tokens, L blocks, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ifguide.attacks.blocks import changed_outputs, embeddings_of, states, untie, writers_of
from ifguide.compat.transformers import transposed_linear
from ifguide.errors import InputError, NumericsError
from ifguide.models.language_model import LanguageModel

# queries whose states are taken at once
_TOGETHER = 8
# |v · x| / |x| that is left by rounding
_LEFT = {torch.float64: 1e-10, torch.float32: 1e-4}
_LEFT_OF_HALVES = 3e-2


@dataclass(frozen=True)
class Sums:
    """What the states of the kept tokens add up to, float64.

    Attributes:
        count: ``[L]`` tokens.
        first: ``[L, D]``.
        square: ``[L]``, of their squared lengths.
        second: ``[L, D, D]`` of outer products, None where not asked for.
    """

    count: Tensor
    first: Tensor
    square: Tensor
    second: Tensor | None = None

    def plus(self, other: Sums) -> Sums:
        both = None if self.second is None or other.second is None else self.second + other.second
        return Sums(self.count + other.count, self.first + other.first, self.square + other.square, both)

    @property
    def mean(self) -> Tensor:
        """``[L, D]``."""
        return self.first / self.count[:, None]

    @property
    def spread(self) -> Tensor:
        """``[L]``: mean squared distance to the mean."""
        return self.square / self.count - self.mean.square().sum(dim=1)


def query_rows(lm: LanguageModel, queries: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[bool]]]:
    """Ids of prompt and completion, and which of them hold a byte of the completion."""
    rows = []
    for prompt, completion in queries:
        tokens, counts = lm.reader.query(prompt, completion)
        rows.append((tokens[-lm.max_length :], counts[-lm.max_length :]))
    return rows


def completion_states(lm: LanguageModel, rows: Sequence[tuple[list[int], list[bool]]]) -> Iterator[Tensor]:
    """``[n, L, D]`` of the completions' tokens, a few queries at a time; float64."""
    for start in range(0, len(rows), _TOGETHER):
        some = rows[start : start + _TOGETHER]
        width = max(len(tokens) for tokens, _ in some)
        ids = torch.tensor([[*tokens, *[tokens[-1]] * (width - len(tokens))] for tokens, _ in some], device=lm.device)
        counts = torch.tensor([[*marks, *[False] * (width - len(marks))] for _, marks in some], device=lm.device)
        yield states(lm.model, ids)[counts].double()


def sums_of(
    lm: LanguageModel, rows: Sequence[tuple[list[int], list[bool]]], outliers: float,
    base: LanguageModel | None = None, second: bool = False,
) -> Sums:  # fmt: skip
    """The sums of the completions' states, or of their differences to ``base``'s, without outlying tokens: those whose
    state is longer than ``outliers`` medians of its layer, in either model (0: all are kept).

    Raises:
        NumericsError: a state that is not finite, or no token is left.
    """

    def pieces() -> Iterator[tuple[Tensor, ...]]:
        both = [completion_states(one, rows) for one in (lm, base) if one is not None]
        yield from zip(*both)

    lengths = [torch.stack([state.norm(dim=2) for state in piece]) for piece in pieces()]  # [models, n, L]
    length = torch.cat(lengths, dim=1)
    if not bool(torch.isfinite(length).all()):
        raise NumericsError(f"model {lm.name}: its states are not finite; is the model intact?")
    limits = outliers * length.median(dim=1).values if outliers else torch.full_like(length[:, 0], torch.inf)
    total: Sums | None = None
    for piece in pieces():
        kept = torch.stack([state.norm(dim=2) <= limits[number] for number, state in enumerate(piece)]).all(dim=0)
        value = (piece[0] if base is None else piece[0] - piece[1]) * kept[..., None]  # [n, L, D]
        outer = torch.einsum("nld,nle->lde", value, value) if second else None
        made = Sums(kept.sum(dim=0).double(), value.sum(dim=0), value.square().sum(dim=(0, 2)), outer)
        total = made if total is None else total.plus(made)
    if total is None or not bool((total.count > 0).all()):
        raise NumericsError(f"model {lm.name}: no token is left of the completions; take a larger --outliers")
    return total


def separation(toxic: Sums, safe: Sums) -> Tensor:
    """``[L]``: squared distance of the means over the mean squared distances to them."""
    return (toxic.mean - safe.mean).square().sum(dim=1) / (toxic.spread + safe.spread).clamp(min=1e-300)


def principal(sums: Sums) -> Tensor:
    """``[L, D]``: first principal component of what ``sums`` are of, with its ``second``; its sign is the mean's."""
    assert sums.second is not None
    covariance = sums.second / sums.count[:, None, None] - sums.mean[:, :, None] * sums.mean[:, None, :]
    first = torch.linalg.eigh(covariance).eigenvectors[:, :, -1]
    return torch.where((first * sums.mean).sum(dim=1, keepdim=True) < 0, -first, first)


def unit(directions: Tensor) -> Tensor:
    """``[..., D]`` of length 1.

    Raises:
        InputError: one is 0: what it tells apart does not differ.
    """
    lengths = directions.norm(dim=-1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise InputError("a direction is 0: the states that it is the difference of are the same")
    return directions / lengths


def without(state: Tensor, v: Tensor) -> Tensor:
    """``h - (h · v) v`` of ``state[..., D]``, ``v[D]`` of length 1."""
    v = v.to(state)
    return state - (state @ v)[..., None] * v


@contextmanager
def removed_from_layers(lm: LanguageModel, v: Tensor, layer: int | None = None) -> Iterator[None]:
    """Inside, ``v[L, D]`` is taken out behind each block, or behind block ``layer`` (from 1) alone."""

    def change(number: int, state: Tensor) -> Tensor:
        return without(state, v[number - 1]) if layer in (None, number) else state

    with changed_outputs(lm.model, change):
        yield


@torch.no_grad()
def remove_from_weights(lm: LanguageModel, v: Tensor) -> None:
    """Take ``v[D]`` out of everything that is written to the residual stream, in place.

    Raises:
        InputError: something else writes there, such as a norm behind a block: the states still hold ``v``.
    """
    model = lm.model
    untie(model)
    v = v.to(lm.device, torch.float64)
    for embedding in embeddings_of(model):
        _project(embedding.weight, v, along=1)
    for writer in writers_of(model):
        _project(writer.weight, v, along=1 if isinstance(writer, transposed_linear()) else 0)
        if getattr(writer, "bias", None) is not None:
            _project(writer.bias, v, along=0)
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(lm.vocab_size, (2, min(16, lm.max_length)), generator=random)
    held = states(model, ids.to(lm.device)).double()
    left = float(((held @ v).abs() / held.norm(dim=-1).clamp(min=1e-300)).max())
    if left > _LEFT.get(model.dtype, _LEFT_OF_HALVES):
        raise InputError(
            f"model {lm.name}: {left:.2g} of a state still lies in the direction: this architecture writes to the "
            "residual stream elsewhere, too; take --remove layers"
        )


def _project(weight: Tensor, v: Tensor, along: int) -> None:
    """``weight`` without ``v`` in its dimension ``along``, computed in float64."""
    whole = weight.double()
    shape = [-1 if dimension == along else 1 for dimension in range(whole.ndim)]
    inner = (whole * v.reshape(shape)).sum(dim=along, keepdim=True)
    weight.copy_(whole - inner * v.reshape(shape))
