"""`benchmarks/gpu.sh` is rehearsed from end to end on a CPU, and the hours that it says are those of its numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import gpu  # noqa: E402
import gpu_hours  # noqa: E402
from gpu_case import Rows  # noqa: E402

EXACT = {"jvp, fp32", "difference, fp32"}
WAYS = {*EXACT, "jvp, bf16", "jvp, TF32", "difference, TF32", "position, bf16", "position, TF32"}


def rehearse(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "benchmarks/gpu.sh"), "--shape", "tiny", "--device", "cpu", "--output", str(output)]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment.pop("GPT_NEOX_PATH", None)
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_everything_is_rehearsed(tmp_path: Path) -> None:
    """But the embedded engine, whose start on a CPU takes longer than all the rest: the next test has it."""
    sections = [name for name in gpu.SECTIONS if name != "engine"]
    done = rehearse(tmp_path / "gpu.json", "--together", "--sections", *sections)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert list(result["sections"]) == sections
    assert not {name: part["error"] for name, part in result["sections"].items() if "error" in part}
    rows = {name: part["rows"] for name, part in result["sections"].items()}
    assert rows["correctness"].keys() == {*WAYS, "position, fp32"}
    assert {way for way, row in rows["correctness"].items() if row["passed"]} == {*EXACT, "position, fp32"}
    assert rows["correctness"]["jvp, fp32"]["largest_difference"] == 0, "the very same numbers on the same device"
    for name in ("rates-160m", "rates-410m", "rates-1b", "rates-2.8b"):
        assert rows[name].keys() == WAYS
        for row in rows[name].values():
            assert row["tokens_per_second"] > 0 and row["share_of_matmul"] > 0 and row["planned_bytes"] > 1e5
            assert row["peak_bytes"] is None, "torch counts no bytes on a CPU"
    fits = {name: row for name, row in rows["commands"].items() if name.startswith("fit-factors")}
    assert len(fits) == 4 and all(row["seconds"] > 0 for row in fits.values())
    assert rows["commands"]["score, jvp, bf16"]["tokens"] == 512
    assert rows["training"]["penalised_to_stock"] > 0
    assert rows["generation"]["float32"]["continuations_per_second"] > 0
    assert rows["classifiers"]["detoxify original"]["texts_per_second"] > 0
    if "left_out" not in rows["others"].get("kronfluence", {}):
        assert rows["others"]["agreement"]["kronfluence with position"]["largest_difference"] < 1e-5
        assert {"jvp", "kronfluence"} <= rows["others"]["tokens_per_second"].keys()
    assert rows["neox"] == {"neox": {"left_out": "no checkout was given (--neox)"}}
    assert "measured" not in result["hours"], "hours are not those of a tiny model"
    assert {"versions", "machine", "revision", "command", "hardware", "seconds"} <= result.keys()
    assert "| rates-160m |" in done.stderr and "| in all, jvp, bf16 |" in done.stderr


@pytest.mark.slow
def test_the_engine_is_started_as_a_user_would(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    pytest.importorskip("megatron.core")
    done = rehearse(tmp_path / "gpu.json", "--together", "--sections", "engine")
    assert done.returncode == 0, done.stderr
    part = json.loads((tmp_path / "gpu.json").read_text())["sections"]["engine"]
    assert "error" not in part and part["rows"]["penalised_to_stock"] > 0, part


@pytest.mark.slow
def test_a_section_is_a_process_of_its_own(tmp_path: Path) -> None:
    done = rehearse(tmp_path / "gpu.json", "--sections", "rates-2.8b")
    assert done.returncode == 0, done.stderr
    part = json.loads((tmp_path / "gpu.json").read_text())["sections"]["rates-2.8b"]
    assert "error" not in part and part["rows"].keys() == WAYS, part


def test_what_has_no_time_left_is_left_out(tmp_path: Path) -> None:
    """And the process that starts the others never has torch, which would take memory of the GPU beside them."""
    code = "import sys, gpu; sys.exit(gpu.main(sys.argv[1:]) or 'torch' in sys.modules)"
    options = ["--device", "cpu", "--shape", "tiny", "--minutes", "0.1", "--output", str(tmp_path / "o")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    subprocess.run([sys.executable, "-c", code, *options], check=True, capture_output=True, env=environment)
    result = json.loads((tmp_path / "o").read_text())
    assert result["hardware"]["device"] == "cpu" and result["hours"]["floor"]["passes"]
    parts = result["sections"]
    assert parts == {name: {"left_out": "0.1 minutes were over"} for name in gpu.SECTIONS}


def test_a_section_that_fails_costs_its_own_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def function_of(name: str) -> Any:
        def section(case: Any, rows: Rows) -> None:
            rows.put("jvp, fp32", {"passed": name == "training"})
            if name == "generation":
                raise ValueError("nothing to say")

        return section

    monkeypatch.setattr(gpu, "function_of", function_of)
    common = ["--device", "cpu", "--shape", "tiny", "--together", "--output", str(tmp_path / "o"), "--sections"]
    assert gpu.main([*common, "generation", "training"]) == 0
    parts = json.loads((tmp_path / "o").read_text())["sections"]
    assert parts["generation"]["rows"] == {"jvp, fp32": {"passed": False}}
    assert "nothing to say" in parts["generation"]["error"] and "error" not in parts["training"]
    assert gpu.main([*common, "correctness"]) == 1, "what differs from the CPU is a failure of the run"


def test_wheels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    done = rehearse(tmp_path / "o", "--wheels", str(tmp_path / "nowhere"))
    assert done.returncode == 2 and "is no folder" in done.stderr and not (tmp_path / "o").exists()


RATES = {"jvp, bf16": {"tokens_per_second": 1e6}, "jvp, fp32": {"left_out": "the section's time was over"}}
COMMANDS = {
    "fit-factors, ekfac, 100 tokens": {"tokens": 100, "seconds": 40.0},
    "fit-factors, ekfac, 200 tokens": {"tokens": 200, "seconds": 50.0},
    "fit-factors, diagonal, 200 tokens": {"tokens": 200, "seconds": 7.0},
    "score, jvp, bf16": {"tokens": 1000, "seconds": 30.0, "tokens_per_second": 100.0},
}


def test_hours_from_rates() -> None:
    """Two samples are a line: 30 s once and 0.1 s a token."""
    job = gpu_hours.Job(tokens=3_600_000_000, overlap=0.5, fit_tokens=700)
    found = gpu_hours.from_rates(job, RATES, COMMANDS)
    assert found is not None and found["passes"] == {"jvp, bf16": 1.5}
    assert found["stages"] == {
        "fit-factors": pytest.approx(100 / 3600, abs=1e-5),
        "score: start and direction": pytest.approx(20 / 3600, abs=1e-5),
    }
    assert found["total"]["jvp, bf16"] == pytest.approx(1.5 + 120 / 3600, abs=2e-5)
    assert gpu_hours.from_rates(job, {"jvp, fp32": RATES["jvp, fp32"]}, COMMANDS) is None
    text = gpu_hours.table({"measured": found, "floor": found, "published": 7.5})
    assert "| score: pass, jvp, bf16 | 1.5 | 1.5 |" in text and text.endswith("| published | 7.5 | 7.5 |")


def test_the_floor_is_operations_over_peaks() -> None:
    """jvp of Pythia-160M by hand: three products with every weight, attention three times, the head twice."""
    job = gpu_hours.Job(overlap=0.0)
    found = gpu_hours.from_floor(job)
    weights = 12 * 12 * 768 * 768
    biases = 12 * (3 + 1 + 4 + 1) * 768
    body = 3 * 2 * weights + 2 * biases + 3 * 4 * 12 * 768 * 2048
    head = 4 * 768 * 50304
    expected = 1e9 * (body + head) / 67e12 / 3600
    assert found["passes"]["jvp, fp32"] == pytest.approx(expected, rel=1e-3)
    assert found["passes"]["jvp, bf16"] == pytest.approx(1e9 * (body / 989e12 + head / 67e12) / 3600, rel=1e-3)
    assert found["total"]["jvp, fp32"] == pytest.approx(sum(found["stages"].values()) + expected, rel=1e-3)
    assert gpu_hours.from_floor(gpu_hours.Job(tokens=2 * 10**9, overlap=0.0))["passes"]["jvp, fp32"] == pytest.approx(
        2 * expected, rel=1e-3
    )
    assert "nothing was measured" in found["source"]
