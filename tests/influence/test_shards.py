"""Many processes, killed ones among them, give the bytes of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.aligned import load_aligned
from ifguide.errors import InputError, MismatchError
from ifguide.influence import score as score_module
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.job import Inputs
from ifguide.influence.options import Damping, Method, Options
from ifguide.influence.score import score
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.shards import Shard, Share, in_documents, parse_documents, plan_shards, turn, work
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


def _shards(count: int, tokens: int = 3) -> list[Shard]:
    return [Shard(n, slice(n, n + 1), tokens * n, tokens * (n + 1), n) for n in range(count)]


def _values(shard: Shard) -> np.ndarray:
    return np.arange(shard.start, shard.stop, dtype=np.float32)[None]


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_the_others_shards_come_from_their_ends(ranks):
    plan = _shards(11)
    for rank in range(ranks):
        share = Share(rank, ranks)
        others = share.of_others(plan)
        assert sorted([*share.of(plan), *others], key=lambda shard: shard.number) == plan
        following = [Share((rank + k) % ranks, ranks).of(plan) for k in range(1, ranks)]
        assert others == [shard for shares in following for shard in reversed(shares)]


# a process that no launcher numbers, as srun starts it: it records the shards that it scores, and one waits for a file
WORKER = """
import sys, time
from pathlib import Path
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.shards import Share, work
from tests.influence.test_shards import _shards, _values

folder, name, waits_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = ShardStore(folder / "parts", {"run": 1})

def score(shard, on_tokens):
    with open(folder / f"{name}.did", "a") as stream:
        stream.write(f"{shard.number}{chr(10)}")
    deadline = time.monotonic() + 100
    while shard.number == waits_at and not (folder / "go").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    on_tokens(shard.tokens)
    return _values(shard)

print(work(store, _shards(12), Share.from_environment(), score, quiet=True))
"""


def _start_worker(folder: Path, name: str, waits_at: int = -1, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), name, str(waits_at)],
        env={**_environment(), **environment}, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_processes_that_nobody_numbers_pass_over_what_another_is_at(tmp_path):
    """One is stuck in a shard: two others do all the rest meanwhile, each shard once, and wait for that one alone."""
    slow = _start_worker(tmp_path, "slow", waits_at=0)
    _until((tmp_path / "slow.did").exists)
    others = [_start_worker(tmp_path, name) for name in ("one", "two")]
    parts = ShardStore(tmp_path / "parts", {"run": 1})
    _until(lambda: parts.look() == set(range(1, 12)))
    assert all(other.poll() is None for other in others), "they wait for the last shard, and could merge then"
    (tmp_path / "go").touch()
    scored = [int(process.communicate(timeout=100)[0]) for process in (slow, *others)]
    did = [number for path in tmp_path.glob("*.did") for number in path.read_text().split()]
    assert sorted(map(int, did)) == list(range(12)) and sum(scored) == 36
    assert (tmp_path / "slow.did").read_text() == "0\n"
    for shard in _shards(12):
        np.testing.assert_array_equal(parts.read(shard.number), _values(shard))


def test_a_rank_that_is_done_takes_from_a_slow_one_and_does_not_wait(tmp_path):
    slow = _start_worker(tmp_path, "slow", waits_at=0, RANK="0", WORLD_SIZE="2")
    _until((tmp_path / "slow.did").exists)
    fast = _start_worker(tmp_path, "fast", RANK="1", WORLD_SIZE="2")
    assert int(fast.communicate(timeout=100)[0]) == 33, "its own six and five of the other's"
    (tmp_path / "go").touch()
    assert int(slow.communicate(timeout=100)[0]) == 3
    assert (tmp_path / "fast.did").read_text().split() == ["6", "7", "8", "9", "10", "11", "5", "4", "3", "2", "1"]


def test_the_shard_of_a_killed_process_is_done_again(tmp_path):
    killed = _start_worker(tmp_path, "killed", waits_at=0)
    _until((tmp_path / "killed.did").exists)
    other = _start_worker(tmp_path, "other")
    _until(lambda: len(ShardStore(tmp_path / "parts", {"run": 1}).look()) == 11)
    killed.kill()
    killed.communicate(timeout=100)
    assert int(other.communicate(timeout=100)[0]) == 36


def test_without_locks_nobody_takes_from_another_but_rank_0(tmp_path, monkeypatch):
    """A rank that cannot tell what another is at leaves it alone; processes without numbers begin apart."""
    monkeypatch.setattr("ifguide.influence.shards.has_locks", lambda folder: False)
    store = ShardStore(tmp_path / "parts", {"run": 1})
    did: list[int] = []

    def score_shard(shard, on_tokens):
        did.append(shard.number)
        return _values(shard)

    assert work(store, _shards(12), Share(1, 2), score_shard, quiet=True) == 18 and did == list(range(6, 12))
    assert work(store, _shards(12), Share(0, 2), score_shard, quiet=True) == 18 and sorted(did) == list(range(12))
    did.clear()
    monkeypatch.setattr("ifguide.influence.shards.zlib.crc32", lambda data: 29)
    assert work(ShardStore(tmp_path / "other", {"run": 1}), _shards(12), Share(), score_shard, quiet=True) == 36
    assert did == [5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4]


def test_shards_lie_in_subfolders_and_those_of_earlier_versions_count(tmp_path):
    store = ShardStore(tmp_path / "parts", {"run": 1})
    for number in (0, 999, 1000, 1000000):
        with turn(store.lock(number)):
            store.write(number, np.full((1, 2), number, np.float32))
    found = sorted(str(path.relative_to(tmp_path / "parts")) for path in (tmp_path / "parts").rglob("*.npy"))
    assert found == ["0000/part-000000.npy", "0000/part-000999.npy", "0001/part-001000.npy", "1000/part-1000000.npy"]
    (tmp_path / "parts/0000/part-000999.npy").rename(tmp_path / "parts/part-000999.npy")  # as they lay before
    store = ShardStore(tmp_path / "parts", {"run": 1})
    assert store.look() == {0, 999, 1000, 1000000} and store.finished(999) and not store.finished(998)
    assert [store.read(number)[0, 1] for number in (0, 999, 1000000)] == [0, 999, 1000000]
    store.remove()
    assert not (tmp_path / "parts").exists() and store.removed and store.finished(5)
    with pytest.raises(FileNotFoundError):
        store.lock(5)


def test_a_flat_folder_of_an_earlier_version_is_resumed(job, monkeypatch):
    score(_again(job, "whole"), JVP, quiet=True)
    monkeypatch.setattr(score_module, "_merge_if_complete", lambda *_: 1)
    score(job, JVP, quiet=True)
    monkeypatch.undo()
    parts = Path(f"{job.output}.parts")
    for path in sorted(parts.rglob("*.npy"))[:3]:
        path.rename(parts / path.name)
    (parts / "0000" / "part-000004.npy").unlink()
    result = score(job, JVP, quiet=True)
    assert 0 < result["scored_tokens"] < 60 and _bytes(job) == _bytes(_again(job, "whole"))


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


def test_a_rank_takes_what_the_others_leave_and_rank_0_merges(job, monkeypatch):
    score(_again(job, "whole"), JVP, quiet=True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")  # the others never came
    result = score(job, JVP, quiet=True)
    assert not result["finished"] and result["scored_tokens"] == result["tokens"]
    monkeypatch.setenv("RANK", "0")
    result = score(job, JVP, quiet=True)
    assert result["finished"] and result["resumed_tokens"] == result["tokens"] and result["scored_tokens"] == 0
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
    while not list(parts.rglob("part-*.npy")):
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
