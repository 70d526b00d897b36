"""Slow, literal versions of what `ifguide.influence` computes: one token, one query, one dense matrix at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ifguide.influence.batches import NO_LABEL
from ifguide.influence.queries import Query
from ifguide.models.tracked import ScoredModel


def losses(model: ScoredModel, inputs: Tensor, labels: Tensor) -> Tensor:
    """-log p of each label of one sequence[T], through the stock model output."""
    log_p = torch.log_softmax(model.model(inputs[None], use_cache=False).logits[0], dim=-1)
    return -log_p[torch.arange(len(labels)), labels]


@contextlib.contextmanager
def eager_attention(model: ScoredModel) -> Iterator[None]:
    """The stock eager attention with its stock mask, but for its softmax, which rounds to fp32."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register("exact_eager", _eager)
    AttentionMaskInterface.register("exact_eager", eager_mask)
    with model.attention("exact_eager"):
        yield


def _eager(module, query, key, value, attention_mask, scaling, **ignored):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    weights = torch.softmax(query @ key.transpose(2, 3) * scaling + attention_mask, dim=-1)
    return (weights @ value).transpose(1, 2), weights


def gradient(model: ScoredModel, value: Tensor) -> dict[str, Tensor]:
    """∇θ of a scalar per tracked layer [O, I], the bias as the last column."""
    parameters = [p for layer in model.tracked.values() for p in (layer.weight, layer.bias) if p is not None]
    grads = iter(torch.autograd.grad(value, parameters, retain_graph=True))
    result = {}
    for name, layer in model.tracked.items():
        weight = next(grads)
        result[name] = weight if layer.bias is None else torch.cat([weight, next(grads)[:, None]], dim=1)
    return result


def track(model: ScoredModel) -> None:
    """Let autograd reach the tracked layers."""
    for layer in model.tracked.values():
        layer.requires_grad_(True)


def dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))


def position_scores(model: ScoredModel, direction: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> list[float]:
    """``Σ_layers g_t^T V a_t`` of one sequence, one position and one layer at a time."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [
        layer.register_forward_hook(lambda _, a, y, name=name: seen.update({name: (a[0], y)}))
        for name, layer in model.tracked.items()
    ]
    loss = losses(model, inputs, labels).sum()
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(loss, [y for _, y in seen.values()])
    scores = []
    for t in range(len(inputs)):
        total = 0.0
        for (name, (a, _)), g in zip(seen.items(), gradients, strict=True):
            one = torch.ones(0 if model.tracked[name].bias is None else 1, dtype=a.dtype)
            total += float(g[0, t] @ direction[name] @ torch.cat([a[0, t].detach(), one]))
        scores.append(total)
    return scores


def query_loss(model: ScoredModel, query: Query) -> Tensor:
    inputs, labels = torch.from_numpy(query.inputs), torch.from_numpy(query.labels)
    wanted = labels != NO_LABEL
    return losses(model, inputs, labels.clamp(min=0))[wanted].sum()


def margin(model: ScoredModel, toxic: list[Query], safe: list[Query]) -> Tensor:
    """Mean toxic minus mean safe log-likelihood."""
    means = [
        sum(q.weight * -query_loss(model, q) for q in queries) / sum(q.weight for q in queries)
        for queries in (toxic, safe)
    ]
    return means[0] - means[1]


@torch.no_grad()
def step(model: ScoredModel, change: dict[str, Tensor], size: float) -> None:
    """θ <- θ + size · change on the tracked layers."""
    for name, layer in model.tracked.items():
        matrix = size * change[name]
        if layer.bias is not None:
            layer.bias += matrix[:, -1]
            matrix = matrix[:, :-1]
        layer.weight += matrix


def dense_inverse(layer: dict[str, Tensor], damping: float, g: Tensor) -> Tensor:
    """``((U_G ⊗ U_A)(Λ + damping)(U_G ⊗ U_A)^T)^-1 vec(g)`` with the matrix written out."""
    basis = torch.kron(layer["U_G"], layer["U_A"])
    dense = basis @ torch.diag(layer["Lambda"].flatten() + damping) @ basis.T
    return torch.linalg.solve(dense, g.flatten()).reshape(g.shape)


def random_factors(model: ScoredModel, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """EK-FAC factors with random orthogonal bases and positive Λ."""
    generator = torch.Generator().manual_seed(seed)

    def orthogonal(size: int) -> Tensor:
        return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]

    layers = {}
    for name in model.tracked:
        outputs, inputs = model.matrix_shape(name)
        eigenvalues = torch.rand(outputs, inputs, generator=generator, dtype=torch.float64) ** 4
        layers[name] = {"U_A": orthogonal(inputs), "U_G": orthogonal(outputs), "Lambda": eigenvalues}
    return layers


def random_direction(model: ScoredModel, seed: int = 1) -> dict[str, Tensor]:
    """One matrix [O, I] per tracked layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(model.matrix_shape(name), generator=generator, dtype=torch.float64) for name in model.tracked
    }
