"""Checkpoints of a run: DeepSpeed's, to continue exactly, and a Hugging Face export of the weights.

``save/global_stepN/`` holds the former, ``save/latest`` the name of the newest, ``save/hf/`` the latter.
Beside them a checkpoint holds what an objective trains itself. Nothing else has to be stored to continue: the data
position, the learning rate and the dropout seeds are functions of the iteration.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch.distributed

from ifguide.config.hints import model_hint, with_hint
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.engine.model import is_huggingface_folder
from ifguide.errors import InputError, MismatchError, OutOfSpaceError
from ifguide.models.adapters import has_adapters, merged
from ifguide.objectives.base import Objective
from ifguide.objectives.keys import LM
from ifguide.system.run_folder import named_tag
from ifguide.system.run_process import this_process

_TAG = re.compile(r"^global_step(\d+)$")
_FULL_BYTES = 1 << 20
# what fixes the order of samples: continuing with another value would repeat some and skip others
_ORDER_KEYS = ("seed", "seq_length", "train_batch_size", "train_samples")


def save_checkpoint(
    engine: Any,
    tokenizer: Tokenizer,
    save: str,
    iteration: int,
    order: dict[str, int],
    keep_last: int,
    objective: Objective,
) -> None:
    """Write the checkpoint of ``iteration`` and replace the export; every process must call this.

    Args:
        save: the folder of the run.
        order: what fixes the order of samples, to be compared with on continuing.
        keep_last: checkpoints to keep, older ones are deleted; 0 keeps all.
        objective: what is trained; its state goes into the checkpoint.

    Raises:
        OutOfSpaceError: the disk is full; what was written of this checkpoint is removed, and `latest` still names the
            one before.
    """
    folder, tag = Path(save), f"global_step{iteration}"
    own = {"name": objective.name, "state": objective.state()}
    state = {"iteration": iteration, "order": order, "objective": own}
    try:
        engine.save_checkpoint(save, tag=tag, client_state=state)
        if this_process().leads:
            export(engine.module, tokenizer, folder / "hf")
    except Exception as error:  # torch and safetensors report a full disk by errors of their own
        if shutil.disk_usage(folder).free > _FULL_BYTES:
            raise
        if named_tag(folder) != tag:
            shutil.rmtree(folder / tag, ignore_errors=True)
        raise OutOfSpaceError(
            f"no space left on the disk of {folder}: the checkpoint of iteration {iteration} was not written; "
            "free some room and start again with load"
        ) from error
    if this_process().leads and keep_last:
        _delete_old(folder, keep_last)
    torch.distributed.barrier()


def load_checkpoint(
    engine: Any, folder: Path, finetune: bool, order: dict[str, int], objective: str
) -> tuple[int, list[str], dict[str, Any]]:
    """Continue the newest checkpoint in ``folder``; with ``finetune`` take its weights alone.

    Args:
        objective: its name.

    Returns:
        The finished iterations (0 for a fresh start or a fine-tuning), notes for the user, and what the objective
        saved.

    Raises:
        InputError: nothing to load where something must be, or it cannot be read.
        MismatchError: the checkpoint is of another architecture, or of a run with another objective.
    """
    tag = named_tag(folder)
    if tag is None:
        if finetune:
            fault = f"load: {folder} holds neither a checkpoint (no file latest) nor a Hugging Face model"
            raise InputError(with_hint(fault, model_hint(folder)))
        return 0, [f"no checkpoint in {folder} yet: starting at iteration 0"], {}
    try:
        path, state = engine.load_checkpoint(
            str(folder),
            tag=tag,
            load_optimizer_states=not finetune,
            load_lr_scheduler_states=False,
            load_module_only=finetune,
        )
    except RuntimeError as error:
        fault = str(error).splitlines()[-1].strip()
        raise MismatchError(f"load: {folder / tag} does not fit the configured model: {fault}") from None
    if path is None:
        raise InputError(f"load: {folder / tag} cannot be read; {folder / 'latest'} names it")
    if finetune:
        return 0, [f"weights of {folder / tag}, starting at iteration 0"], {}
    trained = state.get("objective", {"name": LM, "state": {}})
    if trained["name"] != objective:
        raise MismatchError(
            f"load: {folder / tag} is of a run with objective {trained['name']}, not {objective}; set finetune: true "
            "to start from its weights"
        )
    notes = [f"continuing {folder / tag}"]
    before = state.get("order", {})
    notes += [
        f"{key} was {before[key]} and is {order[key]}: the order of samples differs from before"
        for key in _ORDER_KEYS
        if before.get(key) != order[key]
    ]
    return int(state["iteration"]), notes, trained["state"]


def loads_huggingface(load: str | None, finetune: bool) -> bool:
    """Whether ``load`` is a Hugging Face folder to fine-tune from.

    Raises:
        InputError: it is one, but fine-tuning was not asked for.
    """
    if not load or named_tag(Path(load)) or not is_huggingface_folder(load):
        return False
    if not finetune:
        raise InputError(f"load: {load} is a Hugging Face model: it can be fine-tuned (finetune: true), not continued")
    return True


def export(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``model`` (in the precision it trains in) and ``tokenizer`` as a Hugging Face folder, adapters merged.

    Readers see the old folder or the new one, whole.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (merged(model) if has_adapters(model) else model).save_pretrained(temporary)
        try:
            tokenizer.save_pretrained(temporary)
        except InputError as error:  # a SentencePiece model has no such form
            (temporary / "TOKENIZER_MISSING.txt").write_text(f"{error}\n", encoding="utf-8")
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    previous = temporary.with_name(temporary.name + ".old")
    if folder.exists():
        folder.rename(previous)
    temporary.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _delete_old(folder: Path, keep: int) -> None:
    steps = sorted(int(match[1]) for entry in folder.iterdir() if (match := _TAG.match(entry.name)))
    for step in steps[:-keep]:
        shutil.rmtree(folder / f"global_step{step}", ignore_errors=True)
