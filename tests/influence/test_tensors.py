"""Tensors on disk: whole or not at all, and a full disk told apart from other faults."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ifguide.errors import InputError, OutOfSpaceError
from ifguide.influence.tensors import (
    all_finite,
    are_recorded,
    hashes_of,
    load_recorded,
    moved,
    save_recorded,
    save_tensors,
)
from ifguide.system.files import hash_file
from tests.support.folders import files

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1], dtype=torch.int64)}


def test_they_come_back(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t.safetensors", TENSORS)
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
    assert [*files(tmp_path)] == ["t.safetensors"]


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("I/O error: No space left on device (os error 28)", OutOfSpaceError, "t.safetensors"),
        ("I/O error: Input/output error (os error 5)", (InputError, OSError), "os error 5"),
    ],
)
def test_a_fault_on_the_way_leaves_what_was_there(
    text: str, kind: type, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tensors(tmp_path / "t.safetensors", TENSORS)
    before = files(tmp_path)

    def broken(tensors: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError(text)

    monkeypatch.setattr("safetensors.torch.save_file", broken)
    with pytest.raises(kind, match=says) as caught:
        save_tensors(tmp_path / "t.safetensors", TENSORS)
    assert isinstance(caught.value, OutOfSpaceError) == ("error 28" in text)
    assert files(tmp_path) == before


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        save_tensors(tmp_path / "absent" / "t.safetensors", TENSORS)


def test_a_record_and_its_tensors_come_back_together_or_not_at_all(tmp_path: Path) -> None:
    path, record = tmp_path / "t.safetensors", tmp_path / "t.json"
    assert load_recorded(path, record, {"of": 1}, "test") is None
    save_recorded(path, record, TENSORS, {"identity": {"of": 1}, "more": 2})
    found = load_recorded(path, record, {"of": 1}, "test")
    assert found is not None and found[1]["more"] == 2
    assert found[0].keys() == TENSORS.keys() and all(torch.equal(found[0][name], TENSORS[name]) for name in TENSORS)
    assert load_recorded(path, record, {"of": 2}, "test") is None
    save_tensors(path, {"a": TENSORS["a"] + 1})
    assert load_recorded(path, record, {"of": 1}, "test") is None
    record.unlink()
    assert load_recorded(path, record, {"of": 1}, "test") is None


def test_a_record_knows_its_file_and_no_other(tmp_path: Path) -> None:
    """By the hash of the pieces; both hashes are bound to each other. A record of an earlier version has one hash."""
    path = tmp_path / "t.safetensors"
    save_tensors(path, TENSORS)
    record = hashes_of(path)
    earlier = {"tensors": hash_file(path)}
    assert record["tensors"] == earlier["tensors"]
    assert are_recorded(path, {"identity": "x", **record}) and are_recorded(path, earlier)
    assert not are_recorded(path, {**record, "tensors": "0" * 64}) and not are_recorded(path, {})
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not are_recorded(path, record) and not are_recorded(path, earlier)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bad", [None, torch.nan, torch.inf, -torch.inf])
def test_finite_is_what_all_numbers_are(bad: float | None, dtype: torch.dtype) -> None:
    tensor = torch.randn(7, 11).to(dtype)
    for place in ((0, 0), (3, 5), (6, 10)):
        one = tensor.clone()
        if bad is not None:
            one[place] = bad
        assert all_finite(one) == bool(torch.isfinite(one).all()) == (bad is None)
    assert all_finite(tensor[:0])


def test_what_moves_keeps_its_numbers() -> None:
    """There and back; a device that is none has no numbers, but sees in which order it is done."""
    tensor = torch.randn(3, 4)
    assert torch.equal(moved(tensor, torch.device("cpu"), torch.float64), tensor.double())
    assert moved(tensor, torch.device("meta"), torch.bfloat16).dtype == torch.bfloat16
