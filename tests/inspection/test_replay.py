"""The commands again, elsewhere: the same bytes, and what stands in the way of that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ifguide import cli
from ifguide.inspection.lineage import trace
from ifguide.inspection.replay import Commands, plan, script
from ifguide.verbs import VERBS, make_parser, named_of
from ifguide.verbs.run import run_verb
from tests.inspection.conftest import Pipeline, build_pipeline, run

COMMANDS = Commands(named_of, make_parser, run_verb)
PRODUCTS = {
    "1-preprocess": ["corpus_text_document.bin", "corpus_text_document.idx"],
    "2-fit-factors": ["factors/factors.safetensors"],
    "3-score": ["scores.bin", "scores.idx", "scores.direction.safetensors"],
    "4-build-mask": ["mask.bin", "mask.idx"],
}


def assert_same_products(first: Path, again: Path, steps: Sequence[str] = tuple(PRODUCTS)) -> None:
    for step in steps:
        for name in PRODUCTS[step]:
            assert (again / step / name).read_bytes() == (first / name).read_bytes(), name


def test_the_round_trip_gives_the_same_bytes(pipeline: Pipeline, tmp_path: Path, capfd, monkeypatch) -> None:
    """Told by the mask alone, from another folder."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["provenance", pipeline.mask, "--run", "--output", "again", "--json"]) == 0
    assert_same_products(pipeline.folder, tmp_path / "again")
    result = json.loads(capfd.readouterr().out)
    assert result["identical"] and len(result["products"]) == 4
    again = trace(tmp_path / "again/4-build-mask/mask")
    assert {node.status for node in again.walk()} == {"unchanged"}
    assert not [node.path for node in again.walk() if node.path == pipeline.scores], "it depends on the first no more"


def test_the_script_is_the_same_commands(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    """Of the tokens alone: a process of its own for each step takes a while."""
    assert cli.main(["provenance", pipeline.data, "--replay", "--output", str(tmp_path / "with space")]) == 0
    text = capsys.readouterr().out
    folder = tmp_path / "bin"
    folder.mkdir()
    # the command as installed, by this interpreter
    (folder / "ifguide").write_text(f'#!/bin/sh\nexec {sys.executable} -m ifguide.cli "$@"\n')
    (folder / "ifguide").chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-s"], input=text, text=True, check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert_same_products(pipeline.folder, tmp_path / "with space", ["1-preprocess"])


def test_only_what_was_made_is_made_again(pipeline: Pipeline, tmp_path: Path) -> None:
    verbs = [step.command[1] for step in plan(trace(pipeline.factors), tmp_path / "out", COMMANDS)]
    assert verbs == ["preprocess", "fit-factors"]
    (command,) = [step.command for step in plan(trace(pipeline.data), tmp_path / "out", COMMANDS)]
    assert command == [
        "ifguide", "preprocess", "--input", str(pipeline.folder / "corpus.jsonl"),
        "--output-prefix", str(tmp_path / "out/1-preprocess/corpus"),
        "--tokenizer-type", "CharLevelTokenizer", "--append-eod",
    ]  # fmt: skip


def test_a_changed_input_stops_a_run_and_is_named_in_the_script(tmp_path: Path, capsys) -> None:
    source = tmp_path / "text.jsonl"
    source.write_text('{"text": "one"}\n')
    run("preprocess", "--input", source, "--tokenizer-type", "CharLevelTokenizer", "--output-prefix", tmp_path / "p")
    source.write_text('{"text": "two"}\n')
    node = trace(tmp_path / "p_text_document")
    output = tmp_path / "again"
    assert f"# beware: text {source}: changed" in script(node, plan(node, output, COMMANDS), output)
    capsys.readouterr()
    assert cli.main(["provenance", node.path or "", "--run", "--output", str(output)]) == 2
    assert capsys.readouterr().err.startswith(f"ifguide provenance: text {source}: changed")
    assert not output.exists()


def test_other_bytes_are_reported(tmp_path: Path, capsys) -> None:
    """A record that does not belong to the file: the replay gives what the command says, and says that it differs."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
        run("preprocess", "--input", tmp_path / f"{name}.jsonl", "--tokenizer-type", "CharLevelTokenizer",
            "--output-prefix", tmp_path / name)  # fmt: skip
    one, two = (tmp_path / f"{name}_text_document.json" for name in ("one", "two"))
    value = json.loads(one.read_text())
    value["fingerprint"] = json.loads(two.read_text())["fingerprint"]
    one.write_text(json.dumps(value))
    capsys.readouterr()
    assert cli.main(["provenance", str(one), "--run", "--output", str(tmp_path / "again")]) == 2
    assert f"differs from {tmp_path}/one_text_document" in capsys.readouterr().err


def test_refusals(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    assert cli.main(["provenance", pipeline.mask, "--run", "--output", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["provenance", str(pipeline.folder / "model"), "--replay"]) == 2
    assert "nothing to replay" in capsys.readouterr().err


def test_several_outputs_and_categories(pipeline: Pipeline, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(pipeline.folder)
    (tmp_path / "b").mkdir()
    run("build-mask", "--category", "x", "0.1", "scores", "--category", "y", "0.2", "scores",
        "--output", tmp_path / "b/mask", "--window", "0")  # fmt: skip
    steps = plan(trace(tmp_path / "b/mask"), tmp_path / "out", COMMANDS)
    new_scores = str(tmp_path / "out/3-score/scores")
    assert steps[-1].command == [
        "ifguide", "build-mask", "--category", "x", "0.1", new_scores, "--category", "y", "0.2", new_scores,
        "--output", str(tmp_path / "out/4-build-mask/mask"), "--window", "0",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", sorted(filter(named_of, VERBS)))
def test_every_path_option_is_known(verb: str) -> None:
    """An option that names a file without saying so would still point at the first run's file."""
    names = named_of(verb)
    assert names is not None
    paths = {*names.inputs, *names.outputs}
    known = {action.dest: action for action in make_parser(verb)._actions}
    assert paths <= set(known) and set(names.words) <= paths
    of_paths = {"FILE", "DIR", "PREFIX", "P", "S", "M"}
    assert {dest for dest, action in known.items() if action.metavar in of_paths} - {"log"} <= paths


def test_a_source_that_was_made_again_is_refused_before_anything_runs(tmp_path: Path, capsys, monkeypatch) -> None:
    """The command with the scores is not the one that the mask's scores came from: hours later all would differ."""
    pipeline = build_pipeline(tmp_path)
    monkeypatch.chdir(tmp_path)
    run("score", "--model", "model", "--data", "corpus_text_document", "--factors", "factors", "--toxic-queries",
        "toxic.jsonl", "--safe-queries", "safe.jsonl", "--output", "scores", "--damping", "0.7",
        "--overwrite")  # fmt: skip
    capsys.readouterr()
    assert cli.main(["provenance", pipeline.mask, "--run", "--output", "again"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"scores {pipeline.scores}: made again since" in line and "content hash" in line
    assert not (tmp_path / "again").exists()
    assert cli.main(["provenance", pipeline.mask, "--replay", "--output", "again"]) == 0
    assert "# beware: scores" in capsys.readouterr().out
