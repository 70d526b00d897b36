"""A worker believes what the launcher has verified, and only that."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ifguide.data import fingerprint as fingerprint_module
from ifguide.data.indexed import TokenDataset
from ifguide.errors import MismatchError
from ifguide_patch.training.dataset import VERIFIED_VARIABLE, verified_mask, verify_masks
from tests.support.datasets import random_documents, write_mask, write_tokens


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenDataset:
    """Tokens and a mask whose times a copy has moved, on a worker without the launcher's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "launcher"))
    monkeypatch.setenv(VERIFIED_VARIABLE, "")
    tokens = write_tokens(tmp_path / "t", random_documents([5, 9, 3]))
    write_mask(tmp_path / "m", tokens, np.arange(17) % 2)
    for name in ("t.bin", "t.idx", "m.bin", "m.idx"):
        os.utime(tmp_path / name, ns=(10**18, 10**18 + 7))
    return tokens


def verify(tokens: TokenDataset, mask: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the launcher finds; then this process is a worker that does not share its home."""
    faults = verify_masks({"data_path": tokens.prefix, "penalty_data_path": mask})
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(mask).parent / "worker"))
    return faults


def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    original = fingerprint_module.hash_file
    monkeypatch.setattr(fingerprint_module, "hash_file", lambda path, **_: read.append(path.name) or original(path))
    return read


def test_a_copied_mask_is_not_hashed_on_every_rank(copied: TokenDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = copied.prefix[:-1] + "m"
    assert verify(copied, mask, monkeypatch) == []
    read = hashes(monkeypatch)
    assert verified_mask(copied, mask).values.tolist() == [i % 2 for i in range(17)] and not read


def test_a_mask_that_no_launcher_verified_is_compared(copied: TokenDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read = hashes(monkeypatch)
    assert len(verified_mask(copied, copied.prefix[:-1] + "m").values) == 17
    assert sorted(read) == ["m.bin", "t.bin"]


@pytest.mark.parametrize("changed", ["m.bin", "m.json", "t.bin"])
def test_what_changed_since_is_compared(copied: TokenDataset, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """Other codes, another sidecar or other tokens, however the launcher found them."""
    folder, mask = Path(copied.prefix).parent, copied.prefix[:-1] + "m"
    verify(copied, mask, monkeypatch)
    path = folder / changed
    if changed == "m.json":
        path.write_text(json.dumps({**json.loads(path.read_text()), "encoding": "graded", "data": {"tokens": 16}}))
    else:
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(MismatchError):
        verified_mask(TokenDataset.open(copied.prefix), mask)
