"""The folder ``save`` of a GPT-NeoX run, looked at by the launcher before anything starts.

The rule is `ifguide.system.run_folder`'s. NeoX stores the configuration files of a run with each of its checkpoints;
those are compared.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifguide.config.yaml_files import merge_files
from ifguide.errors import InputError
from ifguide.system.outputs import SAME
from ifguide.system.run_folder import Earlier, claim_save, latest_tag
from ifguide_patch.script import is_dry_run, is_training

OVERWRITE_VARIABLE = "IFGUIDE_OVERWRITE"


def take_save(config: Mapping[str, Any]) -> None:
    """Let a training run with the keys ``config`` have its folder; other scripts only read it. Ends the launcher, with
    exit code 0, where the folder holds this very run, finished.

    Raises:
        InputError: the folder holds another run.
    """
    if not is_training():
        return
    overwrite = os.environ.get(OVERWRITE_VARIABLE) == "1"
    state, line = claim_save(config, _earlier(config), overwrite, only_look=is_dry_run())
    if line:
        print(line, flush=True)
    if state == SAME:
        sys.exit(0)


def _earlier(config: Mapping[str, Any]) -> Earlier | None:
    if not config.get("save"):
        return None
    save = Path(str(config["save"]))
    tag = latest_tag(save)
    if tag is None:
        return None
    folder = save / tag / "configs"
    paths = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
    try:
        keys = merge_files(paths)[0] if paths else None
    except InputError:
        keys = None
    return Earlier(keys, Path.cwd(), (keys or {}).get("train_iters"))
