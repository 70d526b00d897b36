"""Reading and writing the weights of a Hugging Face folder, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures.architecture import Architecture
from ifguide.architectures.registry import Family, huggingface_shapes
from ifguide.checkpoints.reader import load_tensors, tensors_only
from ifguide.errors import ConfigError, InputError
from ifguide.system.files import atomic_path, read_json, write_json

_SHARD_BYTES = 1_000_000_000  # what a conversion holds in memory beside one layer
_FAULTS_SHOWN = 12
_OUTPUT_MATRIX = ("lm_head.weight", "embed_out.weight")


class HuggingFaceWeights:
    """The tensors of a folder by name; a tensor is read when it is asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[str, Callable[[], Tensor]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in _weight_files(folder):
            if file.suffix == ".safetensors":
                self._add_safetensors(file)
            else:
                for name, tensor in tensors_only(file, load_tensors(file)).items():
                    self._add(name, tuple(tensor.shape), partial(_itself, tensor))
        # transformers 5 calls GPT-NeoX's output matrix lm_head in memory, and so do some folders
        if "gpt_neox.embed_in.weight" in self._shapes and "lm_head.weight" in self._shapes:
            self._add("embed_out.weight", self._shapes.pop("lm_head.weight"), self._read.pop("lm_head.weight"))

    def __getitem__(self, name: str) -> Tensor:
        return self._read[name]()

    def check_shapes(self, family: Family, architecture: Architecture) -> None:
        """Compare names and shapes with ``architecture``'s.

        Raises:
            ConfigError: the differences; a tensor too many is one too, for NeoX would compute without it.
        """
        expected = huggingface_shapes(family, architecture)
        unused = _OUTPUT_MATRIX if architecture.tied_embeddings else ()
        faults = [f"{name} is missing" for name in expected if name not in self._shapes]
        for name, shape in self._shapes.items():
            if name in expected:
                if shape != expected[name]:
                    faults.append(f"{name} has shape {shape}, config.json says {expected[name]}")
            elif not name.endswith(family.buffers) and name not in unused:
                faults.append(f"{name} {shape} is not part of a {family.model_type} model")
        if faults:
            rest = len(faults) - _FAULTS_SHOWN
            head = f"{self.folder} does not hold the model that its config.json describes:"
            raise ConfigError([head, *faults[:_FAULTS_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])

    def _add_safetensors(self, file: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            opened: Any = safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} cannot be read ({error}); is it complete?") from None
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            shape = tuple(opened.get_slice(name).get_shape())
            self._add(name, shape, partial(opened.get_tensor, name))

    def _add(self, name: str, shape: tuple[int, ...], read: Callable[[], Tensor]) -> None:
        self._shapes[name], self._read[name] = shape, read


class ShardWriter:
    """Writes safetensors files of bounded size as tensors come in, and their index."""

    def __init__(self, folder: Path, shard_bytes: int = _SHARD_BYTES):
        self._folder, self._limit = folder, shard_bytes
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._files: list[tuple[Path, list[str]]] = []
        self.total_bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Take ``tensor``, and write a file if enough has come together."""
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + size > self._limit:
            self._flush()
        # a view would keep, or write, the whole tensor that it is of
        self._pending[name] = tensor.clone(memory_format=torch.contiguous_format)
        self._pending_bytes += size
        self.total_bytes += size

    def close(self) -> None:
        """Write what is left and name the files as Hugging Face does."""
        self._flush()
        if len(self._files) == 1:
            self._files[0][0].rename(self._folder / "model.safetensors")
            return
        where: dict[str, str] = {}
        for number, (path, names) in enumerate(self._files, 1):
            final = f"model-{number:05d}-of-{len(self._files):05d}.safetensors"
            path.rename(self._folder / final)
            where |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": where}
        write_json(self._folder / "model.safetensors.index.json", index)

    def _flush(self) -> None:
        from safetensors.torch import save_file

        path = self._folder / f"part-{len(self._files):05d}.safetensors"
        with atomic_path(path) as temporary:
            save_file(self._pending, temporary, metadata={"format": "pt"})
        self._files.append((path, list(self._pending)))
        self._pending, self._pending_bytes = {}, 0


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            described = read_json(index, "weight index")
            where = described.get("weight_map") if isinstance(described, dict) else None
            if not isinstance(where, dict):
                raise InputError(f"{index} has no weight_map; it must say which file holds each tensor")
            files = sorted(set(map(str, where.values())))
            missing = [file for file in files if not (folder / file).is_file()]
            if missing:
                raise InputError(f"{folder} lacks {', '.join(missing[:3])}, which {index.name} names")
            return [folder / file for file in files]
    raise InputError(f"{folder} holds no weights (model.safetensors or pytorch_model.bin)")
