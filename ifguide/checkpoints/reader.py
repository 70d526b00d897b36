"""Reading a NeoX checkpoint, layer files or sequential: one layer at a time, and without running its pickles."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture
from ifguide.config.hints import checkpoint_hint, with_hint
from ifguide.errors import ConfigError, InputError

_LAYER_FILE = re.compile(r"^layer_(\d+)-model_(\d+)-model_states\.pt$")
_RANK_FILE = re.compile(r"^mp_rank_(\d+)_model_states\.pt$")
_ZERO3_FILE = "zero_pp_rank_*_model_states.pt"

# recomputed by every reader: rotary frequencies follow from rotary_pct and rotary_emb_base
_IGNORED_SUFFIX = "rotary_emb.inv_freq"
_FAULTS_SHOWN = 12

Shards = list[dict[str, Tensor]]


class NeoxCheckpoint:
    """One saved iteration. Tensors are memory-mapped: opening and comparing shapes reads no weights.

    Attributes:
        folder: the ``global_stepN`` folder.
        ranks: T, tensor-parallel ranks that wrote it.
        sequential: one state a rank (pipe_parallel_size 0) rather than one file a layer.
        layers: pipeline layers that have parameters, ascending.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        files = {(int(m[1]), int(m[2])) for path in folder.iterdir() if (m := _LAYER_FILE.match(path.name))}
        self.sequential = not files
        self._states: list[dict[int, dict[str, Tensor]]] = []
        if self.sequential:
            self._states = _sequential_states(folder)
            self.ranks = len(self._states)
            self.layers = sorted({layer for state in self._states for layer in state})
        else:
            self.ranks = 1 + max(rank for _, rank in files)
            self.layers = sorted({layer for layer, _ in files})
            missing = [
                layout.layer_file(layer, rank)
                for layer in self.layers
                for rank in range(self.ranks)
                if (layer, rank) not in files
            ]
            if missing:
                raise InputError(f"{folder} lacks {_listed(missing)}; copy the whole checkpoint")

    @classmethod
    def open(cls, path: str | Path) -> NeoxCheckpoint:
        """The checkpoint at ``path``: a ``global_stepN`` folder, or a NeoX save folder whose ``latest`` names one.

        Raises:
            InputError: there is none, or it is incomplete or unreadable.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist or is not a folder")
        if (folder / "latest").is_file():
            tag = (folder / "latest").read_text(encoding="utf-8").strip()
            if not (folder / tag).is_dir():
                raise InputError(f"{folder / 'latest'} names {tag}, which does not exist in {folder}")
            folder = folder / tag
        return cls(folder)

    @property
    def config_files(self) -> list[Path]:
        """The YAML files that NeoX stored with the checkpoint; [] if it stored none."""
        return sorted(path for path in (self.folder / "configs").glob("*") if path.is_file())

    def shards(self, layer: int) -> Shards:
        """Name -> tensor for each rank of pipeline layer ``layer``, by today's names.

        Raises:
            InputError: a file cannot be read.
        """
        return [self.shard(layer, rank) for rank in range(self.ranks)]

    def shard(self, layer: int, rank: int) -> dict[str, Tensor]:
        """Name -> tensor for ``rank`` of pipeline layer ``layer``, by today's names.

        Raises:
            InputError: its file cannot be read.
        """
        if self.sequential:
            return self._states[rank].get(layer, {})
        path = self.folder / layout.layer_file(layer, rank)
        return _todays_names(tensors_only(path, load_tensors(path)))

    def merged(self, layer: int, architecture: Architecture) -> dict[str, Tensor]:
        """Name -> whole tensor of pipeline layer ``layer``."""
        shards = self.shards(layer)
        return {name: layout.merge(name, [shard[name] for shard in shards], architecture) for name in shards[0]}

    def sizes(self) -> tuple[int, int]:
        """(M, V): width of the first block's MLP and rows of the embedding; 0 where the weights have none."""
        widths = [shard["mlp.linear2.weight"].shape[1] for shard in self._having("mlp.linear2.weight")]
        rows = [shard["word_embeddings.weight"].shape[0] for shard in self._having("word_embeddings.weight")]
        return sum(widths), sum(rows)

    def check_shapes(self, architecture: Architecture) -> None:
        """Compare every tensor's name and shape with what ``architecture`` has.

        Raises:
            ConfigError: the differences, each with both sides.
        """
        expected = layout.parameters(architecture)
        faults = [f"pipeline layer {layer}: unexpected" for layer in self.layers if layer not in expected]
        for layer, shapes in expected.items():
            if layer not in self.layers:
                faults.append(f"pipeline layer {layer}: missing")
                continue
            one_rank = {
                name: tuple(layout.split(name, torch.empty(shape, device="meta"), self.ranks, architecture)[0].shape)
                for name, shape in shapes.items()
            }
            for rank, shard in enumerate(self.shards(layer)):
                faults += _differences(f"pipeline layer {layer}, rank {rank}", shard, one_rank)
        if faults:
            head = f"{self.folder} does not hold the model that its configuration describes:"
            rest = len(faults) - _FAULTS_SHOWN
            raise ConfigError([head, *faults[:_FAULTS_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])

    def _having(self, name: str) -> Shards:
        layer = layout.EMBEDDING if name.startswith("word_embeddings") else layout.block_layer(0)
        return [shard for shard in self.shards(layer) if name in shard] if layer in self.layers else []


def load_tensors(path: Path, stand_ins: Sequence[tuple[Any, str]] = ()) -> dict[str, Any]:
    """Load a ``.pt`` file, memory-mapped where its format allows, with the pickle restricted to data.

    NeoX's rank files hold numpy's random state beside the weights, so the four names that a plain array is rebuilt
    from are allowed too; anything else that a pickle could call is refused.

    Args:
        stand_ins: what is taken for a further name, in its place.

    Raises:
        InputError: truncated, not such a file, or it needs code to be read.
    """
    rebuild = np.zeros(0).__reduce__()[0]
    # a checkpoint names numpy's function by where the numpy that wrote it kept it
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    allowed: list[Any] = [(rebuild, f"{module}._reconstruct") for module in modules]
    allowed += [np.ndarray, np.dtype, type(np.dtype(np.uint32)), *stand_ins]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds {named[1]}, which is more than tensors and numbers" if named else "is not a PyTorch file"
        raise InputError(f"{path} {what}; only plain weights are read, for a pickle can run any code") from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} cannot be read ({reason}); is it complete?") from None


def tensors_only(path: Path, state: Any) -> Mapping[str, Tensor]:
    """``state`` if it is nothing but named tensors.

    Raises:
        InputError: it holds something else (says what).
    """
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds {type(state).__name__}, not named tensors")
    other = next((name for name, value in state.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise InputError(f"{path}: {other} is {type(state[other]).__name__}, not a tensor")
    return state


def _sequential_states(folder: Path) -> list[dict[int, dict[str, Tensor]]]:
    """Each rank's parameters by pipeline layer."""
    ranks = sorted(int(m[1]) for path in folder.iterdir() if (m := _RANK_FILE.match(path.name)))
    if not ranks:
        hint = ": ZeRO stage 3 spread its weights over the data-parallel ranks" if any(folder.glob(_ZERO3_FILE)) else ""
        fault = f"{folder} holds no checkpoint that can be read (no layer_* and no mp_rank_* files){hint}"
        raise InputError(with_hint(fault, checkpoint_hint(folder)))
    if ranks != list(range(len(ranks))):
        missing = [layout.rank_file(rank) for rank in range(max(ranks)) if rank not in ranks]
        raise InputError(f"{folder} lacks {_listed(missing)}; copy the whole checkpoint")
    return [_by_layer(folder / layout.rank_file(rank)) for rank in ranks]


def _by_layer(path: Path) -> dict[int, dict[str, Tensor]]:
    state = load_tensors(path)
    module = state.get("module") if isinstance(state, Mapping) else None
    if not isinstance(module, Mapping):
        raise InputError(f"{path} holds no weights: its pipeline layers' files (layer_*-model_states.pt) are missing")
    layers: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors_only(path, module).items():
        place = layout.place_of(key)
        if place is None or not key.startswith("sequential."):
            raise InputError(f"{path}: parameter {key} is not one of a NeoX model (sequential.N.NAME)")
        layer, name = place
        layers.setdefault(layer, {})[name] = tensor
    return {layer: _todays_names(state) for layer, state in layers.items()}


def _todays_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters as NeoX names them now (`layout.todays_name`); earlier revisions also kept the gate (w1) and the up
    projection (w3) of a gated MLP apart."""
    found = {layout.todays_name(name): tensor for name, tensor in state.items() if not name.endswith(_IGNORED_SUFFIX)}
    for kind in ("weight", "bias"):
        if f"mlp.w1.{kind}" in found and f"mlp.w3.{kind}" in found:
            gate, up = found.pop(f"mlp.w1.{kind}"), found.pop(f"mlp.w3.{kind}")
            found[f"mlp.linear1.{kind}"] = torch.cat([up, gate])
    return found


def _differences(where: str, found: Mapping[str, Tensor], expected: layout.Shapes) -> list[str]:
    faults = [f"{where}: {name} is missing" for name in expected if name not in found]
    for name, tensor in found.items():
        shape = tuple(tensor.shape)
        if name not in expected:
            faults.append(f"{where}: {name} {shape} is not part of this architecture")
        elif shape != expected[name]:
            faults.append(f"{where}: {name} has shape {shape}, the configuration says {expected[name]}")
    return faults


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
