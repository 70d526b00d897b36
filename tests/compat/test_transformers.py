"""The revision of a model that was fetched from the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifguide.compat.transformers import commit_of

REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_the_revision_of_a_cached_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    (repository / "snapshots" / REVISION).mkdir(parents=True)
    assert commit_of("some/model") is None
    (repository / "snapshots" / REVISION / "config.json").write_text("{}")
    assert commit_of("some/model") == REVISION
    assert commit_of("some/other") is None
