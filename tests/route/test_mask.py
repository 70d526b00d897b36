"""From text to mask by one command: what it makes, that it resumes, and that its commands give the same alone."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ifguide import launch
from ifguide.cli import main
from ifguide.config.options import options_of
from ifguide.config.yaml_files import merge_files
from ifguide.errors import IFGuideError
from ifguide.route import job
from ifguide.route.job import Commands, Route
from ifguide.route.options import RouteOptions
from ifguide.verbs import make_parser
from ifguide.verbs.run import state_of
from tests.engine.tiny import MODEL
from tests.route.case import write_case

COMMAND = ["mask", "--input", "corpus.jsonl", "--model", "proxy", "--toxic-queries", "toxic.jsonl",
           "--safe-queries", "safe.jsonl", "--output", "runs/mask", "--method", "jvp", "--factor-tokens", "2000",
           "--seed", "3"]  # fmt: skip
VERBS = ["train-classifier", "preprocess", "plan", "score-text", "fit-factors", "score", "build-mask", "verify",
         "mask-stats", "inspect"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _quiet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("GPT_NEOX_PATH", raising=False)
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def made(case: Path) -> Path:
    """The case with a finished mask; read by every test and changed by none."""
    before = Path.cwd()
    os.chdir(case)
    try:
        assert main(COMMAND) == 0
    finally:
        os.chdir(before)
    return case


def a_copy(case: Path, folder: Path) -> Path:
    return Path(shutil.copytree(case, folder / "copy"))


def without_products(case: Path, folder: Path) -> Path:
    copied = a_copy(case, folder)
    shutil.rmtree(copied / "runs", ignore_errors=True)
    return copied


def numbers(folder: Path) -> dict[str, bytes]:
    """Every product but the records and the pages, which say where and when they were made."""
    kinds = {".bin", ".idx", ".npz", ".safetensors"}
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix in kinds}
    assert {"mask.bin", "mask.idx", "scores.bin", "suspects.bin", "factors/factors.safetensors"} <= found.keys()
    return found


def commands(folder: Path) -> list[list[str]]:
    script = (folder / "runs/mask/commands.sh").read_text().splitlines()
    return [shlex.split(line) for line in script if line.startswith("ifguide ")]


def test_what_it_makes_and_says(made: Path, monkeypatch: Any, capsys: Any) -> None:
    out = made / "runs/mask"
    record = json.loads((out / "run.json").read_text())
    assert [step["verb"] for step in record["steps"]] == VERBS
    assert record["selected"] > 0 and 0 < record["fraction"] < 0.1
    assert [shlex.join(command) for command in commands(made)] == [step["command"] for step in record["steps"]]
    assert "<html" in (out / "mask.html").read_text() and (out / "statistics/mask_stats.json").is_file()
    keys, faults = merge_files([out / "data.yml", out / "penalty.yml"])
    assert not faults and keys["penalty_data_path"] == str(out / "mask")
    assert (keys["penalty_form"], keys["penalty_clip"], keys["penalty_lambda"]) == ("clipped", 5.0, 0.2)
    assert record["yaml"] == [line.strip() for line in (out / "penalty.yml").read_text().splitlines()[2:-1]]
    files = "MODEL.yml runs/mask/data.yml runs/mask/penalty.yml"
    assert record["train"] == f"python deepy.py train.py {files} --neox ~/gpt-neox"


def test_its_yaml_trains(made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """As far as a dry run checks it: the tokens, the tokenizer, the mask."""
    model = {key: value for key, value in MODEL.items() if key != "tokenizer_type"} | {"eval_iters": 0}
    (tmp_path / "model.yml").write_text(json.dumps(model))
    monkeypatch.chdir(made)
    files = [str(tmp_path / "model.yml"), "runs/mask/data.yml", "runs/mask/penalty.yml"]
    assert launch.main(["train.py", *files, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "penalty: clipped" in said and f"mask {made / 'runs/mask/mask'} of " in said
    assert "nothing was started" in said


def test_its_commands_alone_give_the_same_bytes(made: Path, tmp_path: Path, monkeypatch: Any) -> None:
    alone = without_products(made, tmp_path)
    monkeypatch.chdir(alone)
    Path("runs/mask").mkdir(parents=True)
    for command in commands(made):
        assert main(command[1:]) == 0
    assert numbers(alone / "runs/mask") == numbers(made / "runs/mask")


def test_killed_and_resumed_it_gives_the_same_bytes(made: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    killed = without_products(made, tmp_path)
    code = (
        "import sys, time, ifguide.influence.shard_store as parts\nwrite = parts.ShardStore.write\n"
        "def slow(self, *given):\n    write(self, *given)\n"
        "    if 'scores' in str(vars(self)):\n"
        "        print('part', file=sys.stderr, flush=True)\n        time.sleep(600)\n"
        "parts.ShardStore.write = slow\nfrom ifguide.cli import main\nmain(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *COMMAND]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=killed) as process:
        assert process.stderr
        assert any(line == "part\n" for line in process.stderr), "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert not (killed / "runs/mask/mask.bin").exists()
    monkeypatch.chdir(killed)
    assert main([*COMMAND, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert ": to go on\nifguide score --model" in said and ": kept\nifguide fit-factors" in said
    assert main(COMMAND) == 0
    said = capsys.readouterr()
    assert "fit-factors: the curvature of the proxy: kept" in said.out and "going on with runs/mask/scores" in said.err
    assert numbers(killed / "runs/mask") == numbers(made / "runs/mask")


def test_the_rule_of_outputs(made: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """The same command has nothing to do, another one is refused; --overwrite replaces what the change concerns."""
    copied = a_copy(made, tmp_path)
    monkeypatch.chdir(made)
    assert main([*COMMAND, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] is True
    assert main([*COMMAND, "--recipe", "influence"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--recipe was within, is influence" in line and "--overwrite" in line

    monkeypatch.chdir(copied)
    other = [*COMMAND, "--recipe", "influence", "--max-fraction", "0.05"]
    assert main([*other, "--overwrite"]) == 0
    said = capsys.readouterr().out
    for kept in ("preprocess", "fit-factors", "score"):
        assert any(line.endswith(": kept") and f"] {kept}: " in line for line in said.splitlines()), kept
    assert "train-classifier" not in said and "plan: whether it fits, and how long it takes: not needed" in said
    before, after = numbers(made / "runs/mask"), numbers(copied / "runs/mask")
    assert after["scores.bin"] == before["scores.bin"] and after["mask.bin"] != before["mask.bin"]
    assert main(other) == 0 and "nothing to do" in capsys.readouterr().out
    assert main(["build-mask", "--scores", "runs/mask/scores", "--output", "runs/mask/mask", "--max-fraction", "0.3",
                 "--threshold-quantile", "0.5", "--overwrite"]) == 0  # fmt: skip
    by_hand = Path("runs/mask/mask.bin").read_bytes()
    capsys.readouterr()
    assert main(other) == 2
    assert "is no longer the mask that it made" in capsys.readouterr().err
    assert Path("runs/mask/mask.bin").read_bytes() == by_hand


def test_all_faults_of_the_inputs_at_once(case: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(case)
    rows = [json.loads(line) for line in Path("toxic.jsonl").read_text().splitlines()]
    (tmp_path / "few.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "you"}\n')
    one, other = str(tmp_path / "one.jsonl"), str(tmp_path / "other.jsonl")
    for path, source, prompt in ((one, "toxic.jsonl", "a comment:"), (other, "safe.jsonl", "another:")):
        lines = [json.loads(line) | {"prompt": prompt} for line in Path(source).read_text().splitlines()]
        Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["mask", "--input", "none.jsonl", "corpus.jsonl", "nothing.jsonl", "--model", "proxy", "--output",
               str(tmp_path / "out")]  # fmt: skip
    for queries, expected in (
        (["--toxic-queries", "missing.jsonl", "--safe-queries", "safe.jsonl"], "missing.jsonl"),
        (["--toxic-queries", "toxic.jsonl", "--safe-queries", str(tmp_path / "broken.jsonl")], 'has no "completion"'),
        (["--toxic-queries", str(tmp_path / "few.jsonl"), "--safe-queries", "safe.jsonl"], "1 are too few"),
        (["--toxic-queries", one, "--safe-queries", other], "2 different prompts are"),
    ):
        assert main([*command, *queries]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 3 and all(line.startswith("ifguide mask: ") for line in lines), lines
        assert "none.jsonl" in lines[0] and "nothing.jsonl" in lines[1] and expected in lines[2]
    assert main([*command, "--toxic-queries", "missing.jsonl", "--safe-queries", "neither.jsonl"]) == 2
    assert [line.split("queries ")[1] for line in capsys.readouterr().err.splitlines()[2:]] == [
        "missing.jsonl do not exist", "neither.jsonl do not exist",
    ]  # fmt: skip
    assert main([*command, *queries, "--recipe", "influence", "--tokens-within", "2", "--workers", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "--tokens-within is of --recipe within" in lines[0] and "--workers 0" in lines[2]
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_must_be_the_proxys(case: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(case)
    command = ["--tokenizer-type", "CharLevelTokenizer", "--output", str(tmp_path / "out")]
    assert main([*COMMAND, *command]) == 2
    assert "is not the tokenizer of --model proxy" in capsys.readouterr().err


def test_a_classifier_that_knows_nothing_is_told(made: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    copied = a_copy(made, tmp_path)
    monkeypatch.chdir(copied)
    asked = options_of(make_parser("mask").parse_args(COMMAND[1:]), RouteOptions)
    route = Route(asked, Commands(make_parser, lambda *given: ("same", []), lambda *given: 0), False, sys.stdout)
    path = Path("runs/mask/classifier/config.json")
    config = json.loads(path.read_text())
    for quality, warned in ((0.74, True), (0.76, False)):
        config["report"]["roc_auc"] = quality
        path.write_text(json.dumps(config))
        route.run()
        assert ("hardly tells the queries apart (ROC-AUC 0.74)" in capsys.readouterr().out) is warned


def test_a_step_that_fails_ends_the_route(made: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """All that the step said is shown then, and what comes behind it does not run."""
    monkeypatch.chdir(without_products(made, tmp_path))
    asked = options_of(make_parser("mask").parse_args(COMMAND[1:]), RouteOptions)
    ran = []

    def fail(verb: str, words: Any) -> int:
        ran.append(verb)
        print("first\nlast")
        return 2 if verb == "plan" else 0

    monkeypatch.setattr(Route, "_warn", lambda route: None)
    route = Route(asked, Commands(make_parser, state_of, fail), False, sys.stdout)
    with pytest.raises(IFGuideError, match=r"stopped at plan \(exit 2\)"):
        route.run()
    assert ran == VERBS[:3] and capsys.readouterr().out.endswith("  first\n  last\n")


def test_a_dry_run_of_tokens_that_are_there(made: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(made)
    words = ["--data", "runs/mask/corpus_text_document", *COMMAND[3:], "--output", str(tmp_path / "out"), "--dry-run"]
    assert main(["mask", *words, "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["verb"] for step in steps] == [verb for verb in VERBS if verb != "preprocess"]
    assert {step["state"] for step in steps} == {"to run"} and not (tmp_path / "out").exists()


def test_what_no_step_draws_with_is_not_asked_for(case: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(case)
    monkeypatch.setattr(job, "installed", lambda name: None if name in ("matplotlib", "kronfluence") else "1")
    assert main([*COMMAND, "--output", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "needs kronfluence, not installed here" in capsys.readouterr().err
