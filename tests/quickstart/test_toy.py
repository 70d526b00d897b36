"""The quickstart's own preflight: its stages for real, in processes of their own."""

from pathlib import Path

import pytest

from ifguide.cli import main
from ifguide.quickstart.settings import QuickstartSettings
from ifguide.quickstart.toy import check_apart
from ifguide.system.files import read_json

BROKEN = "raise RuntimeError('this build of tokenizers is broken')\n"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and a folder that processes started from here import from first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "packages").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    return tmp_path


def test_a_stage_that_cannot_work_stops_the_quickstart(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (environment / "packages/tokenizers.py").write_text(BROKEN)
    output = environment / "out"
    for _ in range(2):  # a failure is found again
        assert main(["quickstart", "--output", str(output)]) == 2
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        assert line.startswith(
            "ifguide quickstart: stage 'tokenizer' cannot work in this environment: "
            "RuntimeError: this build of tokenizers is broken"
        )
        assert "  corpus: " in said.out and not output.exists()


def test_the_preflight_can_be_skipped(environment: Path) -> None:
    (environment / "packages/tokenizers.py").write_text(BROKEN)
    for name in ("text", "toxic", "safe"):
        (environment / f"{name}.jsonl").write_text("")
    command = ["quickstart", "--skip-preflight", "--output", str(environment / "out")]
    command += ["--input", str(environment / "text.jsonl")]
    command += [f"--{name}-queries={environment / name}.jsonl" for name in ("toxic", "safe")]
    assert main(command) == 2
    assert not (environment / "cache/gpt-neox-ifguide/preflight").exists()


@pytest.mark.slow
def test_every_stage_passes_once(environment: Path) -> None:
    settings = QuickstartSettings(environment / "out")
    lines: list[str] = []
    assert check_apart(settings, lines.append)
    (record,) = (environment / "cache/gpt-neox-ifguide/preflight").glob("*.json")
    stages = ["corpus", "tokenizer", "dataset", "judge", "model base", "factors", "scores", "masks"]
    stages += ["model guided", "model control", "evaluation", "report"]
    assert sorted(read_json(record)["stages"]) == sorted(stages)
    assert any(" iterations of 4 x 256 tokens" in line for line in lines)
    assert not check_apart(settings, pytest.fail)
    assert not settings.output.exists()
