"""megatron-core's datasets: imported without the rest of it, its samples, and its writer of token files."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError


@contextmanager
def light_megatron() -> Iterator[None]:
    """Let ``megatron.core.datasets`` be imported without ``megatron/core/__init__.py``.

    That file imports the whole of megatron-core (transformer layers, compilers: about three seconds); the
    datasets need none of it. An empty stand-in serves as the parent package meanwhile, and goes
    afterwards, so that a later ``import megatron.core`` is the real one.
    """
    if "megatron.core" in sys.modules:
        yield
        return
    root = importlib.util.find_spec("megatron")
    if root is None or not root.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'megatron'", name="megatron")
    stand_in = types.ModuleType("megatron.core")
    stand_in.__path__ = [f"{location}/core" for location in root.submodule_search_locations]
    sys.modules["megatron.core"] = stand_in
    try:
        # megatron.core.utils and parallel_state import each other; only this order works
        importlib.import_module("megatron.core.parallel_state")
        yield
    finally:
        del sys.modules["megatron.core"]


@cache
def megatron_datasets() -> types.SimpleNamespace:
    """The classes of megatron-core that packing needs, imported on first use.

    Raises:
        InputError: megatron-core comes without its compiled helpers on this platform.
    """
    with light_megatron():
        gpt = importlib.import_module("megatron.core.datasets.gpt_dataset")
        builder = importlib.import_module("megatron.core.datasets.blended_megatron_dataset_builder")
        split = importlib.import_module("megatron.core.datasets.utils").Split
        try:
            importlib.import_module("megatron.core.datasets.helpers")
        except ModuleNotFoundError as error:
            raise InputError(
                f"megatron-core has no compiled helpers for Python {sys.version_info[0]}.{sys.version_info[1]} on this "
                "platform (wheels exist for Linux); install one of its wheels, not the source"
            ) from error
    return types.SimpleNamespace(
        GPTDataset=gpt.GPTDataset,
        GPTDatasetConfig=gpt.GPTDatasetConfig,
        Builder=builder.BlendedMegatronDatasetBuilder,
        Split=split,
    )


def sample_values(dataset: Any, index: int) -> np.ndarray:
    """Values[T + 1] of sample ``index`` of a `GPTDataset`, as its low-level dataset holds them."""
    values, _ = dataset._query_document_sample_shuffle_indices(index)
    return values


def dataset_builder(path: Path, dtype: np.dtype) -> Any:
    """The writer of a token file.

    Beside `add_document` and `finalize` it has ``data_file``, the open file, ``sequence_lengths`` and
    ``document_indices``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # megatron-core tells CPU users about each GPU library they lack
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
    return IndexedDatasetBuilder(str(path), dtype=dtype.type)
