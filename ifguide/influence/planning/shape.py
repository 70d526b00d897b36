"""What a model folder's configuration says about the work: sizes alone, no weight is read.

Shapes: O outputs and I inputs of a tracked layer (I includes the bias column), H hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ifguide.errors import InputError
from ifguide.models.tracked import ScoredModel, describe_model

BYTES = {"float32": 4, "bfloat16": 2}


# of what transformers makes of elementary operations: x³ keeps x, tanh its result, both products their factors
_KEPT = {"gelu_new": 4}
# numbers that live at the nonlinearity per number that it takes: without tangents; with K of them, a + b·K
_ALIVE = {"gelu_new": (4, 5, 6)}
_ALIVE_GATED, _ALIVE_PLAIN = (3, 4, 5), (2, 2, 2)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        architecture: the class's name.
        parameters: how many numbers the weights are; tied ones count once.
        tracked: (O, I) of each tracked layer.
        linear: weights of all linear layers but the head, tracked or not.
        blocks: transformer layers.
        hidden: H.
        vocab: V.
        heads: of attention.
        head_width: numbers per head.
        key_value_heads: fewer than ``heads`` where they are grouped.
        widest: outputs of a block's widest linear layer.
        gated: whether a block has two layers of that width, whose outputs are multiplied.
        fused: whether one layer gives queries, keys and values.
        parallel: whether attention and MLP take the same residual.
        nonlinearity: numbers that a backward pass keeps of a block's nonlinearity, per number that it takes.
        alive: numbers that live at a block's nonlinearity, per number that it takes: without tangents, and a and b of
            the a + b·K that live with K tangents.
        rotary: whether queries and keys are rotated.
        window: longest input, or None.
        eod: token before each document, or None.
    """

    architecture: str
    parameters: int
    tracked: dict[str, tuple[int, int]]
    linear: int
    blocks: int
    hidden: int
    vocab: int
    heads: int
    head_width: int
    key_value_heads: int
    widest: int
    gated: bool
    fused: bool
    parallel: bool
    nonlinearity: int
    alive: tuple[int, int, int]
    rotary: bool
    window: int | None
    eod: int | None

    @property
    def matrices(self) -> int:
        """Numbers of one direction: Σ O·I."""
        return sum(rows * columns for rows, columns in self.tracked.values())

    @property
    def sides(self) -> int:
        """Numbers of one direction per unit of rank: Σ (O + I)."""
        return sum(rows + columns for rows, columns in self.tracked.values())

    @property
    def squares(self) -> int:
        """Numbers of all bases, or of all covariances: Σ (O² + I²)."""
        return sum(rows * rows + columns * columns for rows, columns in self.tracked.values())

    @property
    def attention_width(self) -> int:
        return self.heads * self.head_width


def read_shape(model_dir: str | Path, pattern: str | None = None, data: str | Path | None = None) -> Shape:
    """The shape of the model in a Hugging Face folder, whose weights need not be there.

    Args:
        data: prefix of the dataset it is used with, whose separator counts.

    Raises:
        InputError: no configuration, one that cannot be used, or nothing to track.
    """
    return shape_of(describe_model(model_dir, pattern, data))


def shape_of(model: ScoredModel) -> Shape:
    """The shape of a model that is loaded or described.

    Raises:
        InputError: its configuration says nothing of its attention or its blocks.
    """
    config = model.model.config
    for key in ("num_attention_heads", "num_hidden_layers"):
        if getattr(config, key, None) is None:
            raise InputError(
                f"model {model.directory} ({type(model.model).__name__}) says nothing of its {key}; "
                "only transformers with plain attention can be planned and scored"
            )
    linear = [m for m in model.model.modules() if isinstance(m, nn.Linear) and m is not model.head]
    widest = max(layer.out_features for layer in linear)
    heads = config.num_attention_heads
    hidden = model.head.in_features
    head_width = getattr(config, "head_dim", None) or hidden // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    gated = sum(layer.out_features == widest for layer in linear) >= 2 * config.num_hidden_layers
    activation = str(getattr(config, "activation_function", None))
    return Shape(
        architecture=type(model.model).__name__,
        parameters=sum(parameter.numel() for parameter in model.model.parameters()),
        tracked={name: model.matrix_shape(name) for name in model.tracked},
        linear=sum(layer.weight.numel() for layer in linear),
        blocks=config.num_hidden_layers,
        hidden=hidden,
        vocab=model.vocab_size,
        heads=heads,
        head_width=head_width,
        key_value_heads=key_value_heads,
        widest=widest,
        gated=gated,
        fused=any(layer.out_features == (heads + 2 * key_value_heads) * head_width for layer in linear),
        parallel=bool(getattr(config, "use_parallel_residual", False)),
        nonlinearity=_KEPT.get(activation, 1),
        alive=_ALIVE.get(activation, _ALIVE_GATED if gated else _ALIVE_PLAIN),
        rotary=any("Rotary" in type(module).__name__ for module in model.model.modules()),
        window=model.window,
        eod=model.eod,
    )
