"""The lock: complete, exact, of the public index, with the same ranges in pyproject.toml and tested.json."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

import pytest

from ifguide.errors import InputError
from ifguide.requirements import lock
from ifguide.requirements.ranges import allows, dependencies, record

ROOT = Path(__file__).parents[2]
TEXT = resources.files("ifguide.requirements").joinpath("lock.txt").read_text(encoding="utf-8")
PYTHONS = [f"{version}.5" for version in record()["python"]["base"]]


@pytest.fixture(scope="module")
def declared() -> dict[str, dict[str, str]]:
    """Extra -> package -> range, as pyproject.toml says; the base install is "base", the group of the lock "locked"."""
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = {
        "base": content["project"]["dependencies"],
        **content["project"]["optional-dependencies"],
        "locked": content["dependency-groups"]["locked"],
    }
    return {
        extra: dict(re.fullmatch(r"([A-Za-z0-9._-]+)([^;]*)(?:;.*)?", line).groups() for line in lines)  # type: ignore[union-attr, misc]
        for extra, lines in groups.items()
    }


def test_every_version_is_exact_and_has_hashes() -> None:
    entries = lock.read()
    assert len(entries) > 100
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry.text), entry.name
    assert sum(entry.text.count("\n") for entry in entries) + TEXT[: TEXT.index(entries[0].text)].count("\n") == (
        TEXT.count("\n")
    )


def test_the_lock_names_no_place() -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|(^|\s)/\w|file:", TEXT, re.MULTILINE)


def test_what_differs_from_machine_to_machine_is_not_locked() -> None:
    names = {entry.name for entry in lock.read()}
    assert not [name for name in names if re.match(r"torch$|torchvision|triton|nvidia|cuda|pytorch", name)]


def test_markers_of_direct_dependencies_speak_of_python_only() -> None:
    """`version_for` reads no other clause, and no alternatives."""
    direct = {lock.normalise(name) for name in dependencies()}
    for entry in lock.read():
        if entry.name in direct and entry.marker:
            clauses = entry.marker.split(" and ")
            assert all(re.fullmatch(r"python_full_version (==|<|>|<=|>=|!=) '[^']+'", clause) for clause in clauses)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_one_version_inside_its_range_for_every_python(python: str) -> None:
    entries = lock.read()
    for name, dependency in dependencies().items():
        locked = record()["torch"] if name == "torch" else lock.version_for(entries, name, python)
        if not allows(dependency.python, python):
            assert locked is None, name
            continue
        assert locked is not None and allows(dependency.range, locked), (name, locked)


def test_the_tested_ranges_are_those_of_pyproject(declared: dict[str, dict[str, str]]) -> None:
    said = {name: (found.range, set(found.extras)) for name, found in dependencies().items()}
    wanted: dict[str, tuple[str, set[str]]] = {}
    for extra, packages in declared.items():
        for name, range_ in packages.items():
            assert wanted.setdefault(name, (range_, set()))[0] == range_, f"{name} has two ranges"
            wanted[name][1].add(extra)
    assert said == wanted


def test_versions_that_were_tried_are_inside_their_ranges() -> None:
    for name, dependency in dependencies().items():
        assert all(allows(dependency.range, version) for version in dependency.tried), name


def test_the_makefile_installs_the_torch_that_was_tried() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"TORCH  ?= torch=={record()['torch']}\n" in makefile
    assert allows(dependencies()["torch"].range, record()["torch"])


def test_lock_and_ranges_are_in_the_wheel(declared: dict[str, dict[str, str]]) -> None:
    import tomllib

    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["ifguide"]
    assert {"requirements/*.txt", "requirements/*.json"} <= set(patterns)


def test_a_part_of_the_lock_keeps_versions_markers_and_hashes(capsys: pytest.CaptureFixture) -> None:
    assert lock.main(["NumPy", "PyYAML"]) == 0
    part = capsys.readouterr().out
    entries = lock.read(part)
    assert {entry.name for entry in entries} == {"numpy", "pyyaml"}
    assert entries == [entry for entry in lock.read() if entry.name in ("numpy", "pyyaml")]


def test_a_package_that_is_not_locked_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError, match="no nonesuch"):
        lock.part(["numpy", "nonesuch"])
    assert lock.main(["numpy", "--from", str(tmp_path / "absent.txt")]) == 2
    assert "absent.txt: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("specifier", "version", "inside"),
    [
        (">=5.20,<5.25", "5.24.0", True), (">=5.20,<5.25", "5.25.0", False), (">=5.20,<5.25", "5.9", False),
        ("<2", "2.0rc1", False), (">=2.13,<2.14", "2.13.0+cpu", True), (">=2.13,<2.14", "2.14.1", False),
        ("==3.11.*", "3.11.7", True), ("==3.11.*", "3.110", False), ("!=1.5", "1.5.0", False),
        ("~=1.4.2", "1.4.9", True),
        ("~=1.4.2", "1.5", False), ("", "1", True), (">=2025.10.22", "2026.11.19", True), ("==1", "1.0.0", True),
        (">1", "1.0", False), ("<=1", "1.0.1", False), (">=1", "1!0.5", False),
    ],
)  # fmt: skip
def test_ranges(specifier: str, version: str, inside: bool) -> None:
    assert allows(specifier, version) is inside


def test_ranges_agree_with_packaging() -> None:
    specifiers = pytest.importorskip("packaging.specifiers")
    versions = [
        "0.4.13",
        "0.4.14",
        "1",
        "1.0.1",
        "2.13.0+cpu",
        "2.14",
        "5.9",
        "5.19.9",
        "5.20",
        "5.24.3",
        "6.0.12.20251122",
    ]
    for dependency in dependencies().values():
        for version in versions:
            assert allows(dependency.range, version) == (version in specifiers.SpecifierSet(dependency.range))
