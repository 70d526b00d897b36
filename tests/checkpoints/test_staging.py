"""A folder appears whole or not at all, and only what is ours is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ifguide.checkpoints.staging import check_output, staged_folder
from ifguide.errors import InputError, OutOfSpaceError


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    final = write(tmp_path / "model", old="1")
    write(tmp_path / ".model.converting", half="of a killed run")
    write(tmp_path / ".model.replaced", half="of another")
    with staged_folder(final) as folder:
        assert content(folder) == {} and content(final) == {"old": "1"}
        write(folder, new="2")
    assert content(final) == {"new": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("fault", [ValueError("broken"), KeyboardInterrupt()])
def test_a_fault_leaves_all_as_it_was(tmp_path: Path, fault: BaseException) -> None:
    final = write(tmp_path / "model", old="1")
    with pytest.raises(type(fault)), staged_folder(final) as folder:
        write(folder, new="2")
        raise fault
    assert content(final) == {"old": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever error torch makes of it; an interrupt stays one."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutOfSpaceError, match="nothing was written"), staged_folder(tmp_path / "model"):
        raise RuntimeError("unexpected pos 128 vs 64")
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"^{tmp_path / 'file'}: "), staged_folder(tmp_path / "file" / "model"):
        pytest.fail("there is no such folder")


def test_what_is_converted_is_never_the_output(tmp_path: Path) -> None:
    source = write(tmp_path / "run" / "global_step4", latest="")
    for final in (source, source.parent, tmp_path, tmp_path / "run" / ".." / "run"):
        with pytest.raises(InputError, match="is the input, or holds it"):
            check_output(final, source, overwrite=True)
    check_output(source / "hf", source)


def test_only_models_and_checkpoints_are_replaced(tmp_path: Path) -> None:
    source = tmp_path / "source"
    check_output(tmp_path / "absent", source)
    check_output(write(tmp_path / "empty"), source)
    for name in ("run.json", "config.json", "latest"):
        ours = write(tmp_path / f"with {name}", **{name: ""})
        check_output(ours, source, overwrite=True)
        with pytest.raises(InputError, match="already exists"):
            check_output(ours, source)
    for overwrite in (False, True):
        with pytest.raises(InputError, match="already exists"):
            check_output(write(tmp_path / "thesis", chapter="1"), source, overwrite)
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="already exists"):
            check_output(tmp_path / "file", source, overwrite)
