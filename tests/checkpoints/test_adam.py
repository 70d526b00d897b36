"""Adam's second moments, read from checkpoints whose every state tells which parameter it is of."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from ifguide.checkpoints.adam import SecondMoments
from ifguide.checkpoints.reader import NeoxCheckpoint
from ifguide.errors import InputError
from tests.checkpoints.tiny import checkpoint

STEP, BETA = 20, 0.95


def decays(name: str) -> bool:
    return name.endswith("weight") and "norm" not in name and not name.endswith(".bias")


def write_states(
    folder: Path, stages: list[list[int]], ranks: int, weight_decay: bool = True, where: str = "last"
) -> None:
    """An optimizer as NeoX's into the rank files of ``folder``: exp_avg_sq is the square of the parameter."""
    opened = NeoxCheckpoint.open(folder)
    for number in range(len(stages) * ranks):
        layers, rank = stages[number // ranks], number % ranks
        named = [one for layer in layers for one in opened.shards(layer)[rank].items()]
        groups = [[t for n, t in named if decays(n)], [t for n, t in named if not decays(n)]]
        groups = groups if weight_decay else [[t for _, t in named]]
        state: dict[int, dict[str, Any]] = {}
        written = []
        for group in groups:
            numbers = list(range(len(state), len(state) + len(group)))
            for place, tensor in zip(numbers, group):
                # DeepSpeed counts in a group's last state alone
                counted = STEP if where == "last" and place == numbers[-1] else 0
                state[place] = {"step": counted, "exp_avg": tensor * 0, "exp_avg_sq": tensor.float() ** 2}
            written.append({"params": numbers, "betas": [0.9, BETA], "step": STEP if where == "group" else 0})
        path = opened.folder / f"mp_rank_{number:02d}_model_states.pt"
        saved = torch.load(path, weights_only=False) if path.exists() else {"module": None}
        torch.save({**saved, "optimizer": {"state": state, "param_groups": written}}, path)


def expected(opened: NeoxCheckpoint, layer: int, rank: int) -> dict[str, torch.Tensor]:
    return {name: t.float() ** 2 / (1 - BETA**STEP) for name, t in opened.shards(layer)[rank].items()}


@pytest.mark.parametrize("where", ["last", "group"])
@pytest.mark.parametrize("weight_decay", [True, False])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("stages", [1, 2])
def test_every_parameter_gets_its_own(tmp_path: Path, stages: int, ranks: int, weight_decay: bool, where: str) -> None:
    folder, *_ = checkpoint(tmp_path, "pythia", ranks=ranks, sequential=stages == 1)
    opened = NeoxCheckpoint.open(folder)
    half = len(opened.layers) // 2
    cut = [opened.layers] if stages == 1 else [opened.layers[:half], opened.layers[half:]]
    write_states(folder, cut, ranks, weight_decay, where)
    # what was opened before is mapped to files that are no more
    opened = NeoxCheckpoint.open(folder)
    moments = SecondMoments(opened)
    assert moments.step == STEP
    for layer in opened.layers:
        for rank, found in enumerate(moments.shards(layer)):
            wanted = expected(opened, layer, rank)
            assert found.keys() == wanted.keys()
            for name, tensor in wanted.items():
                torch.testing.assert_close(found[name], tensor, msg=f"{layer} {name}")


def test_what_holds_no_states_is_refused(tmp_path: Path) -> None:
    folder, *_ = checkpoint(tmp_path, "pythia", ranks=1, sequential=True)
    with pytest.raises(InputError, match="holds no states of an optimizer"):
        SecondMoments(NeoxCheckpoint.open(folder))


def test_states_in_another_order_are_refused(tmp_path: Path) -> None:
    folder, *_ = checkpoint(tmp_path, "pythia", ranks=1, sequential=True)
    opened = NeoxCheckpoint.open(folder)
    write_states(folder, [opened.layers[::-1]], 1)
    with pytest.raises(InputError, match="do not have the shapes"):
        SecondMoments(NeoxCheckpoint.open(folder))
    write_states(folder, [opened.layers[:-1]], 1)
    with pytest.raises(InputError, match="fewer parameters than the model"):
        SecondMoments(NeoxCheckpoint.open(folder))


class Deepspeed:
    """Classes that DeepSpeed's files name, made here under its names: the library itself is not needed to read them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        places = {
            "fragment_address": "deepspeed.utils.tensor_fragment",
            "LossScaler": "deepspeed.runtime.fp16.loss_scaler",
        }
        monkeypatch.setitem(sys.modules, "deepspeed", types.ModuleType("deepspeed"))
        self.made = {}
        for name, module in places.items():
            self.made[name] = type(name, (), {"__module__": module})
            fake = types.ModuleType(module)
            setattr(fake, name, self.made[name])
            monkeypatch.setitem(sys.modules, module, fake)

    def make(self, name: str, **values: Any) -> Any:
        found = self.made[name]()
        found.__dict__.update(values)
        return found


def write_zero(
    folder: Path, ranks: int, deepspeed: Deepspeed, sequential: bool, bf16: bool = False, old_names: bool = False
) -> None:
    """ZeRO stage 1 on three data-parallel ranks: every group laid end to end, padded, and cut in three."""
    opened = NeoxCheckpoint.open(folder)
    for rank in range(ranks):
        named = {
            f"{'sequential.' if sequential else ''}{layer}.{name}": tensor
            for layer in opened.layers
            for name, tensor in opened.shards(layer)[rank].items()
        }
        groups = [{n: t for n, t in named.items() if decays(n)}, {n: t for n, t in named.items() if not decays(n)}]
        for replica in range(3):
            state, places, written = {}, [], []
            for number, group in enumerate(groups):
                flat = torch.cat([tensor.float().flatten() ** 2 for tensor in group.values()])
                share = -(-len(flat) // 3)
                begin, end = replica * share, min((replica + 1) * share, len(flat))
                padded = torch.zeros(share)
                padded[: end - begin] = flat[begin:end]
                state[number] = {"step": STEP, "exp_avg": padded * 0, "exp_avg_sq": padded}
                written.append({"params": [number], "betas": [0.9, BETA]})
                found, at = {}, 0
                for name, tensor in group.items():
                    first, last = max(at, begin), min(at + tensor.numel(), end)
                    if first < last:
                        told = _old_name(name) if old_names else name
                        found[told] = deepspeed.make("fragment_address", start=first - begin, numel=last - first)
                    at += tensor.numel()
                places.append(found)
            content = {
                "loss_scaler": deepspeed.make("LossScaler", cur_scale=1.0),
                "base_optimizer_state": {"state": state, "param_groups": written},
                "param_slice_mappings": places,
            }
            name = f"{'bf16_' if bf16 else ''}zero_pp_rank_{replica}_mp_rank_{rank:02d}_optim_states.pt"
            torch.save({"optimizer_state_dict": content}, opened.folder / name)


def _old_name(name: str) -> str:
    """As GPT-NeoX-20B's revision names it."""
    return name.replace("mlp.linear1", "mlp.dense_h_to_4h").replace("mlp.linear2", "mlp.dense_4h_to_h")


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_zero_has_cut_is_put_together(
    tmp_path: Path, ranks: int, bf16: bool, old_names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, *_ = checkpoint(tmp_path, "pythia", ranks=ranks, sequential=not bf16)
    write_zero(folder, ranks, Deepspeed(monkeypatch), not bf16, bf16, old_names)
    opened = NeoxCheckpoint.open(folder)
    moments = SecondMoments(opened)
    for layer in opened.layers:
        for rank, found in enumerate(moments.shards(layer)):
            for name, tensor in expected(opened, layer, rank).items():
                torch.testing.assert_close(found[name], tensor, msg=f"{layer} {name}")


def test_a_lost_file_of_zero_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, *_ = checkpoint(tmp_path, "pythia", ranks=1, sequential=True)
    write_zero(folder, 1, Deepspeed(monkeypatch), True)
    opened = NeoxCheckpoint.open(folder)
    (opened.folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    moments = SecondMoments(opened)
    with pytest.raises(InputError, match="holds not all of Adam's second moments"):
        for layer in opened.layers:
            moments.shards(layer)
