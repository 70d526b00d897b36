"""Which tokens start and end a text, across NeoX's format, which has no place for them.

A Hugging Face folder names them in config.json, generation_config.json and beside its tokenizer. A checkpoint that is
made of it carries them in a file of its own, `CARRIED`, in the ``global_stepN`` folder; NeoX passes over it. Made into
a folder again, the checkpoint gives them back, and so does a run that was trained on from it, found by its key
``load``. Of any other run the separator of its documents ends a text: that is what the model has learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifguide.data.text.reader import folder_tokenizer, model_eod
from ifguide.data.text.record import config_datasets, shared_frame
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.errors import InputError
from ifguide.system.files import read_json, write_json, write_text
from ifguide.system.text_files import read_text

CARRIED = "ifguide_huggingface.json"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_WITH_MODEL = ("generation_config.json",)
_WITH_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def of_folder(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a Hugging Face folder says of the tokens around a text.

    Args:
        tokenizer: that goes with the checkpoint; what the folder says of another one is left behind.

    Raises:
        InputError: a file of the folder cannot be read.
    """
    config = read_json(folder / "config.json", "model configuration")
    ids = {key: config[key] for key in _IDS if key in config}
    if ids.get("eos_token_id") is None:
        ids["eos_token_id"] = model_eod(folder, tokenizer)
    own = folder_tokenizer(folder)
    same = own is not None and own.fingerprint == tokenizer.fingerprint
    names = [*_WITH_MODEL, *(_WITH_TOKENIZER if same else ())]
    files = {name: _read(folder / name) for name in names if (folder / name).is_file()}
    return {"tokenizer": tokenizer.fingerprint, "config": ids, "files": files}


def of_checkpoint(folder: Path, keys: Mapping[str, Any], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What config.json and the other files are to say of the tokens around a text.

    Args:
        folder: ``global_stepN``.
        keys: the run's configuration.
        tokenizer: of the run, with the separator that the user names, if any; None if none is written.

    Returns:
        As `of_folder`; without ``files`` if the checkpoint carries nothing that fits.

    Raises:
        InputError: the carried file is no such file.
    """
    separator = _separator(keys, tokenizer)
    for place, trained in ((folder, False), (_loaded_from(keys), True)):
        carried = _carried(place) if place is not None else None
        if carried is None or (tokenizer is not None and carried["tokenizer"] != tokenizer.fingerprint):
            continue
        if trained and separator is not None:
            ends = _as_list(carried["config"].get("eos_token_id"))
            if separator not in ends:
                # trained on after its base, a model ends its texts as its documents end
                carried["config"]["eos_token_id"] = [*ends, separator] if ends else separator
                for stated in carried["files"].values():
                    if isinstance(stated, dict) and "eos_token_id" in stated:
                        stated["eos_token_id"] = carried["config"]["eos_token_id"]
        return carried
    return {"config": {"bos_token_id": separator, "eos_token_id": separator}, "files": {}}


def without(special: dict[str, Any], hidden: int | None) -> dict[str, Any]:
    """`of_checkpoint`'s answer, with a generation_config.json by which ``hidden`` is never generated; the same without
    a hidden token."""
    if hidden is None:
        return special
    (name,) = _WITH_MODEL
    stated = special["files"].get(name)
    generation = dict(stated) if isinstance(stated, dict) else dict(special["config"])
    generation["suppress_tokens"] = sorted({*_as_list(generation.get("suppress_tokens")), hidden})
    return {**special, "files": {**special["files"], name: generation}}


def write_carried(folder: Path, carried: Mapping[str, Any]) -> None:
    """Put `of_folder`'s answer beside a checkpoint."""
    write_json(folder / CARRIED, carried)


def write_files(folder: Path, carried: Mapping[str, Any], with_tokenizer: bool) -> None:
    """Write the files that were carried into a Hugging Face folder, over those that a tokenizer alone makes."""
    for name, content in carried["files"].items():
        if name in _WITH_MODEL or (with_tokenizer and name in _WITH_TOKENIZER):
            if isinstance(content, str):
                write_text(folder / name, content)
            else:
                write_json(folder / name, content)


def _carried(folder: Path) -> dict[str, Any] | None:
    path = folder / CARRIED
    if not path.is_file():
        return None
    value = read_json(path, "special tokens")
    if not (isinstance(value, dict) and all(isinstance(value.get(key), dict) for key in ("config", "files"))):
        raise InputError(f"special tokens {path} is not what `ifguide convert` writes; remove it, or convert again")
    return value


def _loaded_from(keys: Mapping[str, Any]) -> Path | None:
    """The checkpoint that a run began from, if it is still there."""
    load = keys.get("load")
    if not isinstance(load, str) or not (Path(load) / "latest").is_file():
        return None
    return Path(load) / read_text(Path(load) / "latest", "checkpoint").strip()


def _separator(keys: Mapping[str, Any], tokenizer: Tokenizer | None) -> int | None:
    """The tokenizer's separator, else the one that the run's data agrees on."""
    if tokenizer is not None:
        return tokenizer.eod
    try:
        return shared_frame(config_datasets(keys))[0]
    except InputError:
        return None


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _read(path: Path) -> Any:
    return read_json(path, "model file") if path.suffix == ".json" else read_text(path, "model file")
