"""Adam's second moments in a NeoX checkpoint, bias-corrected: what of the curvature a run has measured by itself.

    D = exp_avg_sq / (1 - β2^t),    a mean over steps of the squared gradient of the mean loss

Without ZeRO a rank's file holds them by number: NeoX numbers parameters as its modules have them, those with weight
decay first. With ZeRO stage 1 each data-parallel rank holds a stretch of all of them laid end to end, and says where in
it each name lies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.checkpoints.reader import NeoxCheckpoint, Shards, load_tensors
from ifguide.errors import InputError

_RANK_FILE = re.compile(r"^mp_rank_(\d+)_model_states\.pt$")
_ZERO_FILE = re.compile(r"^(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$")
_NORM = re.compile(r"^(norm|\w+layernorm)\.")


class SecondMoments:
    """D of every parameter of a checkpoint, one pipeline layer at a time.

    Attributes:
        step: t, the step of the optimizer.

    Raises:
        InputError: the checkpoint holds no states of Adam, or in an order that is not NeoX's.
    """

    def __init__(self, checkpoint: NeoxCheckpoint):
        self._checkpoint = checkpoint
        self.step = 0
        # pipeline layer -> tensor-parallel rank -> name -> what holds it
        self._places: dict[int, list[dict[str, list[_State]]]] = {
            layer: [{} for _ in range(checkpoint.ranks)] for layer in checkpoint.layers
        }
        names = [path.name for path in checkpoint.folder.iterdir()]
        cut = sorted((int(m[1]), int(m[2]), m[0]) for name in names if (m := _ZERO_FILE.match(name)))
        for _, number, name in cut:
            self._place_named(checkpoint.folder / name, number % checkpoint.ranks)
        if not cut:
            self._place_numbered(sorted((int(m[1]), m[0]) for name in names if (m := _RANK_FILE.match(name))))

    def shards(self, layer: int) -> Shards:
        """Name -> D for each tensor-parallel rank of pipeline layer ``layer``.

        Raises:
            InputError: a part of them is missing.
        """
        found = []
        for rank, parameters in enumerate(self._checkpoint.shards(layer)):
            states = self._places[layer][rank]
            found.append({name: self._whole(layer, name, p, states.get(name, [])) for name, p in parameters.items()})
        return found

    def _whole(self, layer: int, name: str, parameter: Tensor, states: list[_State]) -> Tensor:
        if sum(state.squares.numel() for state in states) != parameter.numel():
            raise InputError(
                f"{self._checkpoint.folder} holds not all of Adam's second moments of {layer}.{name}; copy the whole "
                "checkpoint"
            )
        return torch.cat([state.corrected().flatten() for state in states]).view(parameter.shape)

    # ---- without ZeRO ----

    def _place_numbered(self, files: list[tuple[int, str]]) -> None:
        folder, ranks = self._checkpoint.folder, self._checkpoint.ranks
        if not files or len(files) % ranks:
            raise InputError(f"{folder} holds no states of an optimizer (mp_rank_* files)")
        waiting = [list(self._checkpoint.layers) for _ in range(ranks)]
        for number, name in files:
            # stages in order, of each all tensor-parallel ranks
            self._place(folder / name, number % ranks, waiting[number % ranks])
        if any(waiting):
            raise self._refusal(folder / files[-1][1], "it has fewer parameters than the model")

    def _place(self, path: Path, rank: int, waiting: list[int]) -> None:
        """Give the states in the file ``path`` to the next pipeline layers of ``waiting``, and strike those out."""
        content = load_tensors(path)
        optimizer = content.get("optimizer") if isinstance(content, Mapping) else None
        if not optimizer:
            raise InputError(f"{path} holds no states of an optimizer; it was saved without")
        states = list(_in_order(path, optimizer))
        self.step = max(self.step, *(state.step for state in states))
        names: list[tuple[int, str, tuple[int, ...]]] = []
        while waiting and len(names) < len(states):
            layer = waiting.pop(0)
            names += [(layer, name, tuple(t.shape)) for name, t in self._checkpoint.shard(layer, rank).items()]
        if len(optimizer["param_groups"]) == 2:
            names = [one for one in names if _decays(one[1])] + [one for one in names if not _decays(one[1])]
        if [shape for *_, shape in names] != [tuple(state.squares.shape) for state in states]:
            raise self._refusal(path, "its states do not have the shapes of the parameters, in NeoX's order")
        for (layer, name, _), state in zip(names, states, strict=True):
            self._places[layer][rank][name] = [state]

    def _refusal(self, path: Path, why: str) -> InputError:
        return InputError(f"{path}: Adam's second moments cannot be told apart: {why}")

    # ---- ZeRO stage 1 ----

    def _place_named(self, path: Path, rank: int) -> None:
        """Give the stretch of states in the file ``path`` to the parameters that it names, behind earlier ranks'."""
        content = load_tensors(path, _STAND_INS)
        zero = content.get("optimizer_state_dict") if isinstance(content, Mapping) else None
        places = zero.get("param_slice_mappings") if isinstance(zero, Mapping) else None
        if not isinstance(zero, Mapping) or not isinstance(places, list):
            raise InputError(f"{path} does not say where its parameters lie; is it of DeepSpeed's ZeRO stage 1?")
        for state, named in zip(_in_order(path, zero["base_optimizer_state"]), places, strict=True):
            self.step = max(self.step, state.step)
            for whole_name, stretch in named.items():
                layer, name = layout.place_of(whole_name) or (-1, "")
                if layer in self._places:
                    pieces = self._places[layer][rank].setdefault(name, [])
                    pieces.append(state.narrow(stretch.start, stretch.numel))


class _State:
    """Some parameter's, or a stretch of them: exp_avg_sq, the step, β2."""

    def __init__(self, squares: Tensor, step: int, beta: float):
        self.squares, self.step, self._beta = squares, step, beta

    def corrected(self) -> Tensor:
        return self.squares.float() / (1 - self._beta**self.step)

    def narrow(self, start: int, count: int) -> _State:
        return _State(self.squares.narrow(0, start, count), self.step, self._beta)


class _Named:
    """In the place of a class of DeepSpeed's whose objects are but named values: nothing of them is run."""

    start: int
    numel: int


# what files of ZeRO name beside tensors and numbers
_STAND_INS = (
    (_Named, "deepspeed.utils.tensor_fragment.fragment_address"),
    (_Named, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
    (_Named, "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler"),
    (int, "deepspeed.runtime.zero.config.ZeroStageEnum"),
)


def _in_order(path: Path, optimizer: Mapping[str, Any]) -> Iterator[_State]:
    """The states of an optimizer's state_dict, by number."""
    for group in optimizer["param_groups"]:
        states = [optimizer["state"].get(number, {}) for number in group["params"]]
        # apex counts steps by group. DeepSpeed counts them in one state of a group, and leaves the others as they began
        step = max(int(counted.get("step", 0)) for counted in (group, *states))
        for state in states:
            squares = state.get("exp_avg_sq")
            if not isinstance(squares, Tensor) or step < 1:
                raise InputError(f"{path} holds no second moments (exp_avg_sq) of Adam after a step; is it another's?")
            yield _State(squares, step, float(group["betas"][1]))


def _decays(name: str) -> bool:
    """NeoX's rule: neither norms nor biases have weight decay."""
    return not _NORM.match(name) and not name.endswith(".bias")
