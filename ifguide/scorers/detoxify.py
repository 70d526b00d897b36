"""Detoxify's five classifiers from their own checkpoints.

Where the package `detoxify` is installed, its own code makes model and tokenizer; without it the same is done here. In
both cases the checkpoint is read here: the package unpickles it with permission to run code. It also pads every text to
the longest, and asks the hub for a configuration even where a local one is given. A checkpoint is a plain dictionary:

  {"state_dict": weights of a transformers classifier,
   "config": {"arch": {"args": {"model_type", "model_name", "tokenizer_name", "num_classes"}},
              "dataset": {"args": {"classes": [names of the first outputs], ...}}, ...}}

Outputs beyond ``classes`` are identities that the training used (who is spoken of); they are no toxicity.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
import transformers

from ifguide.compat.detoxify import build, has_detoxify
from ifguide.errors import InputError, first_line
from ifguide.models.folder import tokenizer_files_fingerprint
from ifguide.scorers.huggingface import ClassifierScorer
from ifguide.system.files import hash_file

_RELEASES = "https://github.com/unitaryai/detoxify/releases/download"
CHECKPOINTS = {
    "original": f"{_RELEASES}/v0.1-alpha/toxic_original-c1212f89.ckpt",
    "unbiased": f"{_RELEASES}/v0.3-alpha/toxic_debiased-c7548aa0.ckpt",
    "multilingual": f"{_RELEASES}/v0.4-alpha/multilingual_debiased-0b549669.ckpt",
    "original-small": f"{_RELEASES}/v0.1.2/original-albert-0e1d6498.ckpt",
    "unbiased-small": f"{_RELEASES}/v0.1.2/unbiased-albert-c8519128.ckpt",
}
_MODEL_KEYS = {"model_type", "model_name", "tokenizer_name", "num_classes"}
# the first model's class names, in the words of the later ones
_RENAMED = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}


class DetoxifyScorer(ClassifierScorer):
    """One of Detoxify's classifiers; all its toxicity labels, each a sigmoid.

    Args:
        variant: a key of `CHECKPOINTS`.
        folder: holds one ``*.ckpt`` and the base model's ``config.json`` and tokenizer files; None fetches the
            checkpoint from Detoxify's releases (once, its hash checked) and the rest from the hub.
        device: where to run.
        batch_tokens: tokens scored at once, padding included.

    Raises:
        InputError: an unknown variant, an unusable folder or checkpoint, or no network.
    """

    def __init__(
        self,
        variant: str,
        folder: str | os.PathLike | None = None,
        *,
        device: str = "cpu",
        batch_tokens: int | None = None,
    ):
        if variant not in CHECKPOINTS:
            raise InputError(f"detoxify has no model '{variant}'; give one of {', '.join(CHECKPOINTS)}")
        path = _checkpoint_in(Path(folder)) if folder is not None else None
        where = str(path or CHECKPOINTS[variant])
        checkpoint = _read(path) if path else _fetch(variant)
        arch, classes = _contents(checkpoint, where)
        base = os.fspath(folder or arch["model_type"])
        model, tokenizer = _build(arch, base, checkpoint["state_dict"], where, local=folder is not None)
        super().__init__(
            model,
            tokenizer,
            {_RENAMED.get(name, name): column for column, name in enumerate(classes)},
            sigmoid=True,
            name=f"detoxify:{variant}" + (f"@{folder}" if folder else ""),
            device=device,
            batch_tokens=batch_tokens,
        )
        self._fingerprint = CHECKPOINTS[variant].rpartition("/")[2]
        if path:
            self._fingerprint = f"{hash_file(path)}+{tokenizer_files_fingerprint(path.parent)}"

    def fingerprint(self) -> str | None:
        return self._fingerprint


def _checkpoint_in(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"detoxify folder {folder} is not a folder")
    found = sorted(folder.glob("*.ckpt"))
    if len(found) != 1:
        raise InputError(f"detoxify folder {folder} has {len(found)} files *.ckpt; put one checkpoint there")
    if not (folder / "config.json").is_file():
        raise InputError(
            f"detoxify folder {folder} has no config.json; put the base model's config.json and tokenizer files there"
        )
    return found[0]


def _read(path: Path) -> Any:
    try:
        # weights_only: a checkpoint from anywhere must not be able to run code
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"detoxify checkpoint {path} cannot be read: {first_line(error)}") from error


def _fetch(variant: str) -> Any:
    url = CHECKPOINTS[variant]
    try:
        # the name holds the start of the file's hash, which is compared after the transfer
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"detoxify checkpoint {url} cannot be fetched: {first_line(error)}; "
            f"without a network give detoxify:{variant}@FOLDER"
        ) from error


def _contents(checkpoint: Any, where: str) -> tuple[dict[str, Any], list[str]]:
    """(how model and tokenizer are made, names of the first outputs).

    Raises:
        InputError: a checkpoint of another layout.
    """
    try:
        arch = checkpoint["config"]["arch"]["args"]
        classes = list(checkpoint["config"]["dataset"]["args"]["classes"])
        complete = (
            arch.keys() >= _MODEL_KEYS and "state_dict" in checkpoint and 1 <= len(classes) <= arch["num_classes"]
        )
    except (KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise InputError(
            f"detoxify checkpoint {where} is not one of Detoxify's: expected a state_dict and the config of its "
            "training (a training checkpoint has to go through Detoxify's convert_weights.py first)"
        )
    return arch, classes


def _build(
    arch: dict[str, Any], base: str, state: dict[str, torch.Tensor], where: str, *, local: bool
) -> tuple[Any, Any]:
    """The classifier with the checkpoint's weights, and its tokenizer.

    Args:
        arch, state: of the checkpoint.
        base: folder, or name on the hub, of the base model's configuration and tokenizer.
        where: names the checkpoint in messages.
        local: look nothing up on the hub.

    Raises:
        InputError: classes that transformers does not have, or weights that do not fit the configuration.
    """
    name, tokenizer_name = arch["model_name"], arch["tokenizer_name"]
    model_class = getattr(transformers, name, None) if name.endswith("ForSequenceClassification") else None
    if model_class is None:
        raise InputError(f"detoxify checkpoint {where}: {name} is no sequence classifier of transformers")
    if not tokenizer_name.removesuffix("Fast").endswith("Tokenizer") or not hasattr(transformers, tokenizer_name):
        raise InputError(f"detoxify checkpoint {where}: {tokenizer_name} is no tokenizer of transformers")
    try:
        config = model_class.config_class.from_pretrained(
            base, num_labels=arch["num_classes"], local_files_only=local
        )  # fmt: skip
        with torch.device("meta"):
            wanted = model_class(config).state_dict()
        # older versions of transformers saved the numbers 0, 1, 2, ... of the positions too
        weights = {key: value for key, value in state.items() if key in wanted or not key.endswith("position_ids")}
        # the package leaves weights that are not there at random
        _require_fit(weights, wanted, where)
        if has_detoxify():
            return build(arch, base, weights)
        tokenizer = transformers.AutoTokenizer.from_pretrained(base, local_files_only=local)
        model = model_class(config)
        model.load_state_dict(weights)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"detoxify checkpoint {where} with the configuration of {base}: {_detail(error)}") from error
    return model, tokenizer


def _require_fit(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], where: str) -> None:
    """
    Raises:
        InputError: weights that the model lacks or has besides, or of another shape.
    """
    for keys, what in (
        (wanted.keys() - state.keys(), "lacks"),
        (state.keys() - wanted.keys(), "has besides the model's"),
    ):
        if keys:
            raise InputError(f"detoxify checkpoint {where} {what} the weights {', '.join(sorted(keys)[:3])}")
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise InputError(
                f"detoxify checkpoint {where}: size mismatch for {key}, {list(state[key].shape)} instead of the "
                f"{list(value.shape)} of its configuration"
            )


def _detail(error: Exception) -> str:
    """What does not fit, on one line: torch lists the tensors below a heading."""
    return " ".join(str(error).split())[:300]
