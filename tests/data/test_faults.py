"""Every known corruption is found by `verify`, alone and with the others, and refused by what would read the data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.aligned import load_aligned, require_finite
from ifguide.data.faults import RangeCheck, chunks
from ifguide.data.indexed import TokenDataset
from ifguide.data.verify import verify
from ifguide.errors import IFGuideError, MismatchError
from tests.data.corruptible import TOKENIZER, Project
from tests.data.corruptions import ALL
from tests.engine.tiny import MODEL, SEQ_LENGTH


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.create(tmp_path_factory.mktemp("sound") / "project")


@pytest.fixture
def project(sound: Project, tmp_path: Path) -> Project:
    """A copy to damage; the times of the files are kept, and so the sidecars are believed."""
    shutil.copytree(sound.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def read_scores(project: Project) -> None:
    """As build-mask does."""
    require_finite(load_aligned(project.scores, TokenDataset.open(project.data), "scores"))


def train(project: Project) -> None:
    """Everything that training does with data: open, compare, pack, and read each sample of an epoch."""
    from ifguide.engine.arguments import TrainConfig
    from ifguide.engine.datasets import open_training_data, pack
    from ifguide.engine.packing import stack
    from ifguide.engine.settings import resolve

    values = {"data_path": project.data, "penalty_data_path": project.mask, "split": "1"}
    settings = resolve(TrainConfig(**{**MODEL, **values}))
    corpus = open_training_data(settings, TOKENIZER)
    count = corpus.tokens[project.data].num_tokens // SEQ_LENGTH
    result = pack(settings, corpus, TOKENIZER, count, 0)
    stack([result.train[index] for index in range(count)], TOKENIZER.vocab_size)


LOADERS: dict[str, Callable[[Project], None]] = {"training": train, "scores": read_scores}


def test_the_sound_project_is_sound(project: Project) -> None:
    for deep in (False, True):
        findings = verify(project.data, [project.mask], [project.scores], deep=deep)
        assert findings.faults == [] and findings.warnings == []
    for load in LOADERS.values():
        load(project)


def test_there_are_enough_kinds() -> None:
    assert len(ALL) >= 40
    assert sum(entry.refused_by in LOADERS for entry in ALL.values()) >= 40
    assert all(entry.refused_by in LOADERS or len(entry.refused_by) > 20 for entry in ALL.values())


@pytest.mark.parametrize("name", ALL)
def test_corruption(project: Project, name: str) -> None:
    entry = ALL[name]
    entry.damage(project)
    findings = verify(project.data, [project.mask], [project.scores], deep=entry.deep)
    messages = [fault.message for fault in findings.faults]
    assert {fault.name for fault in findings.faults} == set(entry.faults.split()), messages
    assert any(entry.says in message for message in messages), messages
    assert not any("\n" in message for message in messages)
    if entry.deep:
        assert not verify(project.data, [project.mask], [project.scores]).faults
    if entry.refused_by in LOADERS:
        with pytest.raises(IFGuideError) as refusal:
            LOADERS[entry.refused_by](project)
        assert "\n" not in str(refusal.value)
    else:
        train(project)


def test_a_missing_check_of_the_lengths_would_show(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The off-by-one mask is refused because lengths are compared, and for no other reason."""
    ALL["mask_is_off_by_one_token"].damage(project)
    with pytest.raises(MismatchError, match="2 documents of another length"):
        train(project)
    monkeypatch.setattr("ifguide.data.aligned.alignment_faults", lambda *arguments: [])
    train(project)


FINITE = {"f": (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["u1", "u2", "i1", "i2", "i4", "i8", "f4"]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
    st.sampled_from([0, 1, 100, 300, 70000]),
    st.integers(1, 7),
)
def test_range_check_is_the_literal_loop(dtype: str, seed: int, size: int, high: int, piece: int) -> None:
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    values = generator.integers(0, 256, size * kind.itemsize, dtype=np.uint8).view(kind)
    if kind.kind == "f":
        values = np.where(generator.random(size) < 0.2, generator.choice([np.nan, np.inf, -np.inf], size), values)
        values = values.astype(kind)
    elif generator.random() < 0.5:
        values = values % 3
    low, limit = FINITE["f"] if kind.kind == "f" else (0, high)
    check = RangeCheck(low, limit)
    for begin in range(0, size, piece):
        check(values[begin : begin + piece])
    bad = [(i, value) for i, value in enumerate(values.tolist()) if not low <= value <= limit]
    assert check.outside.count == len(bad)
    assert check.outside.nan == sum(value != value for _, value in bad)
    assert [i for i, _ in check.outside.first] == [i for i, _ in bad[:3]]
    assert str([value for _, value in check.outside.first]) == str([value for _, value in bad[:3]])


def test_chunks_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifguide.data.faults._CHUNK_BYTES", 48)
    values = np.arange(1000, dtype=np.int32)
    values.tofile(tmp_path / "values.bin")
    seen: list[int] = []
    pieces = [piece.copy() for piece in chunks(tmp_path / "values.bin", values.dtype, seen.append)]
    assert np.concatenate(pieces).tolist() == values.tolist()
    assert sum(seen) == 4000 and len(pieces) == 84


def test_the_first_offenders_are_named_across_chunks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifguide.data.faults._CHUNK_BYTES", 64)
    ALL["token_ids_are_beyond_the_vocabulary"].damage(project)
    (fault,) = verify(project.data).faults
    places = "512 at document 2, token 4, 2147483647 at document 2, token 5, 600 at document 3, token 52"
    assert fault.message.endswith(places) and fault.count == 3


def test_everything_at_once(project: Project) -> None:
    """Faults in five files, all in one run."""
    faults: dict[str, Any] = {}
    for name in (
        "doc_idx_decreases",
        "token_ids_are_beyond_the_vocabulary",
        "mask_code_is_two",
        "scores_are_nan",
        "index_cache_holds_objects",
        "sidecar_has_no_number_for_the_vocabulary",
        "mask_encoding_is_unknown",
    ):
        ALL[name].damage(project)
    for fault in verify(project.data, [project.mask], [project.scores], vocab_size=512).faults:
        faults[fault.name] = fault.message
    assert faults.keys() == {"doc-idx", "token-id", "encoding", "not-finite", "index-cache"}
