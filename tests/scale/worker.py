"""Everything on the pretended GPU, in a process that then ends.

python -m tests.scale.worker EXTENSION FOLDER [PART ...]    ->    FOLDER/found.json: what `tests.scale.stage` found of
each stage, or its error; and under "checks" an error for each check of the device itself that failed
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.pretended import build

PARTS = ("model_stages", "influence_stages", PEAKS := "peak_stages")


def main(extension: str, folder: str, *parts: str) -> None:
    os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
    build.load(extension, gpus=2)
    # only now torch may come in
    import torch

    from ifguide.models import loading
    from tests.scale.device_checks import checks
    from tests.scale.stage import measure, measure_peak

    # transformers makes tensors in threads and by operators of its own, which the pretended device does not know
    loading._goes_straight_to = lambda device: False

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    faults: dict[str, str] = {}
    for check in checks():
        _guarded(check.__name__, check, faults)
    found: dict[str, Any] = {}
    for part in parts or PARTS:
        look = measure_peak if part == PEAKS else measure
        for stage in importlib.import_module(f"tests.scale.{part}").stages(Path(folder)):
            started = time.process_time()
            errors: dict[str, str] = {}
            result = _guarded(stage.name, lambda stage=stage, look=look: look(stage), errors)  # type: ignore[misc]
            found[stage.name] = result or {"error": errors[stage.name]}
            found[stage.name]["seconds"] = round(time.process_time() - started, 2)
    (Path(folder) / "found.json").write_text(json.dumps({"checks": faults, "stages": found}, indent=1))


def _guarded(name: str, work: Callable[[], Any], errors: dict[str, str]) -> Any:
    try:
        return work()
    except Exception:
        errors[name] = traceback.format_exc()
        return None


if __name__ == "__main__":
    main(*sys.argv[1:])
