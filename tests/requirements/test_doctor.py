"""`ifguide doctor`: what it finds, and that it works where little else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide import cli
from ifguide.requirements import doctor, machine
from ifguide.requirements.needs import NEEDS
from ifguide.requirements.ranges import dependencies
from ifguide.requirements.show import text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Package -> version: a healthy environment without starting a process; a test changes it as it likes."""
    versions: dict[str, str | None] = {
        row["name"]: row["locked"] for row in doctor._dependencies(())
    }  # fmt: skip
    monkeypatch.setattr(doctor, "installed", versions.get)
    monkeypatch.setattr(doctor, "_indirect", lambda: [])
    monkeypatch.setattr(doctor, "_private_parts", lambda: [])
    healthy = {"version": "2.13.0", "cuda": None, "hip": None, "devices": [], "threads": 1}
    monkeypatch.setattr(machine, "torch_build", lambda: healthy)
    monkeypatch.setattr(machine, "LEAST_FREE", 0)
    return versions


def test_a_healthy_environment_has_no_fault(environment, capsys) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("nothing is wrong here\n")
    assert all(f"  {verb}\n" in shown for verb in NEEDS)
    assert "outside" not in shown and "not installed" not in shown


def test_one_dependency_outside_its_range_is_named_with_the_verbs(environment, capsys) -> None:
    environment["lm_eval"] = "0.4.20"
    assert cli.main(["doctor"]) == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fault: ")]
    assert len(faults) == 1
    assert faults[0].startswith("fault: lm_eval 0.4.20 is outside the tested range")
    assert "evaluate may fail" in faults[0] and "pip install 'lm_eval==" in faults[0]


def test_a_base_verb_is_not_in_doubt_for_what_only_its_options_use(environment, capsys) -> None:
    environment["tokenizers"] = "0.22.1"
    assert cli.main(["doctor", "--json"]) == 1
    states = {row["verb"]: row for row in json.loads(capsys.readouterr().out)["verbs"]}
    assert states["verify"]["state"] == "works" and states["verify"]["doubtful"] == ["tokenizers"]
    assert states["quickstart"]["state"] == "untested"


def test_verbs_that_do_not_work_say_why(environment, capsys) -> None:
    environment["kronfluence"] = None
    environment["sentencepiece"] = None
    assert cli.main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    states = {row["verb"]: row for row in found["verbs"]}
    assert states["fit-factors"]["state"] == states["quickstart"]["state"] == "fails"
    assert states["fit-factors"]["why"] == ["kronfluence is not installed"]
    assert states["preprocess"]["state"] == "works" and states["preprocess"]["without"] == ["sentencepiece"]
    assert states["fetch-eval-data"] == {
        "verb": "fetch-eval-data", "state": "works", "why": [], "without": [], "doubtful": []
    }  # fmt: skip
    assert len(found["faults"]) == 2 and all("\n" not in fault for fault in found["faults"])
    assert "kronfluence is not installed: mask, fit-factors, quickstart will not work" in "".join(found["faults"])


def test_only_what_the_named_verbs_need_is_judged(environment, capsys) -> None:
    environment.update(dict.fromkeys((name for name in environment if name not in ("numpy", "PyYAML")), None))
    assert cli.main(["doctor", "--verb", "merge-masks", "verify"]) == 0
    shown = capsys.readouterr().out
    assert "verify             without tokenizers, sentencepiece" in shown and "torch" not in shown
    assert cli.main(["doctor", "--verb", "verify", "plan"]) == 1
    shown = capsys.readouterr().out
    assert "plan               torch, transformers, safetensors are not installed" in shown
    assert sum(line.startswith("fault: ") for line in shown.splitlines()) == 3


def test_an_unknown_verb_is_refused(environment, capsys) -> None:
    assert cli.main(["doctor", "--verb", "biuld-mask"]) == 2
    assert "biuld-mask: there is no such verb" in capsys.readouterr().err


def test_a_torch_that_cannot_be_imported_is_a_fault(environment, monkeypatch, capsys) -> None:
    monkeypatch.setattr(machine, "torch_build", lambda: {"error": "OSError: libcudart.so.13: cannot open"})
    assert cli.main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [fault for fault in found["faults"] if "libcudart" in fault]
    assert {row["verb"]: row["state"] for row in found["verbs"]}["score"] == "fails"
    assert found["private_parts"] is None
    text(found)


def test_findings_of_the_registry_and_of_a_checkout_are_faults(environment, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(doctor, "_private_parts", lambda: ["transformers: no such class"])
    assert cli.main(["doctor", "--neox", str(tmp_path)]) == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fault: ")]
    assert faults[0] == "fault: transformers: no such class"
    assert faults[1].startswith("fault: GPT-NeoX: ") and "is not a GPT-NeoX checkout" in faults[1]


def test_a_full_or_closed_disk_is_a_fault(environment, monkeypatch) -> None:
    monkeypatch.setattr(machine, "LEAST_FREE", 2**80)
    found = doctor.examine(["doctor"])
    assert len(found["faults"]) == 3 and all("GiB free" in fault for fault in found["faults"])


def test_torch_answers_in_a_process_of_its_own() -> None:
    pytest.importorskip("torch")
    answer = machine.torch_build()
    assert "error" not in answer and answer["threads"] >= 1
    assert machine.torch_build(seconds=0.001) == {"error": "importing torch takes longer than 0 s"}


def test_other_lines_before_the_json_do_no_harm() -> None:
    assert doctor._ask([sys.executable, "-c", "print('[INFO] loading'); print('[1]')"], "it") == [1]
    said = doctor._ask([sys.executable, "-c", "import sys; sys.exit('broken')"], "it")
    assert said == ["it failed: broken"]


def test_help_stays_fast_and_the_doctor_imports_nothing_heavy() -> None:
    """Time belongs to benchmarks; what costs it is imports."""
    code = "import sys; from ifguide.cli import main; main({}); print([m for m in {} if m in sys.modules])"
    heavy = ["numpy", "yaml", "torch", "importlib.metadata", "ifguide.requirements.needs"]
    for arguments, allowed in (([], ["importlib.metadata"]), (["doctor", "--verb", "doctor"], heavy[3:])):
        command = [sys.executable, "-c", code.format(arguments, heavy)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout.splitlines()[-1].replace("'", '"'))) <= set(allowed)


def test_the_ranges_say_why_they_end_where_something_non_public_is_used() -> None:
    for name in ("torch", "transformers", "deepspeed", "megatron-core", "kronfluence", "lm_eval"):
        assert dependencies()[name].why
