"""DeepSpeed's launcher, started without a second Python, and what it would compile for nothing."""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections.abc import Sequence


def run_processes(processes: int, port: int, script: str, arguments: Sequence[str], module: bool = False) -> int:
    """Run ``script`` (the name of a module, with ``module``) in this many processes of this machine and wait for them;
    returns the exit code.

    `deepspeed.launcher.runner` would, for one machine, do no more than start a second Python with
    `deepspeed.launcher.launch`, which imports torch again; so that one is called here.
    """
    from deepspeed.launcher import launch

    world = base64.urlsafe_b64encode(json.dumps({"localhost": list(range(processes))}).encode()).decode()
    saved = sys.argv, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    sys.argv = [
        "deepspeed",
        f"--world_info={world}",
        "--master_addr=127.0.0.1",
        f"--master_port={port}",
        "--log_level=critical",
        *(["--module"] if module else []),
        script,
        *arguments,
    ]
    try:
        launch.main()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
    finally:
        sys.argv = saved[0]
        signal.signal(signal.SIGINT, saved[1])
        signal.signal(signal.SIGTERM, saved[2])
    return 0


def spare_compilation() -> None:
    """Switch off an allreduce through shared memory that DeepSpeed would compile, for a minute; gloo has one."""
    import deepspeed

    compatible = getattr(deepspeed.ops, "__compatible_ops__", None)
    if compatible is not None:
        compatible["deepspeed_shm_comm"] = False
