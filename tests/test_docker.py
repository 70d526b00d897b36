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


def test_dockerfile_starts_from_the_image_that_the_user_names(instructions: list[tuple[str, str]]) -> None:
    assert instructions[:2] == [("ARG", "NEOX_IMAGE"), ("FROM", "${NEOX_IMAGE}")]


def test_dockerfile_leaves_the_pins_of_the_image_alone(instructions: list[tuple[str, str]]) -> None:
    installs = [
        command
        for name, arguments in instructions
        if name == "RUN"
        for command in arguments.split("&&")
        if "pip install" in command
    ]
    assert len(installs) == 1 and "--no-deps" in installs[0]


def test_compose_builds_this_dockerfile_with_arguments_that_it_has(
    smoke: dict[str, Any], instructions: list[tuple[str, str]]
) -> None:
    context = (DOCKER / smoke["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / smoke["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
    known = {arguments.split("=")[0] for name, arguments in instructions if name == "ARG"}
    assert set(smoke["build"]["args"]) <= known


def test_image_holds_what_the_smoke_run_starts(smoke: dict[str, Any], image: Path) -> None:
    script = smoke["command"][-1].removeprefix(f"{INSTALLED}/")
    assert (image / script).is_file()
    for name in ("deepy.py", "train.py", "ifguide/cli.py", "ifguide_patch/worker.py", "configs/models/pythia-160m.yml"):
        assert (image / name).is_file()


def test_image_has_what_its_package_is_built_from(image: Path) -> None:
    project = (image / "pyproject.toml").read_text(encoding="utf-8")
    readme = re.search(r'^readme = "(.*)"$', project, re.MULTILINE)
    assert readme and (image / readme[1]).is_file()


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
