"""A mask made elsewhere gets a sidecar, if it fits its tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES, read_sidecar
from ifguide.errors import InputError, MismatchError
from ifguide.masks import build_mask, import_mask
from tests.masks.datasets import EOD, ended_documents, write_scores
from tests.support.datasets import write_indexed, write_tokens
from tests.support.folders import files


@pytest.fixture
def tokens(tmp_path) -> TokenDataset:
    return write_tokens(tmp_path / "corpus", ended_documents(0), tokenizer={"identity": "abc", "eod": EOD})


def write_foreign(prefix: Path, codes: np.ndarray, lengths: np.ndarray, doc_idx=None, dtype: type = np.uint8) -> None:
    """A mask as another program writes it: without a sidecar."""
    write_indexed(prefix, np.split(codes, np.cumsum(lengths)[:-1]), dtype, doc_idx)


@pytest.fixture
def codes(tokens) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, tokens.num_tokens)


@pytest.mark.parametrize("doc_idx", [None, [0], [0, 0, 40]])
def test_a_binary_mask(tokens, codes, tmp_path, doc_idx):
    write_foreign(tmp_path / "mask", codes, tokens.lengths, doc_idx)
    before = files(tmp_path)
    result = import_mask(tokens.prefix, tmp_path / "mask")
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before and after.keys() - before.keys() == {"mask.json"}
    assert result["encoding"] == "binary" and result["selected"] == codes.sum()
    assert result["codes"] == {"1": codes.sum()}
    loaded = load_aligned(tmp_path / "mask", tokens, PENALTIES)
    assert loaded.values.tolist() == codes.tolist()
    assert loaded.sidecar["tokenizer"]["identity"] == "abc" and loaded.sidecar["counts"]["selected"] == codes.sum()
    assert import_mask(tokens.prefix, tmp_path / "mask")["selected"] == codes.sum()  # once more is no fault


def test_a_graded_mask_has_to_be_called_one(tokens, codes, tmp_path):
    document = int(np.argmax(tokens.lengths))
    codes[:] = 0
    codes[tokens.starts[document] + 3] = 200
    codes[-1] = 255
    write_foreign(tmp_path / "mask", codes, tokens.lengths)
    for encoding in (None, "binary"):
        with pytest.raises(InputError, match=rf"2 codes above 1, the first \(200\) in document {document}, token 3"):
            import_mask(tokens.prefix, tmp_path / "mask", encoding)
    assert "mask.json" not in files(tmp_path)
    assert import_mask(tokens.prefix, tmp_path / "mask", "graded")["codes"] == {"200": 1, "255": 1}
    assert load_aligned(tmp_path / "mask", tokens, PENALTIES).sidecar["encoding"] == "graded"


def test_other_documents(tokens, codes, tmp_path):
    lengths = tokens.lengths.copy()
    write_foreign(tmp_path / "fewer", codes[: -lengths[-1]], lengths[:-1])
    with pytest.raises(MismatchError, match=r"has 39 documents, .*corpus has 40"):
        import_mask(tokens.prefix, tmp_path / "fewer")
    lengths[5] += 1
    lengths[9] -= 1
    write_foreign(tmp_path / "cut", codes, lengths)
    with pytest.raises(
        MismatchError, match=f"2 documents .*first is document 5: {lengths[5]} codes for {lengths[5] - 1} tokens"
    ):
        import_mask(tokens.prefix, tmp_path / "cut")
    write_foreign(tmp_path / "wide", codes, tokens.lengths, dtype=np.int32)
    with pytest.raises(MismatchError, match="holds int32 values; a mask holds one uint8"):
        import_mask(tokens.prefix, tmp_path / "wide")
    assert [path.name for path in tmp_path.glob("*.json")] == ["corpus.json"]


def test_a_mask_that_knows_where_it_came_from_is_left_alone(tokens, tmp_path):
    write_scores(tmp_path / "scores", tokens, 0)
    build_mask(tmp_path / "scores", tmp_path / "mask")
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"mask.json exists.*remove it first"):
        import_mask(tokens.prefix, tmp_path / "mask")
    assert files(tmp_path) == before


def test_the_command(tokens, codes, tmp_path, capsys):
    write_foreign(tmp_path / "mask", codes, tokens.lengths)
    assert main(["import-mask", "--data", tokens.prefix, "--mask", str(tmp_path / "mask")]) == 0
    assert f"binary mask, {codes.sum():,} of {len(codes):,} tokens selected" in capsys.readouterr().out
    assert read_sidecar(tmp_path / "mask")["command"][:2] == ["ifguide", "import-mask"]
    for arguments, says in [
        (["--data", tokens.prefix, "--mask", tokens.prefix], "both name"),
        (["--data", tokens.prefix, "--mask", str(tmp_path / "absent")], "absent.idx does not exist"),
    ]:
        assert main(["import-mask", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and says in error
