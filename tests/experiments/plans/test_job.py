"""The shipped plans, and a whole experiment of every method: real commands in this process, trainings that are none."""

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

from ifguide.cli import main
from ifguide.config.yaml_files import merge_files
from ifguide.experiments.plans.commands import Commands
from ifguide.experiments.plans.reading import read_plan
from ifguide.experiments.plans.recipes import Recipes
from ifguide.experiments.stages import Stages
from ifguide.objectives.registry import OBJECTIVES
from ifguide.system.children import Children
from ifguide.system.files import read_json, write_jsonl
from tests.experiments.plans.in_process import InProcess

ROOT = Path(__file__).parents[3]
PLANS = ROOT / "configs" / "experiments"
QUICK = PLANS / "quick.yml"
PAIRED = ("dpo", "npo", "rmu", "repo")
# as small as a machine of CI likes it
TINY = ["models.tiny.keys.hidden_size=16", "models.tiny.keys.num_layers=1", "evaluation.samples=2",
        "evaluation.max_new_tokens=3", "scoring.fit.max_tokens=300"]  # fmt: skip


def without(plan: Path) -> list[str]:
    """Methods whose objectives this version does not have, and what builds on them."""
    methods = merge_files([plan])[0]["methods"]
    objectives = {name: ((one or {}).get("train") or {}).get("objective", "lm") for name, one in methods.items()}
    lacking = {name for name, objective in objectives.items() if objective not in OBJECTIVES}
    more = {name for name, one in methods.items() if {(one or {}).get("of"), (one or {}).get("after")} & lacking}
    return sorted(lacking | more)


def places(plan: Path, folder: Path) -> list[str]:
    """``--set`` for every file that the plan leaves to its user."""
    changes = []
    write_jsonl(folder / "rows.jsonl", [{"text": "a", "prompt": "b", "completion": "c"}])
    (folder / "eval").mkdir(exist_ok=True)
    write_jsonl(folder / "eval/lambada.jsonl", [{"text": "a b"}])
    content = merge_files([plan])[0]
    for name, corpus in content["corpora"].items():
        for key, value in corpus.items():
            if key == "heldout":
                changes += [f"corpora.{name}.heldout.{text}={folder / 'rows.jsonl'}" for text in value]
            elif isinstance(value, str) and key != "source" and not (plan.parent / value).exists():
                changes.append(f"corpora.{name}.{key}={folder / 'rows.jsonl'}")
    for name, model in content["models"].items():
        if "load" in model:
            changes.append(f"models.{name}.load={folder / 'eval'}")
        if "file" in (model.get("tokenizer") or {}):
            changes.append(f"models.{name}.tokenizer.file={folder / 'rows.jsonl'}")
    if "file" in (content.get("tokenizer") or {}):
        changes.append(f"tokenizer.file={folder / 'rows.jsonl'}")
    if "lambada" in content.get("evaluation", {}):
        changes.append(f"evaluation.lambada={folder / 'eval'}")
    scorers = [
        spec if spec in ("judge", "lexicon") else "lexicon" for spec in content["evaluation"].get("scorers", ["judge"])
    ]
    return [*changes, f"evaluation.scorers={json.dumps(list(dict.fromkeys(scorers)))}"]


@pytest.mark.parametrize("plan", sorted(PLANS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_shipped_plan_can_be_meant(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["experiment", str(plan), "--output", str(tmp_path / "out"), "--dry-run", "--json"]
    command += ["--set", *places(plan, tmp_path)]
    if lacking := without(plan):
        command += ["--without", *lacking]
    assert main(command) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out)
    assert found["cells"] > 1 and len(found["stages"]) > found["cells"]
    assert all(stage["state"] == "to run" and stage["seconds"] > 0 for stage in found["stages"])
    assert 0 < found["wall_seconds"] <= found["seconds"] + 1 and not (tmp_path / "out").exists()
    assert f"`experiments/{plan.name}`" in (PLANS.parent / "README.md").read_text()
    said = plan.read_text().splitlines()[0:12]
    assert any(f"configs/experiments/{plan.name}" in line for line in said), "its head says how to run it"


def test_a_planned_one_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = PLANS / "pretrain-160m.yml"
    changes = places(plan, tmp_path)
    assert main(["experiment", str(plan), "--output", str(tmp_path / "out"), "--set", *changes]) == 2
    assert "--dry-run shows what it would take" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_options_of_commands_are_checked_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    change = ["methods.influence.mask.max_fractoin=0.1", "methods.words.mask.window=wide"]
    command = ["experiment", str(QUICK), "--output", str(tmp_path / "out"), "--only", "influence", "words"]
    # a second --set adds to the first
    assert main([*command, "--set", change[0], "--set", *change[1:]]) == 2
    told = capsys.readouterr().err
    assert "unrecognized arguments: --max-fractoin" in told and "argument --window: invalid int value" in told
    assert not (tmp_path / "out").exists()


def test_two_methods_share_what_they_have_in_common(tmp_path: Path) -> None:
    plan = read_plan(QUICK, [], ["influence", "drop", "rad"])
    stages = Stages(tmp_path, lambda line: None)
    commands = Commands(tmp_path, stages, Children(), lambda line: None)
    cells = [Recipes(plan, commands).ready(cell) for cell in plan.cells()]
    kinds = [name.partition(" ")[0] for name in commands.tasks]
    # base (of rad), influence and drop are three trainings on one mask; rad judges the base's model
    assert kinds.count("model") == 3 and kinds.count("mask") == kinds.count("scores") == 1
    assert kinds.count("judge") == 4
    by_method = {ready.cell.method: ready for ready in cells}
    assert by_method["rad"].model == by_method["base"].model
    assert by_method["rad"].extra == ("scorer at decoding: classifier",)
    names = list(commands.tasks)
    assert all(
        names.index(need) < names.index(name) for name, task in commands.tasks.items() for need in task.stage.needs
    )


def test_methods_share_their_stages_with_runs_of_other_methods(tmp_path: Path) -> None:
    def tasks(*methods: str) -> set[str]:
        plan = read_plan(QUICK, [], list(methods))
        commands = Commands(tmp_path, Stages(tmp_path, lambda line: None), Children(), lambda line: None)
        for cell in plan.cells():
            Recipes(plan, commands).ready(cell)
        return set(commands.tasks)

    assert tasks("base", "influence") <= tasks("base", "influence", "tags", "dpo")


def test_null_takes_a_key_of_the_model_away(tmp_path: Path) -> None:
    change = "methods.drop.train={penalty_lambda: 0.0, train_epochs: null, train_iters: 3}"
    plan = read_plan(QUICK, [change], ["drop"])
    commands = Commands(tmp_path, Stages(tmp_path, lambda line: None), Children(), lambda line: None)
    ready = Recipes(plan, commands).ready(plan.cells()[0])
    assert ready.model is not None
    keys = commands.tasks[ready.model].stage.settings["keys"]
    assert keys["train_iters"] == 3 and "train_epochs" not in keys and keys["hidden_size"] == 32
    assert ready.trained_tokens == 3 * keys["train_batch_size"] * keys["seq_length"]


def test_methods_of_pairs_begin_with_the_base_and_read_its_pairs(tmp_path: Path) -> None:
    plan = read_plan(QUICK, [], ["dpo"])
    commands = Commands(tmp_path, Stages(tmp_path, lambda line: None), Children(), lambda line: None)
    ready = next(Recipes(plan, commands).ready(cell) for cell in plan.cells() if cell.method == "dpo")
    assert ready.model is not None
    keys = commands.tasks[ready.model].stage.settings["keys"]
    assert "/pairs-" in keys["pairs_data_path"] and keys["finetune"] is True
    assert "/models/base-1-" in keys["load"] and "train_epochs" not in keys
    # the pairs are drawn from the model that is trained further, however long that training is
    assert len([name for name in commands.tasks if name.startswith("model base-")]) == 1
    (said,) = [task for task in commands.tasks.values() if task.kind == "said"]
    assert keys["load"] in commands.verbs[said.stage.name]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, InProcess, dict[str, Any], list[str]]:
    """quick.yml with one method that fails; its folder, what ran, the results and the command."""
    folder = tmp_path_factory.mktemp("experiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        children = InProcess(patch)
        children.broken.add("train words-1")
        command = ["experiment", str(QUICK), "--output", str(folder / "out"), "--set", *TINY, "seeds=[1]"]
        # pairs need models that say something toxic; these say nothing
        command += ["--without", *PAIRED]
        assert main(command) == 1
    return folder / "out", children, read_json(folder / "out/results.json"), command


@pytest.mark.slow
def test_every_method_has_numbers_but_the_one_that_failed(experiment: Any) -> None:
    folder, _, results, _ = experiment
    (failed,) = results["failed"]
    assert failed["cell"] == "words" and failed["seed"] == 1 and failed["stage"].startswith("model words-1")
    assert "broken" in failed["reason"] and not (folder / "run.json").exists()
    assert results["methods"]["words"]["seeds"] == {}
    for name, entry in results["methods"].items():
        if name == "words":
            continue
        numbers = entry["seeds"]["1"]
        for metric in ("emt_toxic", "tp_toxic", "tp_benign", "perplexity", "empty_share", "seconds", "trained_tokens"):
            assert numbers[metric] == entry["mean"][metric], (name, metric)
        assert "tp_toxic@lexicon" in numbers and "tp_toxic@lexicon" in entry["interval"]
        if name != "base":
            assert set(entry["against_base"]["metrics"]) >= {"tp_toxic", "perplexity"}
    assert results["judges"] == ["judge", "lexicon"] and results["kind"] == "ifguide-experiment"
    assert "words" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_trainings_get_what_their_methods_say(experiment: Any) -> None:
    _, children, _, _ = experiment
    keys = {name.rpartition("-1-")[0]: value for name, value in children.keys.items()}
    assert "penalty_data_path" not in keys["base"] and keys["drop"]["penalty_lambda"] == 0.0
    assert keys["influence"]["penalty_form"] == "clipped" and "/mask-" in keys["influence"]["penalty_data_path"]
    assert "/filter-" in keys["document"]["data_path"] and "penalty_data_path" not in keys["document"]
    assert "/tags-" in keys["tags"]["data_path"] and keys["tags"]["penalty_lambda"] == 0.0
    assert keys["influence"]["penalty_data_path"] == keys["drop"]["penalty_data_path"]


@pytest.mark.slow
def test_what_is_finished_is_kept_and_the_failed_one_is_done(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, _, command = experiment
    children = InProcess(monkeypatch)
    assert main(command) == 0
    assert [one.partition("-1-")[0] for one in children.ran] == ["train words", "judge"]
    assert read_json(folder / "results.json")["failed"] == [] and (folder / "run.json").exists()
    children.ran.clear()
    assert main(command) == 0 and children.ran == []


@pytest.mark.slow
def test_another_plan_is_refused_and_then_keeps_what_it_shares(
    experiment: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, _, command = experiment
    children = InProcess(monkeypatch)
    main(command)
    children.ran.clear()
    # tags stay: without them the tokenizer has no such tokens, and all that follows is another
    changed = [*command, "--only", "base", "influence", "tags"]
    assert main(changed) == 2 and "--only was" in capsys.readouterr().err
    assert main([*changed, "--overwrite"]) == 0 and children.ran == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as a scheduler does")
def test_killed_in_the_middle_and_resumed(tmp_path: Path) -> None:
    """Real processes: killed while the base model trains."""
    command = ["experiment", str(QUICK), "--output", str(tmp_path / "out"), "--only", "base", "--set", *TINY]
    started = [sys.executable, "-m", "ifguide.cli", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log = tmp_path / "killed.log"
    with (
        open(log, "w") as stream,
        subprocess.Popen(started, stdout=stream, stderr=stream, env=environment, cwd=tmp_path) as process,
    ):
        deadline = time.monotonic() + 280
        while "model base-1" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = read_json(tmp_path / "out/stages.json")
    assert before and not any(name.startswith(("model", "judge")) for name in before)
    assert not (tmp_path / "out/results.json").exists()
    again = subprocess.run(started, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280)
    assert again.returncode == 0, again.stdout + again.stderr
    assert all(f"{name}: kept" in again.stdout for name in before)
    results = read_json(tmp_path / "out/results.json")
    assert results["stages"]["kept"] == len(before) and results["methods"]["base"]["seeds"]["1"]["perplexity"] > 1
    assert {name: one["key"] for name, one in read_json(tmp_path / "out/stages.json").items() if name in before} == {
        name: one["key"] for name, one in before.items()
    }
