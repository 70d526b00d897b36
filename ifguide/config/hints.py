"""What somebody who named a path that does not exist, or is of another kind, may have meant.

Every function takes the path as it was given and returns a clause to end a message with, "did you mean ...?" and its
like, or "" where nothing better is near. Only names of files are looked at, never what is in them; standard library
only, because the base verbs and the GPT-NeoX engine say these things too.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_SUFFIXES = (".idx", ".bin", ".json")
_CHECKPOINT_FILE = re.compile(r"^(layer_\d+-model_\d+-|mp_rank_\d+_|zero_pp_rank_\d+.*_)model_states\.pt$")
_STEP_FOLDER = re.compile(r"^global_step\d+$")

HF_FILES, SPM_FILES = ("tokenizer.json",), ("tokenizer.model", "spiece.model")
GPT2_VOCABULARIES, GPT2_MERGES = ("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")

# NeoX's tokenizer -> the names that its files usually have; tokenizers that are named, not read, are left out
TOKENIZER_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "HFTokenizer": {"vocab_file": HF_FILES},
    "SPMTokenizer": {"vocab_file": SPM_FILES},
    "GPT2BPETokenizer": {"vocab_file": GPT2_VOCABULARIES, "merge_file": GPT2_MERGES},
}


def with_hint(message: str, hint: str) -> str:
    """``message``, and ``hint`` after it where there is one."""
    return f"{message}; {hint}" if hint else message


def model_hint(path: str | os.PathLike) -> str:
    """Of a path that should be a Hugging Face folder and has no ``config.json``: the export of a training run, the
    folder of a file, or the command that converts a GPT-NeoX checkpoint."""
    folder = Path(path)
    # a checkpoint of the embedded engine has its export beside it
    exports = [folder / "hf", *([folder.parent / "hf"] if _STEP_FOLDER.match(folder.name) else [])]
    for candidate in [*exports, *([folder.parent] if folder.is_file() else [])]:
        if (candidate / "config.json").is_file():
            return f"did you mean {candidate}?"
    if is_neox_checkpoint(folder):
        return f"it is a GPT-NeoX checkpoint; make a Hugging Face folder of it with: {convert_command(folder)}"
    return ""


def is_neox_checkpoint(folder: str | os.PathLike) -> bool:
    """Whether ``folder`` is a ``global_stepN`` with weights, or a save folder whose ``latest`` names one.

    A checkpoint of the embedded engine is none: it has no configurations, no layer files, and beside it an export or,
    where the first one was cut short, the record that a run writes before it trains.
    """
    step = _step_folder(Path(folder))
    try:
        files = [file.name for file in step.iterdir() if _CHECKPOINT_FILE.match(file.name)]
    except (OSError, ValueError):
        return False
    beside = (step.parent / "hf").is_dir() or (step.parent / "run.json").is_file()
    ours = beside and not (step / "configs").is_dir()
    return bool(files) and not (ours and not any(name.startswith("layer_") for name in files))


def _step_folder(folder: Path) -> Path:
    try:
        latest = (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        latest = ""
    return folder / latest if _STEP_FOLDER.match(latest) else folder


def convert_command(folder: str | os.PathLike) -> str:
    """The command that makes a Hugging Face folder of the GPT-NeoX checkpoint in ``folder``."""
    return _command("neox", "hf", folder)


def to_neox_command(folder: str | os.PathLike) -> str:
    """The command that makes a GPT-NeoX checkpoint of the Hugging Face folder ``folder``."""
    return _command("hf", "neox", folder)


def _command(source: str, target: str, folder: str | os.PathLike) -> str:
    path = os.fspath(folder).rstrip("/") or "/"
    output = f"{path}-{target}" if Path(path).name not in ("", "..") else f"converted-{target}"
    return f"ifguide convert --from {source} --to {target} --input {shlex.quote(path)} --output {shlex.quote(output)}"


def checkpoint_hint(path: str | os.PathLike) -> str:
    """Of a folder that should be a GPT-NeoX checkpoint and is not."""
    return "it is a Hugging Face folder: give --from hf --to neox" if (Path(path) / "config.json").is_file() else ""


def tokenizer_hint(path: str | os.PathLike, names: Sequence[str] = HF_FILES) -> str:
    """Of a path that should be one of a tokenizer's files, which are usually called ``names``, and is a folder."""
    folder = Path(path)
    for place in (folder, folder / "hf"):
        for name in names:
            if (place / name).is_file():
                return f"did you mean {place / name}?"
    return f"a folder is given, and none of {', '.join(names)} is in it" if folder.is_dir() else ""


def prefix_hint(prefix: str | os.PathLike) -> str:
    """Of a prefix without its .idx or .bin; never empty."""
    return near_prefix(prefix) or "a dataset is named by its prefix, the path without .idx and .bin"


def near_prefix(prefix: str | os.PathLike) -> str:
    """`prefix_hint` where a dataset is near."""
    prefix = os.fspath(prefix)
    candidates = [prefix + "_text_document"]
    candidates += [prefix.removesuffix(end) for end in _SUFFIXES if prefix.endswith(end)]
    if Path(prefix).is_dir() and len(inside := sorted(Path(prefix).glob("*.idx"))) == 1:
        candidates.append(os.fspath(inside[0].with_suffix("")))
    found = next((candidate for candidate in candidates if Path(candidate + ".idx").exists()), None)
    return f"did you mean the prefix {found}?" if found else ""


def yaml_hint(path: str | os.PathLike) -> str:
    """Of a configuration file that is not in the folder of ``-d``, or of the paths in it, but in the current one."""
    parts = Path(path).parts
    for first in range(1, len(parts)):
        here = Path(*parts[first:])
        if here.is_file():
            return f"did you mean {here} in the current folder? -d looks in its own; give {here.absolute()}"
    return ""
