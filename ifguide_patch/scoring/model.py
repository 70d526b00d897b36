"""GPT-NeoX's model as scoring needs it: weights that move along a direction, per-token losses, and gradients.

Every process of a replica calls the same methods in the same order; batches come from the leader.

Shapes: B sequences, T positions, M micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture
from ifguide.architectures.registry import Family
from ifguide.errors import NumericsError
from ifguide.influence.neox import read_slices, tracked_shapes
from ifguide_patch.scoring.pipeline import run_backward, run_forward
from ifguide_patch.scoring.replica import Replica
from ifguide_patch.training.loss import token_losses


class ParallelModel:
    """This process's part of the model.

    Holds, once it moves, a copy of the tracked weights and the direction: 3 S in all, S the part's fp32 weights.

    Args:
        engine: DeepSpeed's, from ``setup_model_and_optimizer``.
        micro_tokens: tokens of a micro-batch.
    """

    def __init__(
        self, engine: Any, neox_args: Any, replica: Replica, architecture: Architecture, family: Family,
        micro_tokens: int,
    ):  # fmt: skip
        self._engine, self._neox_args, self._replica = engine, neox_args, replica
        self._architecture, self._family = architecture, family
        self._micro_tokens = micro_tokens
        self.device = next(engine.module.parameters()).device
        engine.module.eval()
        self._tracked = self._find()
        self._start: dict[int, dict[str, Tensor]] = {}
        self._direction: dict[int, dict[str, Tensor]] = {}
        self._width = 0.0

    @property
    def layers(self) -> list[int]:
        """Pipeline layers of the blocks that this process holds."""
        return list(self._tracked)

    # ---- moving ----

    def load_direction(self, path: str, step: float) -> None:
        """Take along what this process holds of the direction in the file ``path``.

        Args:
            step: |εv| / |θ| over the tracked weights of the whole model.

        Raises:
            NumericsError: the direction is zero or not finite.
        """
        rank, ranks = self._replica.rank, self._replica.ranks
        found = read_slices(Path(path), self.layers, self._family, self._architecture, ranks, rank)
        squares = [0.0, 0.0]
        shapes = tracked_shapes(self._architecture)
        for layer, parameters in self._tracked.items():
            self._direction[layer], self._start[layer] = {}, {}
            for name, parameter in parameters.items():
                move = found[layer].pop(name).to(parameter)
                self._direction[layer][name] = move
                self._start[layer][name] = parameter.detach().clone()
                # what every rank holds a copy of counts once
                if rank == 0 or tuple(parameter.shape) != shapes[layer][name]:
                    squares[0] += float(parameter.detach().double().square().sum())
                    squares[1] += float(move.double().square().sum())
        weights, length = (math.sqrt(total) for total in self._replica.total(*squares))
        if not 0 < length < math.inf:
            raise NumericsError(
                f"the direction {path} is zero or not finite; look at its queries, or raise the damping"
            )
        self._width = step * weights / length

    @torch.no_grad()
    def _move(self, sign: int) -> None:
        """θ + sign ε v; 0 puts θ back."""
        for layer, parameters in self._tracked.items():
            for name, parameter in parameters.items():
                parameter.copy_(self._start[layer][name])
                if sign:
                    parameter.add_(self._direction[layer][name], alpha=sign * self._width)

    # ---- batches ----

    def scores(self, text: Tensor) -> Tensor:
        """(M2) of every position of ``text``[B, T + 1]: float64[B, T], right at processes of the last stage."""
        sides = []
        for sign in (1, -1):
            self._move(sign)
            sides.append(self.losses(text))
        self._move(0)
        return (sides[0] - sides[1]) / (2 * self._width)

    def losses(self, text: Tensor) -> Tensor:
        """float64[B, T] of ``text``[B, T + 1]; zeros where this process has no losses."""
        micro = micro_batches(text, self._micro_tokens)
        with token_losses() as scored, torch.no_grad():
            if self._neox_args.is_pipe_parallel:
                run_forward(self._engine, micro)
            else:
                for each in micro:
                    self._plain(each)
        if not scored.kept:
            return torch.zeros(text.shape[0], text.shape[1] - 1, dtype=torch.float64)
        return torch.cat(scored.kept)[: len(text)].to("cpu", torch.float64)

    def add_gradient(self, text: Tensor, weights: Tensor) -> None:
        """Add the gradient of Σ w l of a batch to what the parameters hold; ``weights``[B, T]."""
        micro = micro_batches(text, self._micro_tokens)
        with token_losses(shares_of(weights, micro)):
            if self._neox_args.is_pipe_parallel:
                run_backward(self._engine, micro)
            else:
                for each in micro:
                    self._plain(each).backward()

    def clear_gradients(self) -> None:
        """Forget every gradient."""
        for parameter in self._engine.module.parameters():
            parameter.grad = None

    def gradients_of(self, layer: int) -> dict[str, Tensor] | None:
        """This process's share of the gradients of pipeline layer ``layer``, on the CPU; None if it is another's."""
        if layer not in self._tracked:
            return None
        return {
            name: torch.zeros_like(parameter, device="cpu") if parameter.grad is None else parameter.grad.cpu().clone()
            for name, parameter in self._tracked[layer].items()
        }

    def _plain(self, text: Tensor) -> Tensor:
        from megatron import training

        # the module and not the engine, whose hooks would scale and reduce what is a gradient of ours
        loss, _ = training.forward_step(
            data_iterator=iter([{"text": text}]), model=self._engine.module, neox_args=self._neox_args, timers=None
        )
        return loss

    def _find(self) -> dict[int, dict[str, Tensor]]:
        """Pipeline layer -> name -> parameter, of all that is scored."""
        shapes = tracked_shapes(self._architecture)
        found: dict[int, dict[str, Tensor]] = {}
        for whole_name, parameter in self._engine.module.named_parameters():
            layer, name = layout.place_of(whole_name) or (-1, "")
            if name not in shapes.get(layer, {}):
                continue
            empty = torch.empty(shapes[layer][name], device="meta")
            expected = layout.split(name, empty, self._replica.ranks, self._architecture)[0].shape
            if parameter.shape != expected or parameter.dtype != torch.float32:
                raise AssertionError(
                    f"{whole_name} is {parameter.dtype} {tuple(parameter.shape)}, not {tuple(expected)}"
                )
            found.setdefault(layer, {})[name] = parameter
        return found


def micro_batches(text: Tensor, tokens: int) -> Sequence[Tensor]:
    """``text``[B, T + 1] as M equal parts of about ``tokens`` tokens: a pipeline's buffers have one shape. The last row
    fills the last part."""
    at_once = max(1, tokens // max(1, text.shape[1] - 1))
    size = math.ceil(len(text) / math.ceil(len(text) / at_once))
    fill = text[-1:].expand(-len(text) % size, -1)
    return torch.cat([text, fill]).split(size)


def shares_of(weights: Tensor, micro: Sequence[Tensor]) -> list[Tensor]:
    """``weights``[B, T] cut as the micro-batches ``micro`` are; rows that fill the last one count nothing."""
    fill = weights.new_zeros(sum(map(len, micro)) - len(weights), weights.shape[1])
    return list(torch.cat([weights, fill]).split(len(micro[0])))
