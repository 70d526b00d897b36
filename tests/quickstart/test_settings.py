"""Which judges are warned of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ifguide.quickstart.pipeline import OWN_JUDGE, OWN_QUERIES, _caution
from ifguide.quickstart.settings import QuickstartSettings
from ifguide.scorers.classifier import train_classifier


def _write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": text}) + "\n" for prompt, text in rows))
    return path


def test_a_classifier_of_the_same_queries_is_warned_of(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    toxic = _write(tmp_path / "toxic.jsonl", [(f"p{n} ", f"you idiot number {n}") for n in range(12)])
    safe = _write(tmp_path / "safe.jsonl", [(f"q{n} ", f"a kind word of {n}") for n in range(12)])
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a"}\n')
    train_classifier(toxic, safe, tmp_path / "judge")

    def caution(scorer: str | None, toxic: Path = toxic) -> str | None:
        given = {"input": text, "toxic_queries": toxic, "safe_queries": safe}
        return _caution(QuickstartSettings(output=tmp_path / "out", scorer=scorer, **given))

    assert caution(None) == OWN_JUDGE
    assert caution(f"linear:{tmp_path / 'judge'}") == OWN_QUERIES
    # a copy under another name is the same queries; others are others
    assert caution(f"linear:{tmp_path / 'judge'}", Path(shutil.copy(toxic, tmp_path / "copy.jsonl"))) == OWN_QUERIES
    other = _write(tmp_path / "other.jsonl", [("p", "you are rude")])
    shutil.copytree(tmp_path / "judge", tmp_path / "foreign")
    config = json.loads((tmp_path / "foreign/config.json").read_text())
    config["inputs"] = [{"path": "/gone.jsonl", "hash": "ab"}]
    (tmp_path / "foreign/config.json").write_text(json.dumps(config))
    assert caution(f"linear:{tmp_path / 'foreign'}", other) is None
    for spec in ("guard:models/guard", "python:judge:score", "detoxify:unbiased-small", "linear:/nowhere"):
        assert caution(spec) is None
    assert _caution(QuickstartSettings(output=tmp_path / "out")) is None, "the built-in corpus has queries apart"
