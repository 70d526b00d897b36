"""docs/tutorial.md, from the first command to the last: its files as it shows them, on texts that this test writes.

The page's notebook has the same files and commands, in the same order, as its cells. A Jupyter kernel runs them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ifguide.quickstart.comments import CommentSource
from ifguide.quickstart.corpus import threads
from ifguide.quickstart.prepare import _begun, _query
from tests.support.folders import write_rows
from tests.support.printed import ROOT, blocks, in_folder, run

PAGE = blocks((ROOT / "docs/tutorial.md").read_text())
COMMANDS = [command for block in PAGE for command in block.commands]
NEOX = "runs/neox"


def write_texts(folder: Path) -> None:
    """What the reader brings."""
    (folder / "texts").mkdir()
    for number, document in enumerate(threads(CommentSource("planted", 1), 40, 0.6)):
        (folder / f"texts/{number:02}.txt").write_text(document.text)
    for name, purpose in (("", "queries"), ("judge-", "judge")):
        source = CommentSource(purpose, 1)
        write_rows(folder / f"{name}toxic.jsonl", [_query(source, True) for _ in range(24)])
        write_rows(folder / f"{name}safe.jsonl", [_query(source, False) for _ in range(24)])
    source = CommentSource("prompts", 1)
    prompts = [(_begun(source, source.abuse()), 0.9) for _ in range(3)]
    prompts += [(_begun(source, source.comment("kind")), None) for _ in range(3)]
    rows = [{"id": str(number), "prompt": text, "toxicity": score} for number, (text, score) in enumerate(prompts)]
    write_rows(folder / "prompts.jsonl", rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial")
    write_texts(folder)
    return folder


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return in_folder(folder, monkeypatch)


@pytest.fixture
def jupyter(folder: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the notebook's shell finds: the commands of this source, and no checkout of GPT-NeoX."""
    commands = {"ifguide": "ifguide.cli import main", "ifguide-train": "ifguide.launch import installed as main"}
    programs = folder / "bin"
    programs.mkdir()
    for name, imported in commands.items():
        (programs / name).write_text(f"#!{sys.executable}\nimport sys\nfrom {imported}\nsys.exit(main())\n")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name, value in {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GPT_NEOX_PATH", raising=False)


@pytest.mark.slow
def test_every_file_and_every_command(folder: Path, jupyter: None) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the notebook needs nbclient and ipykernel, of the extra dev")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in code]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [NEOX in cell.source for cell in code if "needs GPT_NEOX_PATH" in cell.source] == [True]
    assert sum("needs GPT_NEOX_PATH" in text for text in said) == 1
    guided = json.loads((folder / "runs/guided/run.json").read_text())["config"]
    base = json.loads((folder / "runs/base/run.json").read_text())["config"]
    differing = {key for key in base if base[key] != guided[key]}
    assert differing == {"save", "penalty_data_path", "penalty_form", "penalty_clip", "penalty_lambda"}
    for name in ("eval-base", "eval-guided"):
        assert (folder / f"runs/{name}/results.json").is_file()
    for page in ("mask/mask.html", "comparison.html", "audit/labelling.html", "attacked/report.html"):
        assert "<html" in (folder / "runs" / page).read_text()


@pytest.mark.slow
def test_the_commands_of_a_checkout(folder: Path, environment: dict[str, str], request: Any) -> None:
    link = folder / "gpt-neox"
    link.symlink_to(request.getfixturevalue("neox"))
    if not (folder / "runs/mask/penalty.yml").is_file():
        pytest.skip("the mask is made by the other test of this file, which was not chosen")
    chosen = [command for command in COMMANDS if NEOX in command or "neox.yml" in command]
    assert len(chosen) == 2
    for command in chosen:
        run(command, folder, environment)
    assert (folder / "runs/neox-hf/config.json").is_file()


def test_every_file_that_a_command_names_is_shown_or_brought() -> None:
    shown = [block.title for block in PAGE if block.title]
    assert len(shown) == len(set(shown)) == 6
    for name in shown:
        assert any(name in command.split() for command in COMMANDS), name


def test_the_notebook_is_that_of_the_page() -> None:
    """Made by `python docs/notebook.py`; its code cells are the page's files and commands, in order."""
    specification = importlib.util.spec_from_file_location("notebook", ROOT / "docs/notebook.py")
    assert specification and specification.loader
    maker = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(maker)
    written = (ROOT / "docs/tutorial.ipynb").read_text(encoding="utf-8")
    assert written == maker.text((ROOT / "docs/tutorial.md").read_text(encoding="utf-8")), "run python docs/notebook.py"
    cells = ["".join(cell["source"]) for cell in json.loads(written)["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == len([block for block in PAGE if block.title or block.commands])
    for block, cell in zip((block for block in PAGE if block.title or block.commands), cells):
        assert block.text.rstrip("\n").replace("~/gpt-neox", "$GPT_NEOX_PATH") in cell
