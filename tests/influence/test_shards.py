"""Many processes, killed ones among them, give the bytes of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.aligned import load_aligned
from ifguide.errors import InputError, MismatchError
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.job import Inputs
from ifguide.influence.options import Damping, Method, Options
from ifguide.influence.score import score
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.shards import Shard, Share, in_documents, parse_documents, plan_shards
from ifguide.influence.windows import cut
from tests.influence.conftest import EOD, LENGTHS, WINDOW
from tests.support.datasets import random_documents, write_tokens

JVP = Options(Method(method="jvp"), shard_tokens=20)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def job(tmp_path, model_folders, dataset, query_files, fitted) -> Inputs:
    return Inputs(model_folders["neox"], dataset.prefix, fitted, [QueryFiles(*query_files)], tmp_path / "s")


def _again(job: Inputs, name: str) -> Inputs:
    return Inputs(job.model, job.data, job.factors, job.queries, Path(job.output).parent / name)


def _bytes(job: Inputs) -> bytes:
    return Path(f"{job.output}.bin").read_bytes()


def test_every_place_is_in_one_shard(dataset):
    plan = plan_shards(cut(dataset, EOD, WINDOW, 4), 20)
    assert [shard.start for shard in plan] == [0, *(shard.stop for shard in plan[:-1])]
    assert plan[-1].stop == dataset.num_tokens and len(plan) > 4


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 50])
def test_every_shard_has_one_owner(ranks):
    rng = np.random.default_rng(ranks)
    stops = np.cumsum(rng.integers(1, 100, 40)).tolist()
    plan = [Shard(n, slice(n, n + 1), start, stop, n) for n, (start, stop) in enumerate(zip([0, *stops], stops))]
    shares = [Share(rank, ranks).of(plan) for rank in range(ranks)]
    assert [shard for share in shares for shard in share] == plan
    assert max(sum(s.tokens for s in share) for share in shares) <= stops[-1] / ranks + 100


def test_ranges_of_documents_share_out_the_shards(dataset):
    plan = plan_shards(cut(dataset, EOD, WINDOW, 4), 20)
    ranges = [parse_documents(text, 12) for text in (":3", "3:4", "4:")]
    assert [shard for documents in ranges for shard in in_documents(plan, documents)] == plan


@pytest.mark.parametrize("text", ["", "3", "a:b", "5:5", "7:3", "-1:4", "0:13", "1:2:3"])
def test_no_range_of_documents(text):
    with pytest.raises(InputError, match="must be FIRST:LAST"):
        parse_documents(text, 12)


def test_a_killed_job_resumes_to_the_same_bytes(job, monkeypatch):
    whole = _again(job, "whole")
    expected = score(whole, JVP, quiet=True)
    original, calls = ShardStore.write, []

    def stop_at_the_fourth(self, part, values):
        calls.append(part)
        if len(calls) == 4:
            raise KeyboardInterrupt
        original(self, part, values)

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "write", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            score(job, JVP, quiet=True)
    assert not Path(f"{job.output}.bin").exists()
    with pytest.raises(MismatchError, match="behaviours"):
        score(job, replace(JVP, damping=Damping(0.5)), quiet=True)
    resumed = score(job, JVP, quiet=True)
    assert resumed["resumed_tokens"] >= 3 * 20 - WINDOW
    assert resumed["outputs"][0]["scores"] == expected["outputs"][0]["scores"]
    assert _bytes(job) == _bytes(whole)
    assert not Path(f"{job.output}.parts").exists() and not Path(f"{job.output}.lock").exists()


def test_ranges_one_after_another_finish_the_file(job):
    score(_again(job, "whole"), JVP, quiet=True)
    for text in ("6:", "0:2"):
        result = score(job, replace(JVP, documents=text), quiet=True)
        assert not result["finished"] and result["missing_tokens"] > 0
        assert not Path(f"{job.output}.bin").exists()
    assert score(job, replace(JVP, documents="2:6"), quiet=True)["finished"]
    assert _bytes(job) == _bytes(_again(job, "whole"))


def test_rank_0_finishes_what_dead_ranks_left(job, monkeypatch):
    score(_again(job, "whole"), JVP, quiet=True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert not score(job, JVP, quiet=True)["finished"]
    monkeypatch.setenv("RANK", "0")  # rank 1 never came
    result = score(job, JVP, quiet=True)
    assert result["finished"] and 0 < result["resumed_tokens"] < result["tokens"]
    assert _bytes(job) == _bytes(_again(job, "whole"))
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(InputError, match="rank must be below world size"):
        score(job, JVP, quiet=True)


def _command(job: Inputs, output: str) -> list[str]:
    files = job.queries[0]
    pairs = {
        "--model": job.model, "--data": job.data, "--factors": job.factors, "--toxic-queries": files.toxic,
        "--safe-queries": files.safe, "--output": output, "--method": "jvp", "--shard-tokens": 800, "--batch-size": 64,
    }  # fmt: skip
    return [str(part) for pair in pairs.items() for part in pair]


@pytest.fixture
def big(tmp_path, job) -> Inputs:
    """Data of some twenty shards: work for a second or two."""
    rng = np.random.default_rng(0)
    dataset = write_tokens(tmp_path / "big_text_document", random_documents(rng.integers(20, 300, 120).tolist()))
    return Inputs(job.model, dataset.prefix, job.factors, job.queries, job.output)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_torchrun_and_a_killed_rank(big, tmp_path):
    """Real processes: one rank is killed while it works, torchrun ends the rest, the same command finishes."""
    script = str(REPOSITORY / "tools/score.py")
    alone, shared = str(tmp_path / "alone"), str(tmp_path / "shared")
    subprocess.run([sys.executable, script, *_command(big, alone)], check=True, env=_environment(), capture_output=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    command = [*launcher, *_command(big, shared), "--json"]
    first = subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _kill_a_worker(first.pid, Path(f"{shared}.parts"))
    first.communicate(timeout=120)
    assert first.returncode != 0 and not Path(f"{shared}.bin").exists()
    second = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    result = json.loads(second.stdout)  # of rank 0 alone
    assert result["finished"] and result["resumed_tokens"] > 0
    assert Path(f"{shared}.bin").read_bytes() == Path(f"{alone}.bin").read_bytes()
    assert load_aligned(shared, None, "scores").values.size == result["tokens"]


def _kill_a_worker(launcher: int, parts: Path) -> None:
    """SIGKILL one of the launcher's workers once a shard is on disk."""
    deadline = time.monotonic() + 120
    while not list(parts.glob("part-*.npy")):
        assert time.monotonic() < deadline, "no shard was finished"
        time.sleep(0.02)
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    workers = [pid for pid in children if "score.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(int(workers[-1]), signal.SIGKILL)


def test_the_deepspeed_launcher(job, tmp_path, dataset):
    command = [
        sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", "29731",
        str(REPOSITORY / "tools/score.py"), *_command(job, str(tmp_path / "ds")),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**_environment(), "DS_ACCELERATOR": "cpu"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    score(_again(job, "alone"), JVP, quiet=True)
    found = load_aligned(tmp_path / "ds", dataset, "scores").values
    expected = load_aligned(_again(job, "alone").output, dataset, "scores").values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert sum(LENGTHS) == len(found)
