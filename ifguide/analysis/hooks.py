"""Where a model's residual stream, attention, neurons and head lie, and what passes there.

Shapes: B texts, T tokens, L blocks, N neurons of a block, d width, V vocabulary.

The blocks are watched by hooks. transformers' own ``hidden_states`` is no substitute: its last entry has gone through
the final norm already, and norming it once more gives a plausible curve that is wrong at its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ifguide.compat.transformers import transposed_linear
from ifguide.errors import InputError, NumericsError
from ifguide.generation.batching import plan_batches
from ifguide.generation.prefix_cache import fill_up, takes_mixed_lengths
from ifguide.models.blocks import find_blocks, stream_of
from ifguide.models.language_model import LanguageModel

# of what is kept of one batch, in bytes
_BATCH_BYTES = 1 << 28
# (the MLP in a block, its first matrix, its last one); a gate beside the first changes the activation alone
_MLPS = (
    ("mlp", "dense_h_to_4h", "dense_4h_to_h"),
    ("mlp", "up_proj", "down_proj"),
    ("mlp", "c_fc", "c_proj"),
)
_ATTENTIONS = ("attention", "self_attn", "attn")
# what the model says and what its parts give may differ by rounding alone
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
_ROUNDING_ELSEWHERE = 5e-2


@dataclass(frozen=True, eq=False)
class Block:
    """One block, and what can be found of its attention and its neurons.

    Attributes:
        module: gives x_l.
        attention: gives attn_l, which is added to the residual stream; None where it is not known.
        up, down: the MLP's first and last matrix; None where they are not known.
    """

    module: nn.Module
    attention: nn.Module | None
    up: nn.Module | None
    down: nn.Module | None

    @property
    def keys(self) -> Tensor:
        """``[N, d]``, a view of the weights: row i is k_i. Of a gated MLP these are the rows of the matrix beside the
        gate, so that scaling one scales m_i whatever the gate does."""
        return _rows(self.up)

    @property
    def values(self) -> Tensor:
        """``[N, d]``, a view of the weights: row i is v_i."""
        return _rows(self.down).T

    @property
    def bias(self) -> Tensor | None:
        """b_l, ``[d]``."""
        bias = getattr(self.down, "bias", None)
        return None if bias is None else bias.detach()


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A causal language model in parts: ``head(norm(x_L))`` is what it says.

    Attributes:
        blocks: in order.
        norm: F.
        head: U.
    """

    blocks: tuple[Block, ...]
    norm: nn.Module
    head: nn.Module

    def require_neurons(self, name: str) -> None:
        """
        Raises:
            InputError: the MLPs of ``name`` are of no known form.
        """
        if any(block.up is None or block.down is None or block.attention is None for block in self.blocks):
            raise InputError(
                f"model {name}: its attention and MLP have none of the names that are known here (GPT-NeoX's, Llama's "
                "and GPT-2's), so its neurons cannot be analysed"
            )

    def said(self, residual: Tensor) -> Tensor:
        """Logits ``[..., V]`` of ``residual[..., d]``, normed once."""
        return self.head(self.norm(residual))


@dataclass(frozen=True, eq=False)
class Passage:
    """What passes while one text is read.

    Attributes:
        residuals: x_0 to x_L, ``[L + 1, T, d]``.
        attention: attn_1 to attn_L, ``[L, T, d]``; empty unless neurons are asked for.
        activations: of each block ``m[T, N]``; empty likewise.
    """

    residuals: Tensor
    attention: Tensor
    activations: tuple[Tensor, ...]


def anatomy_of(lm: LanguageModel) -> Anatomy:
    """Find the parts of ``lm`` and try them on a few tokens.

    Raises:
        InputError: they are not found, or do not give what the model gives (scaled or capped logits, say).
    """
    model = lm.model
    count = model.config.get_text_config().num_hidden_layers
    head = model.get_output_embeddings()
    owner, blocks = find_blocks(model) or (None, None)
    norm = None if owner is None else _final_norm(owner, lm)
    if blocks is None or norm is None or head is None:
        raise InputError(
            f"model {lm.name}: its {count} blocks, final norm and head are not found; it cannot be analysed"
        )
    found = Anatomy(tuple(map(_block, blocks)), norm, head)
    _try(lm, found)
    return found


def passages(
    lm: LanguageModel,
    anatomy: Anatomy,
    sequences: Sequence[Sequence[int]],
    *,
    neurons: bool = False,
    on_tokens: Callable[[int], object] | None = None,
) -> Iterator[tuple[int, Passage]]:
    """``(index, what passes)`` of each of ``sequences``, in the order that costs least.

    Sequences of several lengths are filled up on the right, where a causal model never looks.

    Raises:
        NumericsError: a residual that is not finite; names the text.
    """
    wide = sum(block.values.shape[0] for block in anatomy.blocks) if neurons else 0
    blocks, width = len(anatomy.blocks), lm.model.config.get_text_config().hidden_size
    numbers = (2 * blocks + 1) * width + wide
    tokens_at_once = max(1, _BATCH_BYTES // (numbers * lm.model.dtype.itemsize))
    plan = plan_batches(
        [len(sequence) for sequence in sequences], 1, 0, lambda length: max(1, tokens_at_once // length),
        mixed=takes_mixed_lengths(lm.model),
    )  # fmt: skip
    for batch in plan:
        some = [sequences[index] for index in batch]
        with torch.no_grad(), watching(anatomy, neurons=neurons) as seen:
            lm.model.base_model(input_ids=fill_up(some, lm.device), use_cache=False)
        residuals = torch.stack(seen.residuals)
        attention = torch.stack(seen.attention) if neurons else residuals[:0]
        for row, index in enumerate(batch):
            length = len(sequences[index])
            passed = residuals[:, row, :length]
            if not bool(torch.isfinite(passed).all()):
                raise NumericsError(
                    f"model {lm.name}: what passes through it at text {index} is not finite; is it intact?"
                )
            yield (
                index,
                Passage(passed, attention[:, row, :length], tuple(one[row, :length] for one in seen.activations)),
            )
        if on_tokens:
            on_tokens(sum(map(len, some)))


@dataclass(frozen=True, eq=False)
class Seen:
    """What one forward pass showed: x_0 to x_L, attn_1 to attn_L, m of each block, each with ``[B, T]`` in front."""

    residuals: list[Tensor]
    attention: list[Tensor]
    activations: list[Tensor]


@contextlib.contextmanager
def watching(anatomy: Anatomy, *, neurons: bool = False) -> Iterator[Seen]:
    """Keep what passes in the forward passes of the block."""
    seen = Seen([], [], [])

    def entering(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen.residuals.append(args[0] if args else options["hidden_states"])

    with contextlib.ExitStack() as stack:

        def keep(handle: Any) -> None:
            stack.callback(handle.remove)

        keep(anatomy.blocks[0].module.register_forward_pre_hook(entering, with_kwargs=True))
        for block in anatomy.blocks:
            keep(block.module.register_forward_hook(lambda _, __, out: seen.residuals.append(stream_of(out))))
            if neurons and block.attention is not None and block.down is not None:
                keep(block.attention.register_forward_hook(lambda _, __, out: seen.attention.append(stream_of(out))))
                keep(block.down.register_forward_pre_hook(lambda _, args: seen.activations.append(args[0])))
        yield seen


@contextlib.contextmanager
def steered(anatomy: Anatomy, vector: Tensor, scale: float) -> Iterator[None]:
    """Let the head read ``F(x_L + scale * vector)``.

    Only what the head reads moves: no block and no cache sees the vector, so every token of a continuation gets the
    same push. A ``scale`` of 0 changes nothing, not even a bit.
    """
    if scale == 0:
        yield
        return

    def push(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        residual = args[0]
        return (residual + scale * vector.to(residual), *args[1:])

    handle = anatomy.norm.register_forward_pre_hook(push)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def scaled_keys(anatomy: Anatomy, which: Sequence[tuple[int, int]], factor: float) -> Iterator[None]:
    """Multiply the keys of neurons (block, number), biases and gates left as they are, and put them back after."""
    places = [anatomy.blocks[block].keys[number] for block, number in which]
    before = [place.clone() for place in places]
    try:
        for place in places:
            place.mul_(factor)
        yield
    finally:
        for place, kept in zip(places, before):
            place.copy_(kept)


def _rows(linear: nn.Module | None) -> Tensor:
    """``[outputs, inputs]``, a view."""
    assert linear is not None  # `require_neurons` looked
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if isinstance(linear, transposed_linear()) else weight.detach()


def _final_norm(owner: nn.Module, lm: LanguageModel) -> nn.Module | None:
    """The last module beside the blocks whose weights are one number a dimension."""
    width = lm.model.config.get_text_config().hidden_size
    found = None
    for child in owner.children():
        shapes = [tuple(weight.shape) for weight in child.parameters()]
        if shapes and all(shape == (width,) for shape in shapes):
            found = child
    return found


def _block(module: nn.Module) -> Block:
    attention = next((getattr(module, name) for name in _ATTENTIONS if hasattr(module, name)), None)
    for mlp_name, up, down in _MLPS:
        mlp = getattr(module, mlp_name, None)
        if mlp is not None and hasattr(mlp, up) and hasattr(mlp, down):
            return Block(module, attention, getattr(mlp, up), getattr(mlp, down))
    return Block(module, attention, None, None)


def _try(lm: LanguageModel, anatomy: Anatomy) -> None:
    """
    Raises:
        InputError: ``head(norm(x_L))`` is not what the model says.
    """
    tokens = torch.arange(min(8, lm.max_length, lm.vocab_size), device=lm.device)[None]
    with torch.no_grad(), watching(anatomy) as seen:
        said = lm.model(input_ids=tokens, use_cache=False).logits
        ours = anatomy.said(seen.residuals[-1]).to(said.dtype)
    tolerance = _ROUNDING.get(said.dtype, _ROUNDING_ELSEWHERE)
    if len(seen.residuals) != len(anatomy.blocks) + 1 or not _close(said, ours, tolerance):
        raise InputError(
            f"model {lm.name}: its logits are not head(norm(last block)), as of a GPT-NeoX or a Llama (scaled or "
            "capped logits, say), so it cannot be analysed"
        )


def _close(said: Tensor, ours: Tensor, tolerance: float) -> bool:
    if not bool(torch.isfinite(said).all()):
        return True  # said later, with the text
    return bool((said - ours).abs().max() <= tolerance * said.abs().max())
