"""The package `detoxify`: its own code makes model and tokenizer, of a checkpoint that it has not read itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from ifguide.system.quiet import no_loading_bar


def has_detoxify() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("detoxify") is not None


def build(arch: Mapping[str, Any], base: str, state: Mapping[str, Any]) -> tuple[Any, Any]:
    """The package's model and tokenizer.

    Args:
        arch: ``model_name``, ``tokenizer_name`` and ``num_classes`` of the checkpoint.
        base: folder with the base model's configuration and tokenizer, or its name on the hub.
        state: the checkpoint's weights.
    """
    from detoxify import detoxify as package

    # a folder as model_type: with huggingface_config_path the package forgets the number of classes
    with no_loading_bar():
        return package.get_model_and_tokenizer(
            model_type=base,
            model_name=arch["model_name"],
            tokenizer_name=arch["tokenizer_name"],
            num_classes=arch["num_classes"],
            state_dict=dict(state),
        )
