"""What can be known of docker/ without docker: its files fit together, and its smoke run runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ifguide.engine.settings import load_config

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
INSTALLED = "/opt/gpt-neox-ifguide"

_WITHOUT = """
import sys
for name in ("torch", "transformers", "deepspeed", "megatron", "tokenizers", "kronfluence"):
    sys.modules[name] = None
import runpy
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continuation lines joined."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


@pytest.fixture(scope="module")
def smoke() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))["services"]["smoke"]


@pytest.fixture(scope="module")
def image(instructions: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the image's COPY instructions make."""
    folder = tmp_path_factory.mktemp("image")
    for name, arguments in instructions:
        if name == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                _copy(ROOT / source, folder / target.removeprefix(INSTALLED).lstrip("/"), into=target.endswith("/"))
    return folder


def test_compose_builds_this_dockerfile_with_arguments_that_it_has(
    smoke: dict[str, Any], instructions: list[tuple[str, str]]
) -> None:
    context = (DOCKER / smoke["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / smoke["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
    known = {arguments.split("=")[0] for name, arguments in instructions if name == "ARG"}
    assert set(smoke["build"]["args"]) <= known


def test_the_builds_install_command_installs_everything(
    instructions: list[tuple[str, str]], image: Path, tmp_path: Path
) -> None:
    """Run as the Dockerfile has it, into a folder; the image's own packages, and no index, are all that it has."""
    steps = [step for name, arguments in instructions if name == "RUN" for step in arguments.split("&&")]
    (install,) = [step.split() for step in steps if "pip install" in step]
    source = tmp_path / "source"  # pip leaves a folder build there
    shutil.copytree(image, source)
    words = [str(source) if word == INSTALLED else word for word in install[1:]]
    target = tmp_path / "installed"
    result = subprocess.run(
        [sys.executable, *words, "--no-index", "--target", str(target)], capture_output=True, text=True, cwd=tmp_path
    )
    if "invalid command 'bdist_wheel'" in result.stderr:
        pytest.skip("this environment cannot build a wheel")
    assert result.returncode == 0, result.stderr[-2000:]
    # its pins are left alone: no package but ours
    assert {path.name for path in target.iterdir()} <= {"ifguide", "ifguide_patch", "bin", *_metadata(target)}
    for package in ("ifguide", "ifguide_patch"):
        assert _files(target / package) == _files(image / package), "the package leaves files out"
    asked = subprocess.run(
        [sys.executable, "-m", "ifguide_patch.check", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(target)},
    )  # fmt: skip
    assert asked.returncode == 2 and "is not a GPT-NeoX checkout" in asked.stderr


def test_the_smoke_run_starts_a_file_of_the_image(smoke: dict[str, Any], image: Path) -> None:
    assert (image / smoke["command"][-1].removeprefix(f"{INSTALLED}/")).is_file()


def test_data_of_the_smoke_run_needs_numpy_alone(image: Path, tmp_path: Path) -> None:
    script = image / "docker/smoke/make_data.py"
    subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(script)], cwd=tmp_path, check=True,
        env={**os.environ, "PYTHONPATH": str(image)},
    )  # fmt: skip
    assert (tmp_path / "smoke_text_document.idx").is_file() and (tmp_path / "smoke_mask.json").is_file()


def test_configuration_of_the_smoke_run_is_valid() -> None:
    load_config([DOCKER / "smoke/smoke.yml"], check_files=False)


def test_smoke_run_learns_the_letters_and_unlearns_the_masked_one(
    neox: Path, smoke: dict[str, Any], image: Path, tmp_path: Path
) -> None:
    command = [word.replace(INSTALLED, str(image)) for word in smoke["command"]]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"GPT_NEOX_PATH": str(neox), "PYTHONPATH": str(image), "PATH": path, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    clean, penalised = (
        [float(value) for value in re.findall(rf"\| {key}: (\S+) \|", result.stdout)]
        for key in ("lm_loss", "penalty_ce")
    )
    assert len(clean) == len(penalised) == 20
    assert clean[-1] < clean[0] - 2
    assert penalised[-1] > penalised[0] + 3


def _copy(source: Path, target: Path, into: bool) -> None:
    """As COPY does: a folder's content goes to ``target``, a file into it where that ends in a slash."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        target = target / source.name if into else target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _files(package: Path) -> set[str]:
    return {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _metadata(target: Path) -> set[str]:
    return {path.name for path in target.glob("gpt_neox_ifguide-*.dist-info")}
