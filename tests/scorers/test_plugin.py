"""``python:MODULE:FUNCTION``: what it returns is what is scored, and each way to be wrong is one line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.errors import InputError, NumericsError
from ifguide.scorers.plugin import source_of
from ifguide.scorers.registry import load_scorer
from ifguide.system.files import hash_file, hash_value

_NUMBERS = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module into the current folder; returns its name, which no other test has."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        name = f"judge_of_tests_{next(_NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    return write


LENGTHS = """
def score(texts):
    return [min(len(text), 10) / 10 for text in texts]
"""


def test_the_functions_numbers_are_the_scores(module: Callable[[str], str]) -> None:
    name = module(LENGTHS)
    scorer = load_scorer(f"python:{name}:score")
    assert scorer.name == f"python:{name}:score" and scorer.main == "toxicity"
    found = scorer.score(["", "abc", "a long, long text"])["toxicity"]
    assert found.tolist() == [0.0, 0.3, 1.0] and found.dtype == np.float64


@pytest.mark.parametrize(
    "returned",
    ["np.array([0, 1])", "[0.0, 1]", "(np.float32(0), 1)", "torch.tensor([0.0, 1.0])", "np.array([False, True]) * 1.0"],
)
def test_numbers_of_any_kind(module: Callable[[str], str], returned: str) -> None:
    name = module(f"import numpy as np, torch\ndef score(texts): return {returned}\n")
    assert load_scorer(f"python:{name}:score").score(["a", "b"])["toxicity"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        ("[0.1, 0.2]", "scores of shape (2,) for 3 texts; the first text without a score of its own is 2"),
        ("[[0.1], [0.2], [0.3]]", "scores of shape (3, 1) for 3 texts"),
        ("0.5", "scores of shape () for 3 texts"),
        ("[]", "scores of shape (0,) for 3 texts"),
        ("[0.1, float('nan'), 0.2]", "text 1 scored nan, which is no probability"),
        ("[0.1, 0.2, float('inf')]", "text 2 scored inf"),
        ("[-0.1, 0.2, 1.5]", "text 0 scored -0.1, which is no probability (2 such texts)"),
        ("['0.1', '0.2', '0.3']", "returned a list with '0.1' in it, a str; it must return one number from 0 to 1"),
        ("[0.1, None, 0.2]", "returned a list with None in it, a NoneType"),
        ("[True, False, True]", "returned a list with True in it, a bool"),
        ("None", "returned a NoneType; it must return one number"),
        ("{'toxicity': [0.1, 0.2, 0.3]}", "returned a dict; it must return one number"),
        ("(0.1 for _ in texts)", "returned a generator; it must return one number"),
        ("[[0.1], [0.2, 0.3], 0.4]", "returned a list that is no array of numbers"),
        ("[0.1 + 0j] * 3", "returned a list with (0.1+0j) in it, a complex"),
        ("1 / 0", "failed at text 0: ZeroDivisionError: division by zero"),
        ("[1 / len(text) for text in texts]", "failed at text 2: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_is_no_probability_a_text(module: Callable[[str], str], returned: str, fault: str) -> None:
    name = module(f"def score(texts): return {returned}\n")
    with pytest.raises(NumericsError) as raised:
        load_scorer(f"python:{name}:score").score(["a", "b", ""])
    assert fault in str(raised.value) and f"python:{name}:score" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "function", "fault"),
    [
        ("import none_such_at_all\n", "score", "imports 'none_such_at_all', which is not there"),
        ("def score(texts:\n", "score", "cannot be imported: SyntaxError"),
        ("1 / 0\n", "score", "cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit('no key')\n", "score", "cannot be imported: SystemExit: no key"),
        (LENGTHS, "scores", "has no 'scores'"),
        ("score = 0.5\n", "score", "'score' of 'judge_of_tests_"),
        ("class score: pass\n", "score", "is a class; give python:MODULE:FUNCTION"),
    ],
)
def test_modules_that_cannot_be_used(module: Callable[[str], str], text: str, function: str, fault: str) -> None:
    name = module(text)
    with pytest.raises(InputError) as raised:
        load_scorer(f"python:{name}:{function}")
    assert fault in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("python:judge", "give python:MODULE:FUNCTION"),
        ("python:judge.py:score:x", "give python:MODULE:FUNCTION"),
        ("python:./judge:score", "give python:MODULE:FUNCTION"),
        ("python::score", "give python:MODULE:FUNCTION"),
        ("python:none_such_package.judge:score", "there is no module 'none_such_package'"),
        ("python:json.none_such:score", "there is no module 'json.none_such'"),
        ("python:time:sleep", "has no source file"),
        ("python:", "is not known"),
    ],
)
def test_specs_that_name_no_function(spec: str, fault: str) -> None:
    with pytest.raises(InputError) as raised:
        load_scorer(spec)
    assert fault in str(raised.value) and "\n" not in str(raised.value)


def test_the_source_decides_the_identity(module: Callable[[str], str], tmp_path: Path) -> None:
    name, same, other = module(LENGTHS), module(LENGTHS), module(LENGTHS + "# changed\n")
    identities = [load_scorer(f"python:{one}:score").fingerprint() for one in (name, same, other)]
    assert identities[0] == identities[1] == hash_file(tmp_path / f"{name}.py") != identities[2]
    # a function from elsewhere: both files decide
    passed_on = module(f"from {name} import score\n")
    files = [hash_file(tmp_path / f"{one}.py") for one in (passed_on, name)]
    assert load_scorer(f"python:{passed_on}:score").fingerprint() == hash_value(files)


def test_the_file_is_found_without_running_it(module: Callable[[str], str], tmp_path: Path) -> None:
    name = module("raise RuntimeError\n")
    assert source_of(f"{name}:score") == tmp_path / f"{name}.py"
    assert source_of("none_such_package.judge:score") is None and source_of("nothing") is None


def test_the_function_cannot_change_the_texts(module: Callable[[str], str]) -> None:
    name = module("def score(texts):\n    texts.clear()\n    return [0.5, 0.5]\n")
    texts = ["a", "b"]
    assert load_scorer(f"python:{name}:score").score(texts)["toxicity"].tolist() == [0.5, 0.5]
    assert texts == ["a", "b"]


def test_a_command_knows_that_the_source_changed(
    module: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = module(LENGTHS)
    (tmp_path / "given.jsonl").write_text(json.dumps({"prompt": "a", "continuations": ["abc", ""]}) + "\n")
    command = ["score-generations", "--generations", "given.jsonl", "--output", "scored.jsonl"]
    command += ["--scorer", f"python:{name}:score"]
    assert main(command) == 0
    assert json.loads((tmp_path / "scored.jsonl").read_text())["scores"] == {f"python:{name}:score": [0.3, 0.0]}
    made = (tmp_path / "scored.jsonl").stat().st_mtime_ns
    assert main(command) == 0 and (tmp_path / "scored.jsonl").stat().st_mtime_ns == made, "nothing to do"
    (tmp_path / f"{name}.py").write_text(LENGTHS + "# changed\n")
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "--scorer" in error and f"{name}.py" in error and error.count("\n") == 1
