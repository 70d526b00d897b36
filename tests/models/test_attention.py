"""The attention's tangent against torch's forward mode through the literal formula."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from ifguide.models import attention

SCALE = 0.3


def _inputs(batch=3, heads=4, groups=2, length=11, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, h, length, width) for h in (heads, heads // groups, heads // groups)]
    return [[torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(2)]


def _literal(query, key, value, seen):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(2, 3)) * SCALE
    return (torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1) @ value).transpose(1, 2)


@torch.no_grad()
def _ours(primals, tangents, mask=None):
    module = SimpleNamespace(num_key_value_groups=primals[0].shape[1] // primals[1].shape[1], is_causal=True)
    with forward_ad.dual_level():
        duals = [p if t is None else forward_ad.make_dual(p, t) for p, t in zip(primals, tangents, strict=True)]
        return tuple(forward_ad.unpack_dual(attention.dual_attention(module, *duals, mask, SCALE)[0]))


def _expected(primals, tangents, seen):
    filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    return torch.func.jvp(lambda *x: _literal(*x, seen), tuple(primals), filled)


def _causal(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


@pytest.mark.parametrize("present", [p for p in itertools.product([True, False], repeat=3) if any(p)])
def test_equals_forward_mode_through_the_formula(present):
    primals, tangents = _inputs()
    tangents = [t if there else None for t, there in zip(tangents, present, strict=True)]
    for found, expected in zip(_ours(primals, tangents), _expected(primals, tangents, _causal(11)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_mask_is_obeyed():
    primals, tangents = _inputs()
    seen = _causal(11) & ~_causal(11).tril(-4)
    mask = seen[None, None].expand(3, 1, -1, -1)
    for found, expected in zip(_ours(primals, tangents, mask), _expected(primals, tangents, seen), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("elements", [1, 100, 500, 1000, 5000])
@pytest.mark.parametrize("masked", [False, True])
def test_the_size_of_a_piece_does_not_matter(monkeypatch, elements, masked):
    primals, tangents = _inputs()
    seen = _causal(11)
    expected = _expected(primals, tangents, seen)
    monkeypatch.setitem(attention._ELEMENTS, "cpu", elements)
    found = _ours(primals, tangents, seen[None, None].expand(3, 1, -1, -1) if masked else None)
    torch.testing.assert_close(found, tuple(expected), rtol=1e-10, atol=1e-12)


def test_without_tangents_it_is_the_fused_kernel():
    primals, _ = _inputs()
    output, tangent = _ours(primals, [None] * 3)
    torch.testing.assert_close(output, _literal(*primals, _causal(11)), rtol=1e-10, atol=1e-12)
    assert tangent is None


class _Largest(TorchDispatchMode):
    """Most elements of any tensor that an operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result._is_view():
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("length", [256, 2048])
def test_no_tensor_grows_with_the_square_of_the_length(length):
    batch, heads, width = 2, 4, 8
    primals, tangents = _inputs(batch, heads, 2, length, width)
    with _Largest() as largest:
        _ours(primals, tangents)
    bound = max(attention._ELEMENTS["cpu"], 2 * batch * heads * length * width)
    assert largest.elements <= bound
    if length == 2048:
        assert bound < batch * heads * length**2 / 8
