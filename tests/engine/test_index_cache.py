"""The cache of sample indices: one folder for each set of all that they depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifguide.engine.index_cache import index_folder
from ifguide.system.cache import is_private


def test_one_folder_for_each_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for key in ({"tokens": "a", "seed": 1}, {"tokens": "a", "seed": 2}):
        with index_folder(key) as folder:
            assert list(Path(folder).iterdir()) == []
            (Path(folder) / "index").write_text(str(key))
    with index_folder({"seed": 1, "tokens": "a"}) as folder:
        assert (Path(folder) / "index").read_text() == "{'tokens': 'a', 'seed': 1}"
    built = list((tmp_path / "gpt-neox-ifguide" / "indices").iterdir())
    assert len(built) == 2 and all(map(is_private, built))
