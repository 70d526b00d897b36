"""The frozen reference of a run: where it comes from, what it says of texts, and what is kept of it.

It is a copy of the weights at the start, a folder that the user names, or, with LoRA, the model without its adapters.
It is never part of the DeepSpeed engine, so no optimizer knows it. A copy is written to ``save/reference`` before the
first step, for a continued run no longer has the weights of the start.

Shapes: N pairs, R rows, P tokens, H width, V padded vocabulary.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from ifguide.data.text.tokenizers import Tokenizer
from ifguide.engine.checkpoint import export
from ifguide.engine.model import build_model, is_huggingface_folder, load_huggingface_weights
from ifguide.engine.pairs.reading import Pairs
from ifguide.engine.settings import TrainSettings
from ifguide.errors import InputError, tell
from ifguide.models.adapters import has_adapters, unadapted_state
from ifguide.objectives.base import Outputs, Reference
from ifguide.objectives.pairwise import outputs_of, sequence_log_probs
from ifguide.system.cache import cached_folder
from ifguide.system.files import hash_value
from ifguide.system.run_process import this_process

FOLDER = "reference"
# pairs of one forward pass; a constant, so that the numbers do not depend on the processes of the run
_GROUP = 8
_FILE = "log_probs.npy"


class Frozen:
    """`Reference` from a model that nothing trains."""

    def __init__(self, model: Any):
        self._model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def outputs(self, tokens: Tensor, layer: int | None = None) -> Outputs:
        return outputs_of(self._model, tokens, layer)

    def state(self) -> dict[str, Tensor]:
        """Its weights."""
        return self._model.state_dict()


class Unadapted:
    """`Reference` from a model with LoRA adapters: the same model with them off, and without dropout."""

    def __init__(self, model: Any):
        self._model = model

    @torch.no_grad()
    def outputs(self, tokens: Tensor, layer: int | None = None) -> Outputs:
        training = self._model.training
        self._model.eval()
        try:
            with self._model.disable_adapter():
                return outputs_of(self._model, tokens, layer)
        finally:
            self._model.train(training)

    def state(self) -> dict[str, Tensor]:
        """Its weights."""
        return unadapted_state(self._model)


def make_reference(engine: Any, settings: TrainSettings, tokenizer: Tokenizer, finished: int) -> Frozen | Unadapted:
    """The reference of a run whose engine has its weights already; every process must call this.

    Args:
        finished: iterations that a continued run has behind it.

    Raises:
        InputError: a continued run whose folder has no copy of the weights at its start.
        MismatchError: ``reference`` is of another architecture.
    """
    model = engine.module
    if has_adapters(model):
        return Unadapted(model)
    parameter = next(model.parameters())
    copy = build_model(settings, tokenizer.vocab_size, tokenizer.eod)
    named, kept = settings.keys.reference, Path(settings.load or ".") / FOLDER
    if named:
        load_huggingface_weights(copy, named, "reference:")
    elif finished:
        if not is_huggingface_folder(kept):
            raise InputError(
                f"load: {settings.load} holds no folder {FOLDER} with the weights that its run started from; name them "
                "with the key reference"
            )
        load_huggingface_weights(copy, kept, "load:")
    else:
        copy.load_state_dict(model.state_dict())
        if not settings.load and this_process().leads:
            tell(
                "train",
                "warning: the reference is a model with random weights, for nothing is loaded; what stays close to it "
                "learns nothing. Load a model, name a reference, or (repo) take repo_retain ce or none",
            )
    copy.to(device=parameter.device, dtype=parameter.dtype)
    for name, buffer in model.named_buffers():  # DeepSpeed may keep them in another precision than the parameters
        owner, _, leaf = name.rpartition(".")
        setattr(copy.get_submodule(owner), leaf, buffer.detach().clone())
    if settings.save and not named and this_process().leads:
        target = Path(settings.save) / FOLDER
        if not finished or not is_huggingface_folder(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            export(copy, tokenizer, target)
    return Frozen(copy)


def reference_log_probs(
    reference: Frozen | Unadapted, pairs: Pairs, tokenizer: Tokenizer, device: str | torch.device
) -> Tensor:
    """float64[N, 2] on the processor: what the reference gives to each pair's chosen and rejected continuation.

    Kept in a private cache by weights, tokenizer and tokens, so that a continued run, and the next one, asks the
    reference nothing. Every process must call this; each computes a share.
    """
    world, leads = this_process().world_size, this_process().leads
    values = torch.zeros(len(pairs), 2, dtype=torch.float64, device=device)
    key = {
        "weights": _hash(reference.state()) if leads else "",
        "tokenizer": tokenizer.fingerprint,
        "pairs": pairs.fingerprint,
        "group": _GROUP,
    }
    if not leads:
        if not _told(False, device):
            _compute(reference, pairs, values)
        return _summed(values, world).cpu()
    with cached_folder("references", hash_value(key)) as folder:
        file = folder / _FILE
        known = file.exists()
        _told(known, device)
        if known:
            values.copy_(torch.from_numpy(np.load(file)))
        else:
            _compute(reference, pairs, values)
        values = _summed(values, world).cpu()
        if not known:
            np.save(file, values.numpy())
    return values


def _compute(reference: Reference, pairs: Pairs, values: Tensor) -> None:
    """This process's groups of pairs into ``values``."""
    process = this_process()
    for group, first in enumerate(range(0, len(pairs), _GROUP)):
        if group % process.world_size != process.rank:
            continue
        batch = pairs.batch(range(first, min(first + _GROUP, len(pairs)))).to(values.device)
        sums = sequence_log_probs(reference.outputs(batch.tokens).logits, batch.tokens, batch.counts)
        values[batch.numbers] = torch.stack(sums.chunk(2), dim=1)


def _told(known: bool, device: str | torch.device) -> bool:
    """What the leading process knows, on every process."""
    flag = torch.tensor([float(known)], device=device)
    if this_process().world_size > 1:
        torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())


def _summed(values: Tensor, world: int) -> Tensor:
    if world > 1:
        torch.distributed.all_reduce(values)
    return values


def _hash(state: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
