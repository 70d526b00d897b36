"""Start-up: what all processes of a run need alike is made by one of them; whoever finds it there waits for nobody."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ifguide.data import fingerprint as fingerprint_module
from ifguide.errors import InputError
from ifguide.influence import job as job_module
from ifguide.influence import shards
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.curvature.store import describe_factors, load_factors
from ifguide.influence.job import Inputs, prepare
from ifguide.influence.options import Method, Options
from ifguide.influence.passes import cut_directions
from ifguide.influence.score import score
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.shards import shard_tokens_for
from ifguide.system.files import read_json, write_json
from tests.influence.test_shards import REPOSITORY, _environment

JVP = Options(Method(method="jvp"), shard_tokens=20)
RANK = Options(Method(method="jvp", rank=3), shard_tokens=20)


@pytest.fixture
def job(tmp_path, model_folders, dataset, query_files, fitted) -> Inputs:
    return Inputs(model_folders["neox"], dataset.prefix, fitted, [QueryFiles(*query_files)], tmp_path / "s")


@pytest.mark.parametrize("options", [JVP, RANK, Options()], ids=["jvp", "rank", "auto"])
def test_a_process_that_comes_later_takes_no_turn_and_makes_nothing(job, monkeypatch, options):
    first = prepare(job, options, quiet=True)
    for module, name in (
        (shards, "turn"), (job_module, "each_direction"), (job_module, "load_factors"),
        (job_module, "settle"), (cut_directions, "truncate"), (fingerprint_module, "hash_file"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: pytest.fail(f"{name} again"))
    second = prepare(job, options, quiet=True)
    assert (second.identities, second.method, second.energy) == (first.identities, first.method, first.energy)
    batch = first.windows.whole().batch(np.arange(3))
    assert torch.equal(second.scoring.scores(batch), first.scoring.scores(batch))


def test_factors_are_read_only_where_a_direction_is_missing(job, tmp_path, fitted):
    factors = tmp_path / "f"
    factors.mkdir()
    for path in fitted.iterdir():
        (factors / path.name).write_bytes(path.read_bytes())
    job = replace(job, factors=factors)
    score(job, JVP, quiet=True)
    expected = Path(f"{job.output}.bin").read_bytes()
    (factors / "factors.safetensors").write_bytes(b"damaged")
    for suffix in ("bin", "idx", "json"):
        Path(f"{job.output}.{suffix}").unlink()
    score(job, JVP, quiet=True)
    assert Path(f"{job.output}.bin").read_bytes() == expected
    with pytest.raises(InputError, match=r"is not the file that factors.json describes"):
        score(replace(job, output=tmp_path / "other"), JVP, quiet=True)
    assert describe_factors(fitted).fingerprint == load_factors(fitted).fingerprint
    assert not describe_factors(fitted).layers


def test_a_cut_is_that_of_the_directions_and_of_the_rank(job):
    """Another rank, and other directions, are cut anew; a damaged cut is, too."""
    kept = prepare(job, RANK, quiet=True).energy
    path = Path(f"{job.output}.direction.rank-3.safetensors")
    content = path.read_bytes()
    other = replace(RANK, method=Method(method="jvp", rank=2))
    assert prepare(job, other, quiet=True).energy[0]["kept"] < kept[0]["kept"]
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert prepare(job, RANK, quiet=True).energy == kept and path.read_bytes() == content
    queries = [QueryFiles(job.queries[0].safe, job.queries[0].toxic)]
    prepare(replace(job, queries=queries), RANK, quiet=True)
    assert path.read_bytes() != content


MAKER = """
import sys
from pathlib import Path
from ifguide.influence.shards import found_or_made

folder = Path(sys.argv[1])
made = folder / "made"

def make():
    with open(folder / "makers", "a") as stream:
        stream.write("x")
    made.write_text("42")
    return 42

print(found_or_made(folder / "lock", lambda: int(made.read_text()) if made.exists() else None, make))
"""


def test_of_many_processes_one_makes_and_all_have_it(tmp_path):
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    processes = [subprocess.Popen(command, env=_environment(), cwd=REPOSITORY, stdout=subprocess.PIPE) for _ in "12345"]
    assert [int(process.communicate(timeout=100)[0]) for process in processes] == [42] * 5
    assert (tmp_path / "makers").read_text() == "x"


def test_shards_are_at_most_2_to_the_16(monkeypatch):
    assert shard_tokens_for(1) == shard_tokens_for(1 << 34) == 1 << 18
    assert shard_tokens_for((1 << 34) + 1) == 1 << 19
    assert shard_tokens_for(300_000_000_000) == 1 << 23


def test_an_unfinished_run_keeps_its_shards_whatever_the_default_became(job, monkeypatch):
    asked = replace(JVP, shard_tokens=None)
    assert prepare(job, asked, quiet=True).shard_tokens == 1 << 18
    made = prepare(job, replace(JVP, shard_tokens=40), quiet=True)
    store = ShardStore(f"{job.output}.parts", {"behaviours": made.identities})
    assert prepare(job, asked, quiet=True).shard_tokens == 40
    write_json(store.folder / "identity.json", {"behaviours": "of another version"})
    assert prepare(job, asked, quiet=True).shard_tokens == 1 << 18


def test_what_is_known_of_the_data_serves_machines_with_another_cache(job, dataset, monkeypatch, tmp_path):
    """The first machine reads the corpus, with a vocabulary that its ids could exceed; the second one does not."""
    prepare(job, JVP, quiet=True)
    known = read_json(f"{job.output}.known.json")
    assert known["range"] == [int(dataset.tokens.min()), int(dataset.tokens.max())]
    assert known["fingerprint"]["tokens"] == dataset.num_tokens
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(fingerprint_module, "hash_file", lambda *_, **__: pytest.fail("read again"))
    monkeypatch.setattr(job_module, "token_range", lambda *_, **__: pytest.fail("read again"))
    prepare(job, JVP, quiet=True)


def test_the_length_of_a_direction_does_not_depend_on_threads_or_on_who_computed_it():
    from ifguide.influence.passes.difference import _norm

    tensors = {name: torch.randn(700, 301) for name in "ab"} | {"bias": torch.randn(301)}
    found = set()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.add(_norm(tensors, torch.device("cpu")))
    torch.set_num_threads(1)
    exact = float(np.linalg.norm(np.concatenate([t.numpy().ravel().astype(np.longdouble) for t in tensors.values()])))
    assert len(found) == 1 and found.pop() == pytest.approx(exact, rel=1e-14)
