"""Nothing of ours unpickles, or runs code that came with data: shown on the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNPICKLERS = {"_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}


def findings(source: str) -> Iterator[str]:
    """Whatever in ``source`` may run a pickle or code of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name in UNPICKLERS or (name.name == "pickle" and name.asname):
                    yield f"line {node.lineno}: imports {name.name}"
        elif isinstance(node, ast.ImportFrom) and node.module in {*UNPICKLERS, "pickle"}:
            yield f"line {node.lineno}: imports from {node.module}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            if node.attr != "UnpicklingError":  # what torch.load raises when it refuses
                yield f"line {node.lineno}: uses pickle.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if called == "torch.load" and options.get("weights_only") != "True":
        yield f"line {node.lineno}: torch.load without weights_only=True"
    if called in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False":
        yield f"line {node.lineno}: {called} with allow_pickle"
    if called in ("np.save", "numpy.save", "np.savez") and options.get("allow_pickle", "False") != "False":
        yield f"line {node.lineno}: {called} with allow_pickle"
    if options.get("trust_remote_code", "False") != "False":
        yield f"line {node.lineno}: trust_remote_code"
    if called in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load"):
        yield f"line {node.lineno}: {called}"


def product() -> list[Path]:
    """The Python files that are delivered: all but tests, environments and what a tool left there."""
    folders = [
        path
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in ("tests", "build", "dist") and not path.name.startswith(".")
        if not (path / "pyvenv.cfg").exists()
    ]
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]


def test_every_package_is_looked_into() -> None:
    """Whatever pyproject.toml installs, and what is run from the folder."""
    found = re.search(r"packages\.find\]\ninclude = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert found
    names = {name.rstrip("*.") for name in re.findall(r'"(.*?)"', found[1])} | {"tools", "benchmarks", "docker"}
    assert {"ifguide", "ifguide_patch"} <= names
    seen = {path.relative_to(ROOT).parts[0] for path in product()}
    assert names | {"deepy.py", "train.py"} <= seen and "tests" not in seen


def test_the_product_unpickles_nothing() -> None:
    assert len(product()) > 50
    found = [f"{path.relative_to(ROOT)} {text}" for path in product() for text in findings(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle as p",
        "import pickle\npickle.load(stream)",
        "import pickle\nclass Mine(pickle.Unpickler): pass",
        "def f():\n    from pickle import loads",
        "import os, dill as d",
        "torch.load(path)",
        "torch.load(path, map_location='cpu', weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, mmap_mode='r', allow_pickle=trusted)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "value = eval(text)",
    ],
)
def test_the_search_can_find_something(source: str) -> None:
    assert len(list(findings(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, map_location='cpu', weights_only=True)",
        "import pickle\ntry: f()\nexcept pickle.UnpicklingError: pass",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "model.eval()",
        "json.load(stream)",
    ],
)
def test_the_search_lets_harmless_code_pass(source: str) -> None:
    assert list(findings(source)) == []
