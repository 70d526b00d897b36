"""What a Hugging Face model folder says about itself, read without loading the model."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ifguide.config.hints import model_hint, with_hint
from ifguide.errors import InputError
from ifguide.system.cache import file_hash
from ifguide.system.files import hash_file, hash_value, read_json
from ifguide.system.processes import usable_cores

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
# whatever turns text into ids; the last kinds are SentencePiece's and WordPiece's
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "*.model",
)  # fmt: skip
# of tokenizer_config.json, what neither changes an id nor where a text ends
_IDLE_KEYS = {"chat_template", "name_or_path", "processor_class", "special_tokens_map_file", "tokenizer_file"}
# between the parts of a `model_fingerprint`
_JOINT = "+"


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


def require_model_folder(folder: str | os.PathLike, what: str) -> None:
    """Check that ``folder`` is a local Hugging Face folder, so that no name is ever looked up on the hub.

    Raises:
        InputError: it is not; ``what`` names its role in the message.
    """
    if not Path(folder).is_dir():
        raise InputError(with_hint(f"{what} {folder} is not a folder", model_hint(folder)))
    if not (Path(folder) / "config.json").is_file():
        hint = model_hint(folder) or "give a Hugging Face folder (save_pretrained writes one)"
        raise InputError(f"{what} {folder} has no config.json; {hint}")


def weights_fingerprint(directory: Path) -> str:
    """Hash of the configuration and of every weight file: what a function of token ids is told by.

    Factors and scores are identified by it, beside the token ids of data and queries. Where text goes in or comes out,
    `model_fingerprint` is meant.

    Raises:
        InputError: the folder has no configuration or no weights.
    """
    config = read_config(directory)
    for glob in _WEIGHT_FILES:
        files = sorted(directory.glob(glob))
        if files:
            # a large model is kept in several files
            with ThreadPoolExecutor(min(len(files), usable_cores())) as threads:
                hashes = list(threads.map(file_hash, files))
            return hash_value({"config": config, "weights": hashes})
    raise InputError(f"model folder {directory} has no weights (*.safetensors)")


def model_fingerprint(directory: Path) -> str:
    """`weights_fingerprint` and, behind a "+", `tokenizer_files_fingerprint`: what a function of texts is told by.

    Raises:
        InputError: as `weights_fingerprint`.
    """
    return f"{weights_fingerprint(directory)}{_JOINT}{tokenizer_files_fingerprint(directory)}"


def tokenizer_files_fingerprint(directory: Path) -> str:
    """Hash of the tokenizer's files, and of the tokens that end a generation or are left out of it.

    JSON counts by its content, so that a file that was only written anew stays the same; of tokenizer_config.json what
    changes no id is left out.
    """
    files = {path for pattern in _TOKENIZER_FILES for path in directory.glob(pattern) if path.is_file()}
    found = {path.name: _content(path) for path in files}
    generation = directory / "generation_config.json"
    if generation.is_file():
        kept = _parsed(generation)
        said = str(kept.get("eos_token_id")) if isinstance(kept, dict) else _content(generation)
        unheard = kept.get("suppress_tokens") if isinstance(kept, dict) else None
        found[generation.name] = f"{said}, never {unheard}" if unheard else said
    return hash_value(found)


def same_fingerprint(first: str | None, second: str | None) -> bool:
    """Whether two recorded fingerprints can be of one folder.

    Records of earlier versions have no tokenizer: only what both have is compared.
    """
    if first is None or second is None:
        return first == second
    return all(one == other for one, other in zip(first.split(_JOINT), second.split(_JOINT)))


def _content(path: Path) -> str:
    value = _parsed(path) if path.suffix == ".json" else None
    if value is None:
        return hash_file(path)
    if path.name == "tokenizer_config.json" and isinstance(value, dict):
        value = {key: one for key, one in value.items() if key not in _IDLE_KEYS}
    # escapes, for a vocabulary may hold half a character
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _parsed(path: Path) -> Any:
    """None where it is no JSON: whoever loads the tokenizer says so."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
