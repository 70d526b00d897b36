"""The folder that a training run saves into (``save``), under the rule of `ifguide.system.outputs`, for both engines.

A run that loads from where it saves goes on there, as GPT-NeoX does. Any other run would mix its checkpoints with those
of the folder: that is refused, unless ``--overwrite`` says that the old ones may go.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.errors import InputError, MismatchError
from ifguide.system.outputs import NEW, OPTION, REPLACED, SAME, UNFINISHED, refusal, said

_TAG = re.compile(r"^global_step(\d+)$")
# what a run leaves beside its checkpoints
_FILES = ("latest", "latest_checkpointed_iteration.txt", "run.json", "train_log.jsonl", "hf", "reference")
_PATHS = re.compile(r"^(data_path|.*_data_paths?|vocab_file|merge_file|load|reference|tensorboard_dir)$")
# of one start, not of what is trained
_OF_THE_START = {"save", "master_port", "exit_interval"}


@dataclass(frozen=True)
class Earlier:
    """The run that the folder holds.

    Attributes:
        keys: its configuration, or None where nothing says.
        folder: that its relative paths start from.
        iterations: that it was to train; None where nothing says.
        changed: what it read and is no longer what it was, one entry each.
    """

    keys: Mapping[str, Any] | None
    folder: Path
    iterations: int | None
    changed: Sequence[str] = ()


def claim_save(
    keys: Mapping[str, Any], earlier: Earlier | None, overwrite: bool, only_look: bool = False
) -> tuple[str, str]:
    """Find out what a run of the configuration ``keys`` may do with its folder ``save``.

    Args:
        earlier: what `latest_tag`'s folder says of the run in it; None where there is no checkpoint.
        only_look: say what would become of the old run, and leave it there.

    Returns:
        `NEW`, `UNFINISHED` (goes on), `SAME` (finished: there is nothing to do) or `REPLACED` (the old run has been
        removed, unless this is a look only), and a line for the user, "" for none.

    Raises:
        InputError: it may not; names what differs.
    """
    if not keys.get("save") or earlier is None:
        return NEW, ""
    save = Path(str(keys["save"]))
    tag = latest_tag(save) or "checkpoints"
    differing = differences(keys, earlier)
    loads_itself = bool(keys.get("load")) and _same_place(keys["load"], save)
    given = [name for name in ("load", "reference") if keys.get(name)]
    inside = [name for name in given if save.resolve() in Path(str(keys[name])).resolve().parents]
    if not (differing or overwrite) and _iteration(tag) == earlier.iterations:
        return SAME, f"save: {save} holds this very run, finished ({tag}); nothing to do"
    if loads_itself and not keys.get("finetune"):
        return UNFINISHED, f"continuing {save} with other settings: {'; '.join(differing)}" if differing else ""
    if loads_itself or inside:
        raise InputError(
            f"save: {save} holds what {[*inside, 'load'][0]} names, and would lose it; choose another save"
        )
    if not overwrite:
        if differing:
            raise refusal(f"save: {save}", differing)
        raise MismatchError(
            f"save: {save} holds {tag} of this very run; set load: {save} to go on there, or {OPTION} to start again"
        )
    if only_look:
        return REPLACED, f"would replace the run in {save}"
    remove_run(save)
    return REPLACED, f"replaced the run in {save}"


def differences(keys: Mapping[str, Any], earlier: Earlier) -> list[str]:
    """What differs between two configurations but for how a run is started; one entry a key."""
    if earlier.keys is None:
        return ["nothing with it says which configuration made it"]
    before = _comparable(earlier.keys, earlier.folder)
    now = _comparable(keys, Path.cwd())
    # NeoX users leave it out at first, and set it to go on: another run is one that starts from other weights
    for values, own in ((before, earlier.keys.get("save")), (now, keys.get("save"))):
        if own and values.get("load") and _same_place(values["load"], Path(str(own))):
            del values["load"]
    named = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return [f"{key} was {said(before.get(key))}, is {said(now.get(key))}" for key in named] + list(earlier.changed)


def latest_tag(save: Path) -> str | None:
    """The newest checkpoint in ``save``: by its file ``latest``, else by its number; None without one."""
    if named := named_tag(save):
        return named
    tags = [path.name for path in save.glob("global_step*") if _TAG.match(path.name)] if save.is_dir() else []
    return max(tags, key=lambda tag: _iteration(tag) or 0, default=None)


def named_tag(save: Path) -> str | None:
    """The checkpoint that the file ``latest`` in ``save`` names, which is written when all of it is there."""
    try:
        return (save / "latest").read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def remove_run(save: Path) -> None:
    """Remove checkpoints, export, log and record of the run in ``save``, and nothing else."""
    for path in [*save.glob("global_step*"), *(save / name for name in _FILES)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _comparable(keys: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The keys that decide what is trained, with absolute paths; what is not set is left out."""
    found: dict[str, Any] = {}
    for key, value in keys.items():
        if key in _OF_THE_START or value is None:
            continue
        if _PATHS.match(key):
            value = [_absolute(one, folder) for one in value] if isinstance(value, list) else _absolute(value, folder)
        found[key] = value
    return found


def _absolute(path: Any, folder: Path) -> Any:
    return os.path.abspath(folder / path) if isinstance(path, str) and path else path  # noqa: PTH100 (keeps links)


def _same_place(path: Any, save: Path) -> bool:
    return Path(str(path)).resolve() == save.resolve()


def _iteration(tag: str) -> int | None:
    match = _TAG.match(tag)
    return int(match[1]) if match else None
