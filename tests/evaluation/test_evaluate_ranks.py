"""`ifguide evaluate` under the real launchers: the numbers of one process, whatever the ranks, batches and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ifguide.errors import ConfigError
from ifguide.evaluation.run import EvaluationSettings, run_evaluation
from ifguide.system.files import read_json, read_jsonl, write_jsonl
from ifguide.system.processes import free_port
from tests.support import eval_sets
from tests.support.launching import ROOT, printed_by, start, torchrun
from tests.support.tiny_models import save_classifier

TASKS = ("ifguide", "ifguide_lambada_last_token", "greedy.yaml")
SCRIPT = ROOT / "tools" / "evaluate.py"
# one prompt a batch: of 23, two ranks have 12 and 11
BATCH = 25
GREEDY = """
task: greedy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}/rtp.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: prompt
doc_to_target: id
generation_kwargs: {{do_sample: false, until: ["\\n"], max_gen_toks: 6}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a classifier, sets that make several pieces of work of every kind, and the run of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    eval_sets.save_model(folder / "model", nats=0.0)
    save_classifier(folder / "judge", labels=["fine", "toxic"], problem_type=None)
    data = eval_sets.write_sets(folder / "sets")
    rtp = [{"id": str(n), "prompt": f"prompt {'very ' * (n % 7)}{n}", "toxicity": n / 22} for n in range(23)]
    write_jsonl(data / "rtp.jsonl", rtp)
    write_jsonl(data / "heldout.jsonl", [{"text": f"the cat {n} sat on the mat. " * 500} for n in range(3)])
    lambada = [{"text": f"{'word ' * 1500}{n} sat on the mat"} for n in range(5)]
    write_jsonl(data / "lambada.jsonl", lambada + eval_sets.LAMBADA)
    (folder / "greedy.yaml").write_text(GREEDY.format(data=data))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the launched processes: sums over threads differ in the last bit
    run_evaluation(settings(folder, "one"))
    run_evaluation(settings(folder, "one_row", batch_size=1))
    torch.set_num_threads(threads)
    return folder


def settings(folder: Path, output: str, **changes: Any) -> EvaluationSettings:
    given: dict[str, Any] = {
        "model": folder / "model", "data": folder / "sets", "output": folder / output, "device": "cpu", "seed": 3,
        "scorers": ("lexicon", f"hf:{folder}/judge#toxic"), "batch_size": BATCH,
        "tasks": tuple(str(folder / name) if name.endswith("yaml") else name for name in TASKS),
    }  # fmt: skip
    return EvaluationSettings(**given | changes)


def command(folder: Path, output: str, *more: str) -> list[str]:
    """The same on the command line."""
    asked = settings(folder, output)
    return [
        str(SCRIPT), "--model", str(asked.model), "--data", str(asked.data), "--output", str(asked.output),
        "--device", "cpu", "--seed", "3", "--batch-size", str(BATCH), "--tasks", ",".join(asked.tasks),
        *(part for spec in asked.scorers for part in ("--scorer", spec)), *more,
    ]  # fmt: skip


def check_equal(folder: Path, output: str, processes: int) -> None:
    """All samples and all metrics of ``output`` are those of one process, to the bit."""
    one, other = (read_json(folder / name / "results.json") for name in ("one", output))
    assert other["settings"]["processes"] == processes
    assert (folder / output / "samples.jsonl").read_bytes() == (folder / "one" / "samples.jsonl").read_bytes()
    assert other["tasks"] == one["tasks"] and other["groups"] == one["groups"]
    assert (folder / output / "report.html").is_file()


@pytest.mark.slow
def test_batch_size(folder: Path) -> None:
    """Texts and what they score are the same; likelihoods are sums in another order, in single precision."""
    one, other = (read_jsonl(folder / name / "samples.jsonl") for name in ("one", "one_row"))
    assert len({text for row in one for text in row.get("continuations", ())}) > 300
    for row, same in zip(one, other, strict=True):
        assert row.get("continuations") == same.get("continuations") and row.get("scores") == same.get("scores")
    tasks, same_tasks = (read_json(folder / name / "results.json")["tasks"] for name in ("one", "one_row"))
    compared = 0
    for task in tasks:
        for entry, same in zip(tasks[task]["metrics"], same_tasks[task]["metrics"], strict=True):
            if entry["value"] is None:  # a subset without prompts
                assert same["value"] is None
            else:
                assert same["value"] == pytest.approx(entry["value"], rel=2e-5), (task, entry["metric"])
                compared += 1
    assert compared > 30


@pytest.mark.slow
def test_two_ranks_of_torchrun(folder: Path) -> None:
    logs = folder / "logs"
    started = start([*torchrun(2, logs), *command(folder, "two", "--json")], folder)
    assert started.wait(timeout=300) == 0, printed_by(logs, 0)[-3000:]
    check_equal(folder, "two", 2)
    (stdout,) = logs.glob("*/attempt_0/0/stdout.log")
    assert json.loads(stdout.read_text()) == read_json(folder / "two" / "results.json")
    assert printed_by(logs, 1) == ""


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [2, 1])
def test_a_rank_is_killed_and_the_run_resumed(folder: Path, resumed: int) -> None:
    output = f"killed_{resumed}"
    journal = folder / output / "journals" / "continuations-ifguide_rtp.jsonl"
    started = start([*torchrun(2), *command(folder, output)], folder)
    try:
        deadline = time.monotonic() + 300  # two processes that import torch on a busy machine
        while not journal.exists() or journal.read_bytes().count(b"\n") < 5:
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process_of_rank(started, 1), signal.SIGKILL)
        _, said = started.communicate(timeout=120)
    finally:
        if started.poll() is None:
            started.terminate()
    assert started.returncode != 0 and not (folder / output / "results.json").exists()
    kept = journal.read_bytes()
    assert 5 <= kept.count(b"\n") < 23, "killed in the middle"
    launch = torchrun(resumed) if resumed > 1 else [sys.executable]
    again = start([*launch, *command(folder, output)], folder)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said[-3000:]
    check_equal(folder, output, resumed)
    assert journal.read_bytes().startswith(kept[: kept.rindex(b"\n")]), "what was there is not drawn again"
    assert journal.read_bytes().count(b"\n") == 23


@pytest.mark.slow
def test_fewer_prompts_than_ranks_and_deepspeeds_launcher(folder: Path) -> None:
    """DeepSpeed tells every process its number in an argument, too."""
    launch = [
        sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus=2", f"--master_port={free_port()}",
    ]  # fmt: skip
    started = start([*launch, *command(folder, "deepspeed", "--limit", "1")], folder)
    _, said = started.communicate(timeout=300)
    assert started.returncode == 0, said[-3000:]
    assert read_json(folder / "deepspeed" / "results.json")["settings"]["processes"] == 2
    rows = read_jsonl(folder / "deepspeed" / "samples.jsonl")
    assert len(rows) == 7, "one of each task"
    drawn = {(row["task"], row["id"]): row for row in read_jsonl(folder / "one" / "samples.jsonl")}
    sampled = [row for row in rows if "continuations" in row]
    assert len(sampled) == 4
    for row in sampled:
        whole = drawn[row["task"], row["id"]]
        assert row["continuations"] == whole["continuations"]
        for name, scores in row["scores"].items():  # beside other texts, a classifier's batches are padded otherwise
            assert scores == pytest.approx(whole["scores"][name], rel=1e-5), name


@pytest.mark.parametrize(
    ("device", "gpus", "said"),
    [("cuda:0", 4, "is one GPU and there are 2 processes"), ("auto", 1, "2 processes and 1 GPUs: each needs its own")],
)
def test_every_process_needs_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, said: str
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    asked = EvaluationSettings(model=tmp_path, tasks=("ifguide_rtp",), output=tmp_path, device=device)
    with pytest.raises(ConfigError) as error:
        asked.check()
    assert any(said in fault for fault in error.value.faults)
    assert asked.torch_device == "cuda:0"


def process_of_rank(launcher: subprocess.Popen, rank: int) -> int:
    """The process that ``launcher`` started as ``rank``."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for child in children:
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"no rank {rank} among {children}")
