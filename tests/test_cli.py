"""The command: help for every verb, one line and exit 2 for bad input, a base install of numpy and PyYAML."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.cli import main
from ifguide.verbs import VERBS
from tests.support.datasets import write_indexed

BASE_MODULES = (
    "ifguide.cli", "ifguide.masks", "ifguide.selection", "ifguide.data.indexed", "ifguide.data.aligned",
    "ifguide.data.fingerprint", "ifguide.system.files", "ifguide.system.progress", "ifguide.system.provenance",
    "ifguide.verbs.build_mask",
    "ifguide.inspection.lineage", "ifguide.inspection.mask_stats", "ifguide.inspection.documents",
    "ifguide.inspection.replay", "ifguide.inspection.terminal", "ifguide.pages.inspection",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([verb, "--help"])
    assert exit_.value.code == 0
    assert f"example:\n  ifguide {verb}" in capsys.readouterr().out


def test_overview_lists_every_verb(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_unknown_verb_names_the_nearest(capsys):
    assert main(["biuld-mask"]) == 2
    assert "did you mean 'build-mask'?" in capsys.readouterr().err


def test_every_verb_has_a_tool_that_hides_no_module():
    """A script's folder comes first on its path: tools/inspect.py would take the place of Python's own inspect."""
    tools = Path(__file__).parents[1] / "tools"
    verbs = {re.search(r'main\(\["([a-z-]+)"', path.read_text())[1]: path.stem for path in tools.glob("*.py")}
    assert verbs.keys() == VERBS.keys()
    assert not set(verbs.values()) & sys.stdlib_module_names


def test_bad_input_is_one_line_and_exit_2(tmp_path, capsys):
    assert main(["build-mask", "--scores", str(tmp_path / "none"), "--output", str(tmp_path / "mask")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "none.idx" in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_a_launcher_of_processes_is_refused_where_they_cannot_share(verb, monkeypatch, capsys):
    """Before anything is read or written; the others get as far as their own work."""

    class Begun(Exception):
        pass

    def run(args):
        raise Begun

    module = importlib.import_module(f"ifguide.verbs.{verb.replace('-', '_')}")
    monkeypatch.setattr(module, "run", run)
    # without options and the claim of an output: what comes before them
    monkeypatch.delattr(module, "OPTIONS", raising=False)
    monkeypatch.delattr(module, "WRITES", raising=False)
    monkeypatch.setenv("RANK", "0")
    for size, launcher in (("1", "LOCAL_RANK"), ("2", "OF_A_SCHEDULER")):
        with monkeypatch.context() as patch, pytest.raises(Begun):
            patch.setenv("WORLD_SIZE", size)
            patch.setenv(launcher, "0")
            main([verb])
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    if verb in (
        "score", "score-text", "evaluate", "plan", "verify", "inspect", "mask-stats", "provenance", "compare",
        "tasks-path", "doctor",
    ):  # fmt: skip
        with pytest.raises(Begun):
            main([verb])
        return
    assert main([verb]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ifguide {verb}: this is one of 2 processes") and "without torchrun" in line


def _into_closed_pipe(command: list[str], folder: Path, stderr: bool = False) -> subprocess.CompletedProcess:
    """``command``, the reader of whose stdout is gone before it starts."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, *command], stdout=writing, stderr=writing if stderr else subprocess.PIPE, text=True,
            cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
    finally:
        os.close(writing)


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        [],
        ["tasks-path"],
        ["provenance", "--help"],
        ["score", "--help"],
        ["verify", "--data", "d"],
    ],
    ids=" ".join,
)
def test_a_closed_pipe_is_no_traceback(tmp_path, command, buffered):
    """Whether the first line or the last flush meets it."""
    write_indexed(tmp_path / "d", [[1, 1], [1, 1]])
    result = _into_closed_pipe([*([] if buffered else ["-u"]), "-m", "ifguide.cli", *command], tmp_path)
    assert "Traceback" not in result.stderr and "Broken" not in result.stderr
    # argparse passes over a line of help that it cannot write
    assert result.returncode == 141 or (result.returncode == 0 and len(command) == 2 and command[1] == "--help")


def test_more_than_a_buffer_into_a_closed_pipe(tmp_path):
    """The rest must not come up again when the interpreter ends; nor where stderr is gone as well."""
    code = (
        "from ifguide import cli, verbs; from types import SimpleNamespace as Module; "
        "verbs.module_of = lambda verb: Module(SUMMARY='s', EXAMPLE='e', "
        "run=lambda args: [print('x' * 100_000) for _ in range(10)] and None); "
        "raise SystemExit(cli.main(['verify']))"
    )
    for stderr in (False, True):
        result = _into_closed_pipe(["-c", code], tmp_path, stderr)
        assert result.returncode == 141 and not result.stderr


def test_a_pipe_of_our_own_that_breaks_is_an_error(monkeypatch):
    """Between processes of ours: a defect, and not the reader's leave."""

    def run(args):
        raise BrokenPipeError

    monkeypatch.setattr("ifguide.verbs.tasks_path.run", run)
    with pytest.raises(BrokenPipeError):
        main(["tasks-path"])


def test_the_base_install_needs_numpy_and_yaml_only():
    """Import the base modules with everything else blocked, as in a GPT-NeoX environment."""
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        allowed = root in ("numpy", "yaml", "ifguide") or root in sys.stdlib_module_names or root.startswith("_")
        if not allowed:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=root)
sys.meta_path.insert(0, Block())
import importlib
for module in {BASE_MODULES!r}:
    importlib.import_module(module)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


HEAVY = {
    "numpy", "torch", "transformers", "tokenizers", "scipy", "sklearn", "datasets", "matplotlib", "pandas", "lm_eval",
    "deepspeed", "kronfluence", "megatron", "yaml",
}  # fmt: skip
LOADED = """
import sys
before = {name.partition(".")[0] for name in sys.modules}
from ifguide import cli, verbs
cli.main(["--help"])
print(sorted({name.partition(".")[0] for name in sys.modules} - before))
for verb in verbs.VERBS:
    verbs.make_parser(verb).format_help()
print(sorted({name.partition(".")[0] for name in sys.modules} - before))
"""


def test_help_loads_nothing_heavy():
    """By the names of what is loaded, not by seconds: the overview standard library alone, a verb's help numpy too."""
    result = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    overview, every_verb = (set(ast.literal_eval(line)) for line in result.stdout.splitlines() if line.startswith("["))
    assert "ifguide" in overview and not overview & HEAVY
    assert not every_verb & (HEAVY - {"numpy", "yaml"})


def test_a_warning_of_ours_is_one_line(tmp_path):
    """A merged dataset's doc_idx is read with a warning; Python's own form would add a line of source."""
    write_indexed(tmp_path / "d", [[1, 1], [1, 1]], doc_idx=[0])
    command = [sys.executable, "-m", "ifguide.cli", "import-mask", "--data", str(tmp_path / "d"), "--mask", "absent"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    warning, fault = result.stderr.splitlines()
    assert warning.startswith(f"ifguide import-mask: {tmp_path / 'd.idx'}: doc_idx makes 0 groups of 2 sequences")
    assert "absent.idx does not exist" in fault
