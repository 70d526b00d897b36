"""What the verbs need is what their modules import; a bad environment is told in one line."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

from ifguide import cli
from ifguide.requirements import needs, ranges
from ifguide.requirements.needs import NEEDS, TRAINING
from ifguide.verbs import VERBS

ROOT = Path(__file__).parents[2]
# what is imported under another name than its package's, or comes with another package
PACKAGES = {
    "yaml": "PyYAML", "sklearn": "scikit-learn", "megatron": "megatron-core",
    "cycler": "matplotlib", "huggingface_hub": "transformers",
}  # fmt: skip
EVERYWHERE = {"numpy", "PyYAML"}


def module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@functools.cache
def imports(module: str) -> frozenset[tuple[str, bool]]:
    """Every name that ``module`` imports, and whether only a function does."""
    path = module_file(module)
    assert path is not None, module
    found = set()

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add((child.module, inside))
                found.update((f"{child.module}.{alias.name}", inside) for alias in child.names)
            visit(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return frozenset(found)


def reachable(start: str, at_once: bool = False) -> set[str]:
    """Packages that ``start`` and all that it imports of ours import; ``at_once``: without a function being called."""
    packages, seen, todo = set(), set(), [start]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for name, inside in imports(module):
            if at_once and inside:
                continue
            root, *rest = name.split(".")
            if root == "ifguide":
                parts = [".".join((root, *rest[:depth])) for depth in range(len(rest) + 1)]
                todo += [part for part in parts if module_file(part)]
            elif root not in sys.stdlib_module_names and root != "ifguide_patch":
                packages.add(PACKAGES.get(root, root))
    return packages


def start_of(verb: str) -> str:
    return "ifguide.engine.worker" if verb == TRAINING else f"ifguide.verbs.{verb.replace('-', '_')}"


def test_every_verb_is_in_the_table() -> None:
    assert NEEDS.keys() - {TRAINING} == VERBS.keys()


@pytest.mark.parametrize("verb", NEEDS)
def test_the_table_names_all_that_a_verb_can_import(verb: str) -> None:
    listed = {*NEEDS[verb].always, *NEEDS[verb].sometimes, *EVERYWHERE}
    # the doctor asks for the number of cores, and leaves what torch and others say to other processes
    assert reachable(start_of(verb), at_once=verb == "doctor") <= listed
    assert listed <= ranges.dependencies().keys()


@pytest.mark.parametrize("verb", NEEDS)
def test_the_table_names_nothing_that_a_verb_cannot_import(verb: str) -> None:
    """The exception are packages that others import for us (kronfluence's, torch's tensorboard), or that have no
    import statement (megatron-core's datasets are imported by name)."""
    theirs = {*needs._KRONFLUENCE, "tensorboard", "safetensors", "torch", "megatron-core"}
    listed = {*NEEDS[verb].always, *NEEDS[verb].sometimes}
    assert listed - theirs <= reachable(start_of(verb))


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_needs_no_dependency(verb: str) -> None:
    assert reachable(start_of(verb), at_once=True) <= EVERYWHERE


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """An environment where these packages have other versions, or None."""
    real = ranges.installed
    other = {name.replace("_", "-"): version for name, version in versions.items()}

    def installed(name: str) -> str | None:
        return other[name] if name in other else real(name)

    monkeypatch.setattr(ranges, "installed", installed)
    monkeypatch.setattr(needs, "installed", installed)


def test_a_missing_dependency_is_one_line_before_any_work(monkeypatch, capsys) -> None:
    pretend(monkeypatch, torch=None)
    assert cli.main(["generate", "--model", "m", "--prompts", "p", "--output", "o"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "ifguide generate: needs torch, not installed here; install with: pip install 'gpt-neox-ifguide[embedded]'\n"
    )


def test_a_version_outside_its_range_is_a_line_and_no_reason_to_stop(monkeypatch, capsys) -> None:
    pretend(monkeypatch, transformers="4.57.1")
    assert needs.ready("score", "ifguide score")
    error = capsys.readouterr().err
    wanted = ranges.dependencies()["transformers"].range
    assert error == (
        f"ifguide score: warning: transformers 4.57.1 is outside the tested range {wanted}; "
        "`ifguide doctor` says what to do\n"
    )
    assert needs.ready("build-mask", "ifguide build-mask"), "a base verb has no use for it"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'Gone' from 'tokenizers'"),
        AttributeError("'Layer' object has no attribute 'dtype'"),
        TypeError("update() got an unexpected keyword argument"),
    ],
)
def test_what_breaks_under_an_untested_version_is_one_line(error, monkeypatch, capsys) -> None:
    """What a newer transformers did to the cache of generation: a traceback, from inside a base verb or not."""

    def broken(args) -> dict:
        raise error

    monkeypatch.setattr("ifguide.verbs.verify.run", broken)
    pretend(monkeypatch, tokenizers="0.99.0")
    assert cli.main(["verify", "--data", "d"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(error) in said and "tokenizers 0.99.0 is outside" in said


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch) -> None:
    def broken(args) -> dict:
        raise AttributeError("ours")

    monkeypatch.setattr("ifguide.verbs.verify.run", broken)
    pretend(monkeypatch, **{name.replace("-", "_"): facts.tried[-1] if facts.tried else None
                            for name, facts in ranges.dependencies().items()})  # fmt: skip
    with pytest.raises(AttributeError, match="ours"):
        cli.main(["verify", "--data", "d"])


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("sentencepiece", "needs the package 'sentencepiece'"), ("regex._main", "needs the package 'regex'"),
        ("nonesuch", "needs the module 'nonesuch'"),
    ],
)  # fmt: skip
def test_a_module_that_is_missing_is_named(module: str, words: str, monkeypatch) -> None:
    pretend(monkeypatch, sentencepiece=None, regex=None)
    said = needs.explain("preprocess", ModuleNotFoundError(f"No module named '{module}'", name=module))
    assert said is not None and said.startswith(words) and "\n" not in said
    assert needs.explain("verify", ModuleNotFoundError("no", name="ifguide.nonesuch")) is None
