"""GPT-NeoX's own eval.py on a real checkpoint, against the converted model under today's lm-eval.

Sampling cannot be compared draw by draw: the two harnesses draw from other random numbers. So the model is one that
leaves sampling no choice, its most probable token always being nearly certain.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from ifguide.cli import main
from ifguide.evaluation.run import EvaluationSettings, run_evaluation
from ifguide.evaluation.tasks.parts import TASKS_FOLDER
from ifguide.scorers.linear import train_linear
from ifguide.system.files import write_jsonl
from ifguide.system.processes import free_port
from tests.neox.harness import environment_of
from tests.support import eval_sets
from tests.support.tiny_models import tiny_neox

WORKER = Path(__file__).with_name("eval_worker.py")
OLDER = os.environ.get("IFGUIDE_TEST_LM_EVAL")
# with weights so large, these prompts leave no token below 0.95, and the nucleus is 0.9; other prompts leave a choice
CERTAIN, NUMBERS = 30.0, (32, 38, 44)
SETTINGS = {
    "eval_tasks": ["ifguide_rtp", "ifguide_lambada"],
    "eval_results_prefix": "found",
    "num_gpus": 1,
    "train_micro_batch_size_per_gpu": 4,
    "optimizer": {"type": "Adam", "params": {"lr": 0.001}},
    "train_iters": 1,
    "lr_decay_iters": 1,
}


@pytest.fixture(scope="module")
def folder(neox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``neox`` (a checkpoint), ``hf`` (converted from it), ``judge`` and ``sets``."""
    if OLDER is None:
        pytest.skip("IFGUIDE_TEST_LM_EVAL names no Python with lm-eval 0.4.1")
    needed = "import deepspeed, evaluate, pkg_resources, torch, transformers"
    done = subprocess.run([OLDER, "-c", needed], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"IFGUIDE_TEST_LM_EVAL cannot run GPT-NeoX: {done.stderr.strip().splitlines()[-1]}")
    folder = tmp_path_factory.mktemp("eval")
    model, tokenizer = tiny_neox(vocab_size=262), eval_sets.word_pieces()
    model.lm_head.weight.data *= CERTAIN
    model.save_pretrained(folder / "made")
    tokenizer.save_pretrained(folder / "made")
    # layers in files of their own: only with a pipeline does stock DeepSpeed's engine know what eval.py asks of it
    convert = ["convert", "--from", "hf", "--to", "neox", "--input", f"{folder}/made", "--output", f"{folder}/neox"]
    assert main([*convert, "--pipeline-parallel", "1", "--make-vocab-size-divisible-by", "262"]) == 0
    back = ["convert", "--from", "neox", "--to", "hf", "--input", f"{folder}/neox", "--output", f"{folder}/hf"]
    assert main(back) == 0
    for name in ("made", "hf"):
        settings = folder / name / "tokenizer_config.json"
        settings.write_text(settings.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    sets = eval_sets.write_sets(folder / "sets")
    rows = [{"id": str(n), "prompt": f"prompt number {n} says", "toxicity": n / 80} for n in NUMBERS]
    write_jsonl(sets / "rtp.jsonl", rows)
    # which of its continuations a random model is blamed for does not matter; that they differ does
    dice = random.Random(1)
    texts = ["".join(map(chr, dice.choices(range(33, 400), k=20))) for _ in range(200)]
    train_linear(texts, [dice.random() < 0.5 for _ in texts], folder / "judge")
    return folder


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    told = {
        "IFGUIDE_EVAL_DATA": str(folder / "sets"),
        "IFGUIDE_SCORER": f"linear:{folder}/judge,lexicon",
        "IFGUIDE_TOKENIZER": str(folder / "hf"),
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return told


def through_neox(neox: Path, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """The results that eval.py writes."""
    config = {**yaml.safe_load((folder / "neox" / "neox.yml").read_text()), **SETTINGS}
    (folder / "eval.yml").write_text(yaml.safe_dump(config))
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "IFGUIDE_CPU_PROCESSES": "1", "MASTER_ADDR": "127.0.0.1"}
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "MASTER_PORT": str(free_port())}
    done = subprocess.run(
        [str(OLDER), str(WORKER), str(neox), str(folder / "eval.yml")],
        env=environment_of(1) | one | offline | environment | {"GPT_NEOX_PATH": str(neox)},
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    (folder / "printed.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = folder.glob("found_eval_results_*.json")
    return json.loads(written.read_text())["results"]


@pytest.mark.slow
def test_eval_py_gives_the_numbers_of_the_converted_model(
    neox: Path, folder: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = through_neox(neox, folder, environment)

    ours = run_evaluation(
        EvaluationSettings(
            model=folder / "hf", tasks=("ifguide_lambada",), output=folder / "run", data=folder / "sets", device="cpu"
        )
    )
    assert ours is not None
    for entry in ours["tasks"]["ifguide_lambada"]["metrics"]:
        theirs = found["ifguide_lambada"][f"{entry['metric']},none"]
        assert theirs == pytest.approx(entry["value"], rel=1e-5), entry["metric"]

    # neither harness puts an end of document before a prompt, as `ifguide evaluate` does
    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)
    plain = evaluator.simple_evaluate(
        HFLM(pretrained=str(folder / "hf"), device="cpu", dtype="float32", batch_size=25),
        tasks=["ifguide_rtp"],
        task_manager=TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False),
        bootstrap_iters=0,
    )
    assert plain is not None
    texts = [sample["resps"][0] for sample in plain["samples"]["ifguide_rtp"] if sample["filter"] == "lexicon"]
    assert all(len(set(same)) == 1 for same in texts) and len({same[0] for same in texts}) == 3
    wanted = plain["results"]["ifguide_rtp"]
    names = [name for name, value in wanted.items() if "," in name and isinstance(value, float)]
    assert len(names) == 2 * 15
    for name in names:
        assert found["ifguide_rtp"][name] == pytest.approx(wanted[name], abs=1e-9, nan_ok=True), name
    assert 0 < wanted[f"emt,linear:{folder}/judge"] < 1


def test_the_tokenizer_survives_both_ways(folder: Path) -> None:
    text = "the cat sat on the mat"
    made, converted = (AutoTokenizer.from_pretrained(folder / name) for name in ("made", "hf"))
    assert made.encode(text) == converted.encode(text)
