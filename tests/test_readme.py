"""README's commands, run as they are printed. Small files stand in for those that the blocks themselves name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import MODEL
from tests.route.case import write_texts
from tests.support.printed import ROOT, Block, blocks, in_folder, run

BLOCKS = [block for block in blocks((ROOT / "README.md").read_text()) if block.commands]
# what is not run, and why
LEFT_OUT = {
    "make demo": "installs the lock and trains for minutes; tests/quickstart runs the same job, smaller",
    "make test": "is this suite",
    "pip install --no-deps -e .": "would change the environment that the tests run in; docker/Dockerfile does it",
    "python deepy.py train.py -d configs models/pythia-160m.yml training/pretrain.yml my-data.yml "
    "ifguide/ascent.yml --neox ~/gpt-neox": "trains 160 M parameters on GPUs; tests/test_configs.py loads its files",
}
COMMANDS = [command for block in BLOCKS for command in block.commands]


def needs_checkout(command: str) -> bool:
    return "gpt-neox" in command


@pytest.mark.parametrize("command", LEFT_OUT)
def test_left_out(command: str) -> None:
    assert command in COMMANDS, "README does not print it any more"
    pytest.skip(LEFT_OUT[command])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as far as the commands see it, with texts, and a proxy that is smaller than the one in configs/."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("deepy.py", "train.py"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "configs", folder / "configs")
    write_texts(folder)
    (folder / "data").mkdir()
    (folder / "tokenizer.json").rename(folder / "data/tokenizer.json")
    shape = {"seq_length": 256, "max_position_embeddings": 256}
    shape |= {"train_batch_size": 2, "train_iters": 3, "eval_iters": 0, "checkpoint_factor": 3}
    keys = {key: value for key, value in MODEL.items() if key not in ("tokenizer_type", *shape)}
    (folder / "configs/models/proxy.yml").write_text(json.dumps({**keys, **shape, "save": "runs/proxy"}))
    installed = folder / ".venv/bin/ifguide"
    installed.parent.mkdir(parents=True)
    installed.write_text('#!/bin/sh\nexec python -m ifguide.cli "$@"\n')
    installed.chmod(0o755)
    return folder


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return in_folder(folder, monkeypatch)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line {block.line}")
def test_the_block_runs_as_printed(block: Block, folder: Path, environment: dict[str, str]) -> None:
    chosen = [command for command in block.commands if command not in LEFT_OUT and not needs_checkout(command)]
    if not chosen:
        pytest.skip("all of it is left out above, or needs a checkout of GPT-NeoX")
    for command in chosen:
        # the doctor's exit code says whether there are faults, which depends on the machine
        run(command, folder, environment, (0, 1) if command.endswith("doctor") else (0,))


@pytest.mark.parametrize("command", [one for one in COMMANDS if needs_checkout(one) and one not in LEFT_OUT])
def test_with_a_checkout_it_runs_as_printed(
    command: str, folder: Path, environment: dict[str, str], request: Any
) -> None:
    """After the block that makes tokens and mask, whose files the command names."""
    link = folder / "gpt-neox"
    if not link.exists():
        link.symlink_to(request.getfixturevalue("neox"))
    if "data/" in command and not (folder / "data/mask.bin").is_file():
        pytest.skip("tokens and mask are made by another test of this file, which was not chosen")
    run(command, folder, environment)


def test_what_is_no_command_is_seen() -> None:
    page = "```\nifguide build-mask: data/mask was made\n```\n```\nmake demo    # minutes\n```\n```\n  base  1\n```\n"
    assert [block.commands for block in blocks(page)] == [[], ["make demo"], []]
    page = '```yaml title="a.yml"\n{}\n```\n```sh\nifguide score \\\n    --model "a b"   # long\n```\n'
    shown, command = blocks(page)
    assert (shown.title, shown.commands, shown.text) == ("a.yml", [], "{}\n")
    assert command.commands == ['ifguide score --model "a b"'] and command.line == 4
