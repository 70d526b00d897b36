"""The scored model: a Hugging Face causal LM, its tracked linear layers and its untracked head.

Shapes: B sequences, T positions, N labelled positions, H hidden, V vocabulary,
        O outputs and I inputs of a tracked layer (I includes the bias column where there is a bias).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ifguide.architectures.support import require_scorable
from ifguide.compat.transformers import attention_of, transposed_linear
from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError, MismatchError, first_line
from ifguide.models import attention
from ifguide.models.devices import all_gpus, choose_device
from ifguide.models.folder import read_config, weights_fingerprint
from ifguide.models.loading import load_causal_model
from ifguide.models.placement import spread
from ifguide.system.files import hash_value

# a tracked layer lives in a numbered block ("layers.3.mlp..."): embeddings, their projections and the head do not
_IN_A_BLOCK = re.compile(r"\.\d+\.")


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """A causal LM split where influence needs it: `hidden` (tracked layers inside) and `logits` (the head).

    Attributes:
        model: the `PreTrainedModel`, in eval mode; no parameter requires a gradient.
        reader: how texts are read for it, or None where nothing says what its tokenizer is.
        directory: where it was loaded from.
        fingerprint: hash of the configuration and the weight files.
        tracked: linear layers of attention and MLP by their name in ``model``.
    """

    model: Any
    reader: TextReader | None
    directory: str
    fingerprint: str
    tracked: dict[str, nn.Linear]

    @cached_property
    def base(self) -> nn.Module:
        """The model without its head."""
        return self.model.base_model

    @cached_property
    def _prefix(self) -> str:
        return f"{self.model.base_model_prefix}."

    @cached_property
    def head(self) -> nn.Linear:
        return self.model.get_output_embeddings()

    @cached_property
    def device(self) -> torch.device:
        return self.head.weight.device

    @cached_property
    def dtype(self) -> torch.dtype:
        return self.head.weight.dtype

    @property
    def window(self) -> int | None:
        """Longest input in tokens, or None if the architecture sets no limit."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def vocab_size(self) -> int:
        return self.head.weight.shape[0]

    @property
    def eod(self) -> int | None:
        """The end-of-document token, or None if there is none."""
        return None if self.reader is None else self.reader.eod

    def parameter_names(self, name: str) -> tuple[str, str | None]:
        """Names of the weight and the bias of tracked layer ``name``, as `hidden` takes them."""
        inner = name.removeprefix(self._prefix)
        return f"{inner}.weight", f"{inner}.bias" if self.tracked[name].bias is not None else None

    def matrix_shape(self, name: str) -> tuple[int, int]:
        """(O, I) of tracked layer ``name``; the bias is the last input column."""
        layer = self.tracked[name]
        return layer.out_features, layer.in_features + (layer.bias is not None)

    def hidden(self, inputs: Tensor, overrides: dict[str, Tensor] | None = None) -> Tensor:
        """Last hidden states [B, T, H] of ``inputs``[B, T], with some parameters replaced.

        No attention mask: padding is on the right, and a causal model never looks there.
        """
        arguments = {"use_cache": False}
        return torch.func.functional_call(self.base, overrides or {}, (inputs,), arguments).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] from hidden states [..., H]."""
        return functional.linear(hidden, self.head.weight, self.head.bias)

    @contextlib.contextmanager
    def attention(self, implementation: str) -> Iterator[None]:
        """Run the model with this attention (a name that transformers knows) for a while."""
        with attention_of(self.model.config, implementation):
            yield

    def split_bias(self, matrices: dict[str, Tensor]) -> dict[str, Tensor]:
        """One matrix [O, I] per tracked layer -> one tensor per parameter, named as `hidden` takes them."""
        parameters = {}
        for name, matrix in matrices.items():
            weight, bias = self.parameter_names(name)
            matrix = matrix.to(self.tracked[name].weight.device, self.dtype)
            parameters[weight] = matrix if bias is None else matrix[:, :-1].contiguous()
            if bias is not None:
                parameters[bias] = matrix[:, -1].contiguous()
        return parameters

    def tracked_parameters(self) -> dict[str, Tensor]:
        """The tracked weights and biases, named as `hidden` takes them."""
        parameters = {}
        for name, layer in self.tracked.items():
            weight, bias = self.parameter_names(name)
            parameters[weight] = layer.weight.detach()
            if bias is not None:
                parameters[bias] = layer.bias.detach()
        return parameters

    @torch.no_grad()
    def check_architecture(self, inputs: Tensor) -> None:
        """Compare `logits` of `hidden` with the stock model's own output on ``inputs``[B, T].

        Raises:
            InputError: they differ: the architecture caps its logits, or its attention is out of the ordinary.
        """
        found = self.logits(self.hidden(inputs))
        with self.attention("eager"):
            expected = self.model(inputs, use_cache=False).logits
        tolerance = 1e-3 * float(expected.abs().max())
        if not torch.allclose(found, expected, rtol=1e-3, atol=tolerance, equal_nan=True):
            raise InputError(
                f"model {self.directory} is not plain attention with one linear head on top; this architecture "
                f"({type(self.model).__name__}) cannot be scored"
            )


def load_model(
    directory: str | Path,
    dtype: torch.dtype = torch.float32,
    implementation: str = attention.NAME,
    pattern: str | None = None,
    device: str | None = None,
    data: str | Path | None = None,
    eod_token: str | None = None,
    device_map: str | None = None,
) -> ScoredModel:
    """Load a Hugging Face folder (never from a hub) for scoring or fitting.

    Args:
        implementation: of the attention; by default the one that carries forward-mode tangents.
        pattern: track only layers whose name matches this regular expression (`re.search`).
        device: see `choose_device` (None: this process's GPU if there is one).
        data: prefix of the dataset it is used with; that one's separator and template count.
        eod_token: the separator, whatever data and model say.
        device_map: ``balanced`` spreads the blocks over all GPUs; ``device`` does not count then.

    Raises:
        InputError: no model in the folder, weights that do not fit it, nothing to track, or weights of attention and
            MLP that cannot be tracked.
        MismatchError: ``data`` was made with another tokenizer.
    """
    devices = [choose_device(device)] if device_map is None else all_gpus("--device-map")
    directory = Path(directory)
    require_scorable(directory, read_config(directory))
    attention.register()
    reader = TextReader.find(directory, data, eod_token)
    fingerprint = weights_fingerprint(directory)
    lies = devices[0] if device_map is None else "cpu"
    model = load_causal_model(directory, dtype, "model", attention=implementation, device=lies)
    _replace_conv1d(model)
    check_coverage(model, directory)
    model.eval().requires_grad_(False)
    if device_map is not None:
        spread(model, devices)
    return ScoredModel(model, reader, str(directory), fingerprint, tracked_layers(model, pattern))


def describe_model(directory: str | Path, pattern: str | None = None, data: str | Path | None = None) -> ScoredModel:
    """The model of a folder without its weights, which need not be there: for whoever asks about shapes alone.

    Raises:
        InputError: no configuration in the folder, one that is unknown, nothing to track, or weights of attention and
            MLP that cannot be tracked.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    directory = Path(directory)
    described = read_config(directory)
    require_scorable(directory, described)
    fingerprint = hash_value(described)
    reader = TextReader.find(directory, data)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory, local_files_only=True))
    except Exception as error:  # whatever a hostile configuration runs into inside transformers
        raise InputError(f"model {directory}: its config.json cannot be used: {first_line(error)}") from error
    _replace_conv1d(model)
    check_coverage(model, directory)
    model.eval().requires_grad_(False)
    return ScoredModel(model, reader, str(directory), fingerprint, tracked_layers(model, pattern))


def tracked_layers(model: Any, pattern: str | None = None) -> dict[str, nn.Linear]:
    """Linear layers of attention and MLP by name, in the model's order; never embeddings or the head.

    Raises:
        InputError: ``pattern`` is no regular expression, or no layer is left.
    """
    try:
        wanted = re.compile(pattern or "")
    except re.error as error:
        raise InputError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    head = model.get_output_embeddings()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and _IN_A_BLOCK.search(name) and wanted.search(name)
    }
    if not layers:
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        example = f"; its linear layers are named like {linear[0]}" if linear else ""
        raise InputError(f"no linear layer of attention or MLP matches {pattern or 'this architecture'!r}{example}")
    return layers


def check_coverage(model: Any, directory: str | Path) -> None:
    """Refuse a model with weights in its blocks that no linear layer holds, such as the fused experts of a mixture.

    Their part of the influence would be missing from every score. What is left out by a pattern is left out on purpose;
    this is what no pattern could name.

    Raises:
        InputError: there are such weights; names the largest and the share of all of them.
    """
    head = model.get_output_embeddings()
    named = {
        name: parameter
        for name, parameter in model.named_parameters()
        if _IN_A_BLOCK.search(name) and (head is None or parameter is not head.weight)
    }
    known = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    # biases, norms and gains have one axis, whatever shape they are kept in
    foreign = {
        name: parameter.numel()
        for name, parameter in named.items()
        if id(parameter) not in known and sum(size > 1 for size in parameter.shape) > 1
    }
    if not foreign:
        return
    largest = max(foreign, key=lambda name: foreign[name])
    share = sum(foreign.values()) / sum(parameter.numel() for parameter in named.values())
    others = f" and {len(foreign) - 1} others" if len(foreign) > 1 else ""
    raise InputError(
        f"model {directory} ({type(model).__name__}) keeps {share:.0%} of the weights of its blocks outside of linear "
        f"layers: {largest} {list(named[largest].shape)}{others} (experts of a mixture, or a state space?); their "
        "influence cannot be scored, and scores without it would be wrong; take a dense model"
    )


def track_only(model: ScoredModel, names: list[str]) -> ScoredModel:
    """``model`` with just these tracked layers.

    Raises:
        MismatchError: it has no such layer.
    """
    missing = [name for name in names if name not in model.tracked]
    if missing:
        raise MismatchError(f"model {model.directory} has no linear layer {missing[0]} that the factors were fitted on")
    return replace(model, tracked={name: model.tracked[name] for name in names})


def label_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """``l = -log p(label)``[N] from ``logits``[N, V] and ``labels``[N]."""
    return functional.cross_entropy(logits, labels, reduction="none")


def _replace_conv1d(model: Any) -> None:
    """Turn GPT-2's Conv1D (a linear layer with a transposed weight) into `nn.Linear`, so that one rule fits all."""
    transposed = transposed_linear()
    for name, module in list(model.named_modules()):
        if not isinstance(module, transposed):
            continue
        inputs, outputs = module.weight.shape
        linear = nn.Linear(inputs, outputs, device=module.weight.device, dtype=module.weight.dtype)
        linear.weight = nn.Parameter(module.weight.detach().T.contiguous())
        linear.bias = nn.Parameter(module.bias.detach())
        model.set_submodule(name, linear)
