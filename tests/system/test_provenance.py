"""The command that a record names, however it was started."""

import json
import subprocess
import sys
import time
from pathlib import Path

from ifguide import cli
from ifguide.system.files import hash_file
from ifguide.system.provenance import command, file_record, origin, running, write_run_record

TOOL = Path(__file__).parents[2] / "tools/preprocess.py"


def test_a_library_call_has_no_command(tmp_path, monkeypatch):
    assert command() == []
    monkeypatch.chdir(tmp_path)
    assert origin() == {"command": [], "folder": str(tmp_path)}
    write_run_record(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["command"] == sys.argv


def test_the_command_holds_inside_the_block_only():
    with running(["ifguide", "a"]):
        with running(["ifguide", "b"]):
            assert command() == ["ifguide", "b"]
        assert command() == ["ifguide", "a"]
        command().append("spoiled")
        assert command() == ["ifguide", "a"]
    assert command() == []


def test_verbs_and_tools_record_the_same_command(tmp_path, monkeypatch):
    (tmp_path / "text.jsonl").write_text('{"text": "one"}\n')
    words = ["--input", "text.jsonl", "--tokenizer-type", "CharLevelTokenizer", "--output-prefix"]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["preprocess", *words, "by_verb"]) == 0
    subprocess.run([sys.executable, TOOL, *words, "by_tool"], check=True, capture_output=True)
    for name in ("by_verb", "by_tool"):
        record = json.loads((tmp_path / f"{name}_text_document.json").read_text())
        assert record["command"] == ["ifguide", "preprocess", *words, name]
        assert record["folder"] == str(tmp_path)


def test_a_file_is_recorded_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("abc")
    assert file_record("a.txt") == {"path": str(tmp_path / "a.txt"), "bytes": 3, "hash": hash_file("a.txt")}


def test_started_is_the_start(tmp_path):
    with running(["ifguide", "a"]):
        begun = time.time()
        time.sleep(1.1)
        for name, began in (("command", None), ("given", begun - 3600)):
            (tmp_path / name).mkdir()
            write_run_record(tmp_path / name, began)
    written = {name: json.loads((tmp_path / name / "run.json").read_text())["started"] for name in ("command", "given")}
    assert written["command"] in {time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun - back)) for back in (0, 0.1)}
    assert written["given"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun - 3600))
