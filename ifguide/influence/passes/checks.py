"""One batch before every long job: whatever is broken is found in seconds, and all of it is named at once.

Shapes: B windows, T positions, O outputs and I inputs of a tracked layer (I includes the bias column).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ifguide.errors import ConfigError, InputError, NumericsError, first_faults
from ifguide.influence.backward.gradients import batch_loss, blocks_run_again, gradients_to
from ifguide.influence.batches import Batch
from ifguide.influence.curvature.store import Factors
from ifguide.influence.head import rows_at_a_time
from ifguide.influence.tensors import all_finite
from ifguide.influence.windows import Cutting, Windows
from ifguide.models.tracked import ScoredModel, label_losses

# rounding of an eigenvalue, as a share of the largest one of its layer
_NEGATIVE = 1e-5


def largest_batch(windows: Windows | Cutting, batch_tokens: int, max_rows: int | None = None) -> Batch:
    """The batch that needs the most memory: the longest windows, as many as ``batch_tokens`` hold.

    No batch of `group_by_length` has more padded tokens, and at equal tokens longer rows cost more attention.
    """
    rows = max(1, batch_tokens // windows.longest)
    longest = windows.longest_ones(rows if max_rows is None else min(rows, max_rows))
    return longest.batch(np.arange(len(longest)))


def check_model_on(model: ScoredModel, batch: Batch, backward: bool = False) -> None:
    """Run ``batch`` through the plain model and look at everything on the way.

    Args:
        backward: take the gradient of the tracked weights too, as fitting factors does.

    Raises:
        ConfigError: a tracked layer does not see its inputs as [B, T, I].
        NumericsError: a weight, an activation, a loss or a gradient is not finite. Names the places where bad
            numbers arise, not all those they spread to.
        InputError: the batch does not fit the memory.
    """
    batch = batch.to(model.device)
    broken = [
        f"weight {name} of model {model.directory} holds {int((~torch.isfinite(weight)).sum())} numbers that are not "
        "finite; make or download the model again"
        for name, weight in model.model.named_parameters()
        if not all_finite(weight)
    ]
    watch = _Watch(model, batch)
    with memory_advice(batch):
        numbers = _gradients(model, batch, watch) if backward else _losses(model, batch, watch)
    # the source is what has to be mended: a broken weight explains every bad number behind it
    broken = broken or watch.sources or [f"{what} is not finite on this data" for what in numbers]
    if watch.flattened:
        raise ConfigError(first_faults(watch.flattened + broken))
    if broken:
        raise NumericsError("\n".join(first_faults(broken)))


def check_factors(factors: Factors, model: ScoredModel) -> None:
    """Look at every tensor of ``factors`` once.

    Raises:
        ConfigError: a tensor of a tracked layer is missing or has a shape that does not fit the layer.
        NumericsError: a tensor is not finite, or Λ is negative beyond rounding.
    """
    shapes, numbers = [], []
    for name in model.tracked:
        outputs, inputs = model.matrix_shape(name)
        expected = {"U_A": (inputs, inputs), "U_G": (outputs, outputs), "Lambda": (outputs, inputs)}
        wanted = {"identity": (), "diagonal": ("Lambda",)}.get(factors.strategy, tuple(expected))
        for key in wanted:
            tensor = factors.layers.get(name, {}).get(key)
            if tensor is None:
                shapes.append(f"factor {key} of {name} is missing; run fit-factors again")
            elif tuple(tensor.shape) != expected[key]:
                shapes.append(
                    f"factor {key} of {name} is {list(tensor.shape)}, the layer needs {list(expected[key])}; "
                    "run fit-factors on this model"
                )
            elif not all_finite(tensor):
                numbers.append(f"factor {key} of {name} is not finite; run fit-factors again")
            elif key == "Lambda":
                lowest, highest = map(float, tensor.aminmax())
                if lowest < -_NEGATIVE * max(abs(lowest), abs(highest)):
                    numbers.append(f"factor {key} of {name} is negative ({lowest:.3g}); run fit-factors again")
    if shapes:
        raise ConfigError(first_faults(shapes + numbers))
    if numbers:
        raise NumericsError("\n".join(first_faults(numbers)))


def first_bad_layer(model: ScoredModel, batch: Batch, run: Callable[[Batch], object]) -> str:
    """The first tracked layer whose output, or its tangent, is not finite while ``run`` computes ``batch``.

    Returns:
        Its name, or "the head" where all of them are finite: for the message that stops a job.
    """
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            value, tangent = forward_ad.unpack_dual(output)
            if not _finite(value) or (tangent is not None and not _finite(tangent)):
                found.append(name)

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in model.tracked.items()]
    try:
        run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the head"


@contextlib.contextmanager
def memory_advice(batch: Batch) -> Iterator[None]:
    """
    Raises:
        InputError: the work inside ran out of memory; says which flags need less.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        rows, columns = batch.inputs.shape
        raise InputError(
            f"a batch of {rows} windows of {columns} tokens does not fit the memory; give a smaller --batch-size "
            "(or --seq-length)"
        ) from error


class _Watch:
    """While entered, looks at what every module of the model takes and gives.

    Attributes:
        flattened: a fault for each tracked layer whose inputs have lost their [B, T].
        sources: a fault for each module that makes bad numbers out of good ones (the innermost one).
    """

    def __init__(self, model: ScoredModel, batch: Batch):
        self.flattened: list[str] = []
        self.sources: list[str] = []
        self._model = model
        self._shape = tuple(batch.inputs.shape)
        self._bad: list[str] = []
        self._handles: list[Any] = []

    def __enter__(self) -> _Watch:
        for name, module in self._model.model.named_modules():
            if module is not self._model.model:
                self._handles.append(module.register_forward_hook(self._hook(name), with_kwargs=True))
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, named: dict[str, Any], output: Any) -> None:
            taken = [*_tensors(inputs), *_tensors([value for key, value in named.items() if "mask" not in key])]
            if name in self._model.tracked and tuple(taken[0].shape[:-1]) != self._shape:
                self.flattened.append(
                    f"layer {name} takes inputs {list(taken[0].shape)}, not {[*self._shape, taken[0].shape[-1]]}: its "
                    "tokens have lost their places, so it cannot be tracked; leave it out with --modules"
                )
            inside = any(bad.startswith(f"{name}.") for bad in self._bad)
            if not inside and not all(map(_finite, _tensors([output]))) and all(map(_finite, taken)):
                self._bad.append(name)
                self.sources.append(f"the output of {name} is not finite on this data, and its inputs are")

        return hook


@torch.no_grad()
def _losses(model: ScoredModel, batch: Batch, watch: _Watch) -> list[str]:
    """Names of what is not finite among the losses."""
    labelled = batch.labelled
    with watch:
        hidden, labels = model.hidden(batch.inputs)[labelled], batch.labels[labelled]
    rows = rows_at_a_time(hidden.device.type, model.vocab_size)
    pieces = zip(hidden.split(rows), labels.split(rows), strict=True)
    finite = all(_finite(label_losses(model.logits(h), y)) for h, y in pieces)
    return [] if finite else ["the loss"]


def _gradients(model: ScoredModel, batch: Batch, watch: _Watch) -> list[str]:
    """Names of what is not finite among the loss and its gradients."""
    bad: list[str] = []

    def look(name: str, is_bias: bool, gradient: Tensor) -> None:
        if not _finite(gradient):
            bad.append(f"the gradient of {name}.{'bias' if is_bias else 'weight'}")

    with gradients_to(model, look), blocks_run_again(model):
        with watch:  # and not while blocks run again
            loss = batch_loss(model, batch)
        loss.backward()
    return ([] if _finite(loss) else ["the loss"]) + bad


def _tensors(values: Any) -> list[Tensor]:
    """The floating-point tensors of ``values`` and of the tuples in it."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(value)
        elif isinstance(value, dict):
            found += _tensors(value.values())
    return found


def _finite(tensor: Tensor) -> bool:
    # a look must leave nothing in the graph: a block that runs again would find something else there
    return bool(torch.isfinite(tensor.detach()).all())
