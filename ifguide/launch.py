"""``deepy.py``: check the configuration, then start the workers with DeepSpeed's launcher.

``python -m ifguide.launch`` is the same where there is no checkout of this repository.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ifguide.compat.deepspeed import run_processes
from ifguide.config.yaml_files import config_paths
from ifguide.engine import worker
from ifguide.engine.earlier_run import earlier_run
from ifguide.engine.settings import TrainSettings, load_config
from ifguide.errors import InputError, tell
from ifguide.requirements.needs import TRAINING, ready
from ifguide.system.outputs import SAME, add_overwrite
from ifguide.system.processes import free_port, share_cores
from ifguide.system.run_folder import claim_save

_TRAINER = "train.py"
_PACKAGE = Path(__file__).resolve().parent
# NVIDIA, AMD, NVIDIA under WSL: cheaper than importing torch to ask
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_EXAMPLE = """examples:
  python deepy.py train.py -d configs quickstart/model.yml quickstart/data.yml
  python deepy.py train.py -d configs models/pythia-160m.yml my-data.yml ifguide/penalty.yml --neox ~/gpt-neox"""


def main(argv: Sequence[str] | None = None) -> int:
    """Launch one training run; returns the exit code (0 done, 2 bad configuration, else a worker's)."""
    started = time.time()
    command = list(sys.argv if argv is None else ["deepy.py", *argv])
    engine, rest = _engine_parser().parse_known_args(command[1:])
    named = engine.neox or os.environ.get("GPT_NEOX_PATH")
    if engine.engine == "neox" or (engine.engine == "auto" and named):
        from ifguide_patch.launch import main as launch_neox

        return launch_neox(engine.neox, rest, engine.device, engine.overwrite, engine.dry_run)
    if engine.neox:
        tell("deepy.py", "--neox names a checkout for another engine than --engine embedded")
        return 2
    if engine.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    arguments = _parse(rest)
    if not ready(TRAINING, "deepy.py"):
        return 2
    try:
        settings = load_config(config_paths(arguments.conf_file, arguments.conf_dir))
        state, line = claim_save(
            asdict(settings.keys), earlier_run(settings.save), engine.overwrite, only_look=engine.dry_run
        )
        if line:
            print(line, flush=True)
        if state == SAME:
            return 0
        if engine.dry_run:
            return _dry_run(settings)
    except InputError as error:
        tell("deepy.py", error)
        return 2
    print(f"engine: embedded ({settings.world_size} process{'es' if settings.world_size > 1 else ''})", flush=True)
    return launch(settings, arguments.user_script, worker.encode_arguments(settings, command, started))


def installed() -> int:
    """``ifguide-train``: `main` where there is no checkout of this repository; ``train.py`` may be left out."""
    words = sys.argv[1:]
    named = any(word.endswith(".py") for word in words) or words[:1] in ([], ["-h"], ["--help"])
    return main([*([] if named else [_TRAINER]), *words])


def _dry_run(settings: TrainSettings) -> int:
    """All checks of a run; nothing is started, and nothing in its folder changes.

    Raises:
        InputError: something that the run would stop at.
    """
    for line in worker.dry_run(settings):
        print(line)
    print("dry run: everything was checked, nothing was started")
    return 0


def _engine_parser() -> argparse.ArgumentParser:
    """The options that say which engine runs; the rest of the command line is that engine's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--engine",
        choices=("neox", "embedded", "auto"),
        default="auto",
        help="which trainer runs; auto (the default): neox where a checkout is named, else embedded",
    )
    parser.add_argument("--neox", metavar="PATH", help="GPT-NeoX checkout to run (default: $GPT_NEOX_PATH)")
    parser.add_argument(
        "--device",
        choices=("cpu",),
        help="cpu: run GPT-NeoX without CUDA (gloo, num_gpus processes), as a smoke test of a configuration",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and start nothing")
    add_overwrite(parser)
    return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="deepy.py",
        description="Train a model, as GPT-NeoX's deepy.py does; its other options pass through to it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[_engine_parser()],
    )
    parser.add_argument("user_script", help="script that every process runs: train.py, found from any folder")
    parser.add_argument("conf_file", nargs="+", help="YAML files, merged; `.yml` may be left out")
    parser.add_argument(
        "-d", "--conf_dir", help="folder that the configuration files are in; one that is not is looked for here"
    )
    arguments = parser.parse_args(argv)
    if arguments.user_script == "score.py":
        parser.error("score.py runs inside GPT-NeoX: name its checkout by --neox; without one there is ifguide score")
    if arguments.user_script != _TRAINER and not Path(arguments.user_script).is_file():
        parser.error(f"{arguments.user_script} does not exist; the script is {_TRAINER}")
    return arguments


def launch(settings: TrainSettings, script: str, worker_argument: str) -> int:
    """Run ``script`` in ``settings.world_size`` processes under DeepSpeed's launcher and wait for them.

    ``train.py`` is a file of the current folder or of the checkout; an installed package has the module alone.
    """
    _set_environment(settings.world_size)
    beside = _PACKAGE.with_name(_TRAINER)
    if not Path(script).is_file() and beside.is_file() and beside.with_name("deepy.py").is_file():
        script = str(beside)
    module = not Path(script).is_file()
    return run_processes(
        settings.world_size,
        settings.master_port or free_port(),
        worker.__name__ if module else script,
        [worker_argument],
        module,
    )


def _set_environment(world_size: int) -> None:
    """What the workers inherit. Set before deepspeed is imported, and never against the user's own choice."""
    if not any(Path(device).exists() for device in _GPU_DEVICES):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    share_cores(world_size)
    # a run never talks to the hub: models and tokenizers are local files
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    sys.exit(main())
