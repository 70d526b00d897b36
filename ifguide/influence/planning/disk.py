"""Sizes of all files of a run, to the byte where the format fixes them.

Shapes: K directions, O outputs and I inputs of a tracked layer, N_docs documents, N_tokens tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ifguide.data.index_file import HEADER
from ifguide.data.indexed import TokenDataset
from ifguide.influence.planning.shape import Shape


@dataclass(frozen=True)
class File:
    """Bytes on disk.

    Attributes:
        temporary: gone at the end of the job.
        elsewhere: in the system's folder for temporary files.
    """

    name: str
    bytes: int
    temporary: bool = False
    elsewhere: bool = False


def safetensors_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32") -> int:
    """Size of a safetensors file of these tensors: 8 bytes, a JSON header padded to a multiple of 8, the values."""
    width = {"F32": 4, "F64": 8, "BF16": 2}[dtype]
    header: dict[str, object] = {}
    offset = 0
    for name in sorted(shapes):
        end = offset + width * prod(shapes[name])
        header[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-text // 8) * 8 + offset


def factor_shapes(shape: Shape, strategy: str) -> dict[str, tuple[int, ...]]:
    """Tensors of ``factors.safetensors``."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in shape.tracked.items():
        if strategy in ("ekfac", "kfac"):
            found[f"{name}/U_A"] = (inputs, inputs)
            found[f"{name}/U_G"] = (outputs, outputs)
        if strategy != "identity":
            found[f"{name}/Lambda"] = (outputs, inputs)
    return found


def aligned_bytes(dataset: TokenDataset, width: int) -> int:
    """``.bin`` and ``.idx`` of an aligned dataset with ``width`` bytes per token."""
    return width * dataset.num_tokens + HEADER.size + 12 * dataset.num_documents + 8 * len(dataset.doc_idx)


def fit_files(shape: Shape, strategy: str) -> list[File]:
    """What fit-factors writes."""
    files = [File("factors.safetensors", safetensors_bytes(factor_shapes(shape, strategy)))]
    if strategy in ("ekfac", "kfac"):
        files.append(File("covariances and bases", 8 * shape.squares, temporary=True, elsewhere=True))
    if strategy in ("ekfac", "diagonal"):
        files.append(File("second moments", 4 * shape.matrices, temporary=True, elsewhere=True))
    return files


def score_files(shape: Shape, dataset: TokenDataset, directions: int, rank: int | None = None) -> list[File]:
    """What score writes."""
    cut = File(f"direction.rank-{rank}.safetensors", directions * safetensors_bytes(_cut_shapes(shape, rank or 0)))
    return [
        File("direction.safetensors", directions * safetensors_bytes(dict(shape.tracked))),
        *([] if rank is None else [cut]),
        File("shards", directions * 4 * dataset.num_tokens, temporary=True),
        File("scores (.bin, .idx)", directions * aligned_bytes(dataset, 4)),
    ]


def _cut_shapes(shape: Shape, rank: int) -> dict[str, tuple[int, ...]]:
    """Both sides of each layer's direction, cut to ``rank`` or to its own where that is lower."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in shape.tracked.items():
        kept = min(rank, outputs, inputs)
        found |= {f"{name}/left": (outputs, kept), f"{name}/right": (inputs, kept)}
    return found


def mask_files(dataset: TokenDataset) -> list[File]:
    """What build-mask writes."""
    return [File("mask (.bin, .idx)", aligned_bytes(dataset, 1))]
