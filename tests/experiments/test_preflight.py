"""A toy of a job's stages: a failure is told in one line and never remembered, a success until something changes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ifguide.errors import InputError
from ifguide.experiments import preflight as module
from ifguide.experiments.preflight import PreflightError, is_remembered, preflight, preflight_apart
from ifguide.experiments.stages import Stage, Stages

SETTINGS = {"scorer": None}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where successes are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Toy:
    """Two stages, the second of which may fail; remembers the folder that it ran in."""

    def __init__(self, error: Exception | None = None, together: bool = False):
        self.error, self.together = error, together

    def __call__(self, stages: Stages) -> None:
        self.folder = stages.folder

        def second() -> None:
            (stages.folder / "half").write_text("written")
            if self.error:
                raise self.error

        both = [Stage("first", lambda: None, {}), Stage("second", second, {}, outputs=["half"])]
        if self.together:
            stages.run_together(both)
        else:
            for stage in both:
                stages.run(stage)


def told(toy: Callable[[Stages], Any]) -> str:
    """What `preflight` says about a toy that fails."""
    with pytest.raises(PreflightError) as raised:
        preflight("job", toy, SETTINGS, lambda line: None)
    return str(raised.value)


@pytest.mark.parametrize("together", [False, True])
def test_a_failure_names_its_stage_and_the_reason_in_one_line(cache: Path, together: bool) -> None:
    toy = Toy(AttributeError("'DynamicLayer' object has no\n  attribute 'dtype'"), together)
    line = told(toy)
    assert line.startswith(
        "stage 'second' cannot work in this environment: AttributeError: 'DynamicLayer' object has no attribute 'dtype'"
    )
    assert "\n" not in line and not toy.folder.exists()
    details = Path(line.split("(details: ")[1].rstrip(")"))
    assert "Traceback" in details.read_text() and "in second" in details.read_text()


def test_a_failure_of_ours_is_told_as_it_is() -> None:
    assert "environment: training 'base' failed (exit 1)" in told(Toy(InputError("training 'base' failed (exit 1)")))


def test_logs_outlive_the_toys_folder() -> None:
    def toy(stages: Stages) -> None:
        def train() -> None:
            log = stages.folder / "logs/base.log"
            log.parent.mkdir()
            log.write_text("gloo: no interface")
            raise InputError(f"training failed (log {log})")

        stages.run(Stage("model base", train, {}))

    line = told(toy)
    assert "training failed (log logs/base.log)" in line
    assert "base.log:\ngloo: no interface" in Path(line.split("(details: ")[1].rstrip(")")).read_text()


def test_a_missing_package_comes_with_the_way_to_install_it() -> None:
    line = told(Toy(ModuleNotFoundError("No module named 'sklearn'", name="sklearn")))
    assert "the package 'sklearn' is missing; install it with: pip install 'gpt-neox-ifguide[" in line


def test_a_failure_between_stages_is_no_stage() -> None:
    def toy(stages: Stages) -> None:
        stages.run(Stage("first", lambda: None, {}))
        raise RuntimeError("no")

    assert told(toy).startswith("what follows the last stage cannot work in this environment: RuntimeError: no")


def test_a_failure_is_not_remembered() -> None:
    told(Toy(RuntimeError("no")))
    assert not is_remembered("job", SETTINGS)


def test_a_success_is_remembered_for_its_job_and_settings() -> None:
    toy = Toy()
    result = preflight("job", toy, SETTINGS, lambda line: None)
    assert set(result["stages"]) == {"first", "second"} and not toy.folder.exists()
    assert is_remembered("job", SETTINGS)
    assert not is_remembered("other", SETTINGS) and not is_remembered("job", {"scorer": "hf:judge"})


def other_versions(patch: pytest.MonkeyPatch, copy: Path) -> None:
    patch.setattr(module, "installed_versions", lambda: ["transformers==5.24.0"])


def other_python(patch: pytest.MonkeyPatch, copy: Path) -> None:
    patch.setattr(module.platform, "python_version", lambda: "3.99.0")


def other_device(patch: pytest.MonkeyPatch, copy: Path) -> None:
    patch.setenv("CUDA_VISIBLE_DEVICES", "7")


def other_source(patch: pytest.MonkeyPatch, copy: Path) -> None:
    with open(copy / "experiments/judging.py", "a") as stream:
        stream.write("# edited\n")


@pytest.mark.parametrize("change", [other_versions, other_python, other_device, other_source])
def test_a_change_runs_it_again(change: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy/ifguide"
    shutil.copytree(module._PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_PACKAGE", copy)
    preflight("job", Toy(), SETTINGS, lambda line: None)
    assert is_remembered("job", SETTINGS)
    change(monkeypatch, copy)
    assert not is_remembered("job", SETTINGS)


@pytest.mark.parametrize("folder, seen", [("site-packages", True), ("setuptools/_vendor", False)])
def test_what_setuptools_carries_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, seen: bool
) -> None:
    record = tmp_path / folder / "carried-1.2.dist-info/METADATA"
    record.parent.mkdir(parents=True)
    record.write_text("Metadata-Version: 2.1\nName: carried\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(tmp_path / folder))
    assert ("carried==1.2" in module.installed_versions()) == seen


def test_records_of_old_environments_go(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)
    for number in range(4):
        preflight("job", Toy(), {"number": number}, lambda line: None)
    assert len(list(cache.rglob("preflight/*.json"))) == 2
    assert is_remembered("job", {"number": 3})


def test_without_a_cache_folder_it_runs_every_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert preflight("job", Toy(), SETTINGS, lambda line: None)["stages"]
    assert not is_remembered("job", SETTINGS)
    assert "(details" not in told(Toy(RuntimeError("no")))


def test_apart_passes_on_what_the_process_says() -> None:
    lines: list[str] = []
    assert preflight_apart("job", ["--version"], SETTINGS, lines.append)
    assert any(line.startswith("  ifguide ") for line in lines)


def test_apart_starts_nothing_when_it_is_remembered() -> None:
    preflight("job", Toy(), SETTINGS, lambda line: None)
    assert not preflight_apart("job", ["no-such-verb"], SETTINGS, pytest.fail)


def test_apart_says_how_a_process_ended_that_said_nothing_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PreflightError, match="ended with exit 2: ifguide: unknown verb 'no-such-verb'"):
        preflight_apart("job", ["no-such-verb"], SETTINGS, lambda line: None)
    monkeypatch.setattr(module, "_COMMAND", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(PreflightError, match=r"ended with signal 9$"):
        preflight_apart("job", ["no-such-verb"], SETTINGS, lambda line: None)
