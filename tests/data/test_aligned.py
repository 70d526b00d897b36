from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.aligned import load_aligned, require_finite, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import read_sidecar, sidecar_path
from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.system.files import read_json, write_json
from tests.support.folders import files

BINARY = {"encoding": "binary"}


@pytest.fixture
def tokens(tokens_prefix) -> TokenDataset:
    return TokenDataset.open(tokens_prefix)


@pytest.fixture
def scores(tokens) -> np.ndarray:
    return np.random.default_rng(1).normal(size=tokens.num_tokens).astype(np.float32)


@pytest.fixture
def penalties(tokens) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 2, tokens.num_tokens).astype(np.uint8)


@pytest.fixture
def prefix(tmp_path) -> str:
    (tmp_path / "out").mkdir()
    return str(tmp_path / "out" / "aligned")


@pytest.mark.parametrize("kind", ["scores", "penalties"])
def test_round_trip_through_megatron_core(request, megatron, tokens, documents, prefix, kind):
    values = request.getfixturevalue(kind)
    write_aligned(prefix, tokens, values, values.dtype, BINARY if kind == "penalties" else {})
    theirs = megatron.IndexedDataset(prefix)
    assert theirs.index.dtype == values.dtype.type
    assert theirs.document_indices.tolist() == tokens.doc_idx.tolist()
    for i in range(len(documents)):
        expected = values[tokens.starts[i] : tokens.starts[i + 1]]
        assert theirs[i].tobytes() == expected.tobytes()
        assert theirs.get(i, offset=0, length=len(expected)).tobytes() == expected.tobytes()
    ours = load_aligned(prefix, tokens, kind)
    assert ours.values.tobytes() == values.tobytes()
    assert ours.starts.tolist() == tokens.starts.tolist()


def test_pieces_make_the_same_files_as_the_whole(tokens, scores, prefix):
    write_aligned(prefix, tokens, scores, np.float32, {})
    whole = files(Path(prefix).parent)
    write_aligned(prefix, tokens, (scores[i : i + 7] for i in range(0, len(scores), 7)), np.float32, {})
    again = files(Path(prefix).parent)
    for name in ("aligned.bin", "aligned.idx"):
        assert again[name] == whole[name]


def test_a_degenerate_doc_idx_is_kept(tmp_path, documents, prefix, write_raw):
    merged = write_raw(tmp_path / "merged", documents, np.uint16, 8, [0, 0, 6])
    with pytest.warns(UserWarning, match="2 groups of 6 sequences"):
        tokens = TokenDataset.open(merged)
    write_aligned(prefix, tokens, np.zeros(tokens.num_tokens, np.uint8), np.uint8, BINARY)
    assert load_aligned(prefix, tokens, "penalties").dataset.doc_idx.tolist() == [0, 0, 6]


def test_sidecar_keeps_what_the_caller_says_and_adds_the_identity(tokens, scores, prefix):
    write_json(sidecar_path(tokens.prefix), {"format_version": 1, "kind": "tokens", "tokenizer": {"identity": "abc"}})
    write_aligned(prefix, tokens, scores, np.float32, {"parameters": {"damping": 0.1}, "counts": {"documents": 6}})
    sidecar = read_sidecar(prefix)
    assert sidecar["kind"] == "scores" and sidecar["parameters"] == {"damping": 0.1}
    assert sidecar["data"]["documents"] == 6 and sidecar["data"]["dtype"] == "uint16"
    assert sidecar["data_prefix"] == tokens.prefix
    assert sidecar["tokenizer"] == {"identity": "abc"}
    assert "numpy" in sidecar["tool"]


def test_a_mask_can_be_made_from_its_scores_alone(tokens, scores, penalties, prefix, tmp_path):
    write_aligned(prefix, tokens, scores, np.float32, {})
    for suffix in (".idx", ".bin"):
        shutil.move(tokens.prefix + suffix, tmp_path / f"away{suffix}")
    loaded = load_aligned(prefix, None, "scores")
    write_aligned(prefix + "_mask", loaded, penalties, np.uint8, BINARY)
    for suffix in (".idx", ".bin"):
        shutil.move(tmp_path / f"away{suffix}", tokens.prefix + suffix)
    assert load_aligned(prefix + "_mask", tokens, "penalties").values.tolist() == penalties.tolist()


@pytest.mark.parametrize("count", [-1, 1])
def test_as_many_values_as_tokens(tokens, prefix, count):
    values = np.zeros(tokens.num_tokens + count, np.float32)
    with pytest.raises(MismatchError, match=rf"{len(values)} values for the {tokens.num_tokens} tokens"):
        write_aligned(prefix, tokens, values, np.float32, {})
    assert files(Path(prefix).parent) == {}


def test_programming_errors(tokens, scores, penalties, prefix):
    with pytest.raises(ValueError, match="needs an encoding"):
        write_aligned(prefix, tokens, penalties, np.uint8, {})
    with pytest.raises(ValueError, match="not float64"):
        write_aligned(prefix, tokens, scores, np.float64, {})
    with pytest.raises(TypeError, match="float32 values in a dataset of uint8"):
        write_aligned(prefix, tokens, scores, np.uint8, BINARY)


def test_a_binary_mask_holds_zeros_and_ones(tokens, penalties, prefix):
    penalties[5] = 7
    with pytest.raises(InputError, match="holds the value 7"):
        write_aligned(prefix, tokens, penalties, np.uint8, BINARY)
    write_aligned(prefix, tokens, penalties, np.uint8, {"encoding": "graded"})
    assert load_aligned(prefix, tokens, "penalties").values[5] == 7


def test_a_failure_on_the_way_leaves_the_old_files(tokens, scores, prefix):
    write_aligned(prefix, tokens, scores, np.float32, {})
    before = files(Path(prefix).parent)

    def dying():
        yield scores[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_aligned(prefix, tokens, dying(), np.float32, {})
    assert files(Path(prefix).parent) == before
    assert load_aligned(prefix, tokens, "scores").values.tolist() == scores.tolist()


@pytest.mark.parametrize("renames", [1, 2])
def test_killed_between_the_renames_never_loads(tokens, scores, prefix, monkeypatch, renames):
    """Every state that a kill can leave between the three renames is refused."""
    write_aligned(prefix, tokens, scores, np.float32, {})
    replace, done = os.replace, []

    def replace_then_die(source, target):
        if str(target).startswith(prefix):
            if len(done) == renames:
                raise SystemExit("killed")
            done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_then_die)
    with pytest.raises(SystemExit):
        write_aligned(prefix, tokens, scores + 1, np.float32, {})
    monkeypatch.undo()
    assert [Path(path).suffix for path in done] == [".bin", ".idx"][:renames]
    with pytest.raises(MismatchError, match=r"not what its sidecar describes \(content hash .* write it again"):
        load_aligned(prefix, tokens, "scores")


def test_a_copy_without_its_times_still_loads(tokens, scores, prefix):
    write_aligned(prefix, tokens, scores, np.float32, {})
    for suffix in (".bin", ".idx"):
        os.utime(prefix + suffix, ns=(1, 1))
    assert load_aligned(prefix, tokens, "scores").values.tolist() == scores.tolist()


def test_other_tokens_are_refused_with_the_difference(tmp_path, tokens, documents, scores, prefix, write_raw):
    write_aligned(prefix, tokens, scores, np.float32, {})

    def refusal(name: str, changed: list[list[int]]) -> str:
        other = TokenDataset.open(write_raw(tmp_path / name, changed, np.uint16, 8))
        with pytest.raises(MismatchError, match="made for other data than") as caught:
            load_aligned(prefix, other, "scores")
        return str(caught.value)

    assert "documents 6 != 7" in refusal("more", [*documents, [1, 2]])
    assert "tokens 90 != 92" in refusal("more", [*documents, [1, 2]])
    same_lengths = [[*documents[0][:-1], documents[0][-1] ^ 1], *documents[1:]]
    message = refusal("content", same_lengths)
    assert re.search(r"\(content hash [0-9a-f]{12} != [0-9a-f]{12}\): name the right data", message)


def test_another_tokenizer_is_refused(tokens, scores, prefix):
    def describe(identity: str) -> None:
        write_json(
            sidecar_path(tokens.prefix), {"format_version": 1, "kind": "tokens", "tokenizer": {"identity": identity}}
        )

    describe("a" * 64)
    write_aligned(prefix, tokens, scores, np.float32, {})
    load_aligned(prefix, tokens, "scores")
    describe("b" * 64)
    with pytest.raises(MismatchError, match="tokenizer aaaaaaaaaaaa != bbbbbbbbbbbb"):
        load_aligned(prefix, tokens, "scores")


def test_kind_and_dtype_are_checked(tokens, scores, prefix):
    write_aligned(prefix, tokens, scores, np.float32, {})
    with pytest.raises(MismatchError, match="holds scores, not penalties"):
        load_aligned(prefix, tokens, "penalties")
    lie = read_json(prefix + ".json") | {"kind": "penalties", "encoding": "binary"}
    write_json(prefix + ".json", lie)
    with pytest.raises(MismatchError, match="holds float32 values; penalties are uint8"):
        load_aligned(prefix, tokens, "penalties")


def test_without_a_usable_sidecar(tokens, penalties, prefix):
    write_aligned(prefix, tokens, penalties, np.uint8, BINARY)
    sidecar = read_json(prefix + ".json")
    for change, message in (
        ({"encoding": "other"}, "unknown encoding 'other'"),
        ({"format_version": 99}, "format version 99"),
    ):
        write_json(prefix + ".json", sidecar | change)
        with pytest.raises(InputError, match=message):
            load_aligned(prefix, tokens, "penalties")
    Path(prefix + ".json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_aligned(prefix, tokens, "penalties")
    Path(prefix + ".json").unlink()
    with pytest.raises(InputError, match="has no sidecar"):
        load_aligned(prefix, tokens, "penalties")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_require_finite_names_the_place(tokens, scores, prefix, monkeypatch, bad, chunk):
    monkeypatch.setattr("ifguide.data.aligned._CHUNK", chunk)
    write_aligned(prefix, tokens, scores, np.float32, {})
    require_finite(load_aligned(prefix, None, "scores"))
    scores[6] = bad  # documents have 5, 1, 0, 17 ... tokens: the first of document 3
    scores[40] = bad
    write_aligned(prefix, tokens, scores, np.float32, {})
    with pytest.raises(NumericsError, match=rf"{bad} at document 3, token 0;"):
        require_finite(load_aligned(prefix, None, "scores"))


def test_reading_and_writing_need_numpy_only():
    """These modules run inside the user's GPT-NeoX environment, beside another `megatron`."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'megatron', 'transformers', 'tokenizers']));"
        "import ifguide.data.aligned, ifguide.data.preprocess, ifguide.data.text.tokenizers"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
