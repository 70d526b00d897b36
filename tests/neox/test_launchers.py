"""What reaches the workers on other nodes, through DeepSpeed's own launchers.

The commands that would start them (pdsh, mpirun, srun) are replaced by one that writes down its arguments;
the variables are then taken from those as ssh's shell, Open MPI and slurm take them.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.datasets import write_mask, write_tokens

pytest.importorskip("deepspeed")

ROOT = Path(__file__).parents[2]
LAUNCHERS = ("pdsh", "openmpi", "slurm")
RECORD = "arguments.json"

# DeepSpeed asks for these before it uses a launcher
_PROGRAMS = ("pdsh", "ompi_info", "mpirun", "sinfo", "srun")
_RECORDER = f"""#!{sys.executable}
import json, pathlib, sys
pathlib.Path(__file__).with_name({RECORD!r}).write_text(json.dumps(sys.argv))
"""

# what deepy.py does in the launcher's process, without a checkout
_LAUNCH = """
import os, sys
from deepspeed.launcher import runner
from ifguide_patch.apply import _EXPORTED
from ifguide_patch.training.dataset import verify_masks
faults = verify_masks({"data_path": "tokens", "penalty_data_path": "mask"})
assert not faults, faults
print(os.environ["IFGUIDE_VERIFIED"])
runner.EXPORT_ENVS = [*runner.EXPORT_ENVS, *_EXPORTED]
runner.main(sys.argv[1:])
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of launchers that write down their arguments."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in _PROGRAMS:
        (folder / name).write_text(_RECORDER)
        (folder / name).chmod(stat.S_IRWXU)
    return folder


@pytest.fixture
def environment(programs: Path) -> dict[str, str]:
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    slurm = {"SLURM_LOCALID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    return {**os.environ, **slurm, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("node-1 slots=1\nnode-2 slots=1\n")
    return path


def write_masked_tokens(folder: Path) -> None:
    """``tokens`` and ``mask`` below ``folder``."""
    ids = np.random.default_rng(0).integers(0, 100, (50, 20))
    write_mask(folder / "mask", write_tokens(folder / "tokens", [*ids]), ids.ravel() % 7 == 0)


def received(launcher: str, arguments: list[str]) -> dict[str, str]:
    """The variables that a worker finds, from the command line of its launcher."""
    if launcher == "openmpi":
        pairs = [following for word, following in itertools.pairwise(arguments) if word == "-x"]
        return dict(pair.split("=", 1) for pair in pairs)
    if launcher == "slurm":
        exported = next(word for word in arguments if word.startswith("--export="))
        # srun takes every comma for the end of a variable
        return dict(pair.split("=", 1) for pair in exported.split(",")[1:])
    exports = next(word for word in arguments if word.startswith("export "))
    shell = f"{exports} {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    remote = subprocess.run(["sh", "-c", shell], env={}, capture_output=True, text=True, check=True)
    return json.loads(remote.stdout)


def named_masks(variable: str) -> list[str]:
    return list(json.loads(base64.urlsafe_b64decode(variable)))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_variables_reach_every_node_unchanged(
    launcher: str, tmp_path: Path, programs: Path, hosts: Path, environment: dict[str, str]
) -> None:
    write_masked_tokens(tmp_path)
    ours = {"GPT_NEOX_PATH": "/opt/gpt-neox", "IFGUIDE_SCRIPT": "/opt/gpt-neox/train.py", "IFGUIDE_DEVICE": "cpu"}
    command = ["--hostfile", str(hosts), "--launcher", launcher, "--no_ssh_check", "--master_addr", "10.0.0.1"]
    result = subprocess.run(
        [sys.executable, "-c", _LAUNCH, *command, "worker.py", "--megatron_config", "e30="],
        cwd=tmp_path, env={**environment, **ours}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    arguments = json.loads((programs / RECORD).read_text())
    worker = received(launcher, arguments)
    assert {name: worker.get(name) for name in ours} == ours
    assert worker["IFGUIDE_VERIFIED"] in result.stdout.splitlines()
    assert named_masks(worker["IFGUIDE_VERIFIED"]) == ["mask"]
    assert arguments[-3:] == ["worker.py", "--megatron_config", "e30="]


@pytest.mark.parametrize("launcher", ["pdsh", "slurm"])
def test_deepy_starts_patched_workers_on_every_node(
    launcher: str, neox: Path, tmp_path: Path, programs: Path, hosts: Path, environment: dict[str, str]
) -> None:
    write_masked_tokens(tmp_path)
    (tmp_path / "run.yml").write_text(
        json.dumps(
            {
                "num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "seq_length": 16,
                "max_position_embeddings": 16, "pos_emb": "rotary", "train_iters": 1, "zero_optimization": {"stage": 0},
                "train_micro_batch_size_per_gpu": 2, "optimizer": {"type": "Adam", "params": {"lr": 0.001}},
                "tokenizer_type": "CharLevelTokenizer", "data_impl": "mmap", "data_path": "tokens",
                "penalty_data_path": "mask", "hostfile": str(hosts), "launcher": launcher, "no_ssh_check": True,
                "master_addr": "10.0.0.1", "deepspeed_slurm": launcher == "slurm",
            }
        )
    )  # fmt: skip
    result = subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), "train.py", "run.yml", "--neox", str(neox)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    arguments = json.loads((programs / RECORD).read_text())
    worker = received(launcher, arguments)
    assert worker["GPT_NEOX_PATH"] == str(neox)
    assert worker["IFGUIDE_SCRIPT"] == str(neox / "train.py")
    assert named_masks(worker["IFGUIDE_VERIFIED"]) == ["mask"]
    assert str(ROOT / "ifguide_patch/worker.py") in arguments
    # the arguments themselves travel on the command line, ours among NeoX's
    config = json.loads(base64.urlsafe_b64decode(arguments[arguments.index("--megatron_config") + 1]))
    assert config["penalty_data_path"] == "mask"
