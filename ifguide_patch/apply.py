"""Applying the patch to this process, and taking it back: `registry` says what is replaced where."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from ifguide.errors import ConfigError, InputError
from ifguide_patch import checkout, cpu, registry
from ifguide_patch.journal import Journal
from ifguide_patch.keys import add_keys
from ifguide_patch.run_state import state

# names (or prefixes) of environment variables that DeepSpeed's launcher must carry to other nodes
_EXPORTED = (checkout.ENVIRONMENT, "IFGUIDE_")


def apply(path: str | os.PathLike | None = None) -> Path:
    """Patch the GPT-NeoX checkout at ``path`` (else ``$GPT_NEOX_PATH``) in this process; returns its root.

    Applying again changes nothing. Call it before anything of NeoX is imported.

    Raises:
        ConfigError: the patch cannot be trusted with this checkout or environment; every reason, one
            line each, in the words of ``python -m ifguide_patch.check``.
        InputError: no checkout there, or another one is patched already.
    """
    root = checkout.resolve(path)
    if state.journal is not None:
        if root == state.root:
            return root
        raise InputError(f"{state.root} is patched in this process already; undo() comes before {root}")
    reasons = registry.faults(root)
    if reasons:
        raise ConfigError(reasons)
    journal = Journal()
    try:
        journal.set(sys, "path", list(sys.path))
        checkout.make_importable(root)
        os.environ[checkout.ENVIRONMENT] = str(root)
        targets = registry.TARGETS
        if cpu.is_asked_for():
            cpu.use_cpu(journal)
            targets += registry.CPU_TARGETS
        add_keys(journal, importlib.import_module("megatron.neox_arguments.arguments"))
        for place in targets:
            _replace(journal, place)
        runner = importlib.import_module("deepspeed.launcher.runner")
        journal.set(runner, "EXPORT_ENVS", [*runner.EXPORT_ENVS, *_EXPORTED])
    except BaseException:
        journal.undo()
        raise
    state.journal, state.root = journal, root
    return root


def undo() -> None:
    """Put everything back as it was; does nothing if nothing is applied."""
    if state.journal is not None:
        state.journal.undo()
    state.forget()


def _replace(journal: Journal, place: registry.Place) -> None:
    owner: Any = importlib.import_module(place.module)
    *outer, name = place.name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = vars(owner)[name]
    assert place.replace is not None
    if isinstance(original, classmethod):
        inner = original.__func__
        journal.set(owner, name, classmethod(functools.wraps(inner)(place.replace(inner))))
        return
    replacement = functools.wraps(original)(place.replace(original))
    journal.set(owner, name, replacement)
    for module in map(importlib.import_module, place.bound_in):
        if getattr(module, name, None) is original:
            journal.set(module, name, replacement)
