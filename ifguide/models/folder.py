"""What a Hugging Face model folder says about itself, read without loading the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.system.files import hash_file, hash_value, read_json
from ifguide.system.hints import model_hint

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def read_config(directory: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: there is no ``config.json``, or it is not a JSON object.
    """
    path = directory / "config.json"
    if not path.is_file():
        hint = model_hint(directory) or "expected a Hugging Face folder"
        raise InputError(f"model folder {directory} has no config.json; {hint}")
    config = read_json(path, "model configuration")
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a JSON object; expected a Hugging Face folder")
    return config


def model_identity(directory: Path) -> str:
    """Hash of the configuration and of every weight file.

    Raises:
        InputError: the folder has no configuration or no weights.
    """
    config = read_config(directory)
    for glob in _WEIGHT_FILES:
        files = sorted(directory.glob(glob))
        if files:
            return hash_value({"config": config, "weights": [hash_file(path) for path in files]})
    raise InputError(f"model folder {directory} has no weights (*.safetensors)")
