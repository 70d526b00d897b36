"""Masks and scores of parts, merged as GPT-NeoX merges the tokens."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.data.sidecar import PENALTIES, SCORES, read_sidecar
from ifguide.errors import InputError, MismatchError, OutOfSpaceError
from ifguide.masks import BehaviourScores, MaskOptions, build_mask, build_masks, merge_masks
from ifguide.selection import SelectionSettings
from tests.conftest import TINY_DISK
from tests.masks.datasets import EOD, ended_documents, write_scores
from tests.support.datasets import write_tokens
from tests.support.folders import files

pytestmark = pytest.mark.filterwarnings("ignore:.*doc_idx")

SETTINGS = SelectionSettings(0.9, 1, 0.1)


class Parts:
    """Three corpora with scores and masks, and their merge as NeoX's tool writes it: doc_idx is [0]."""

    def __init__(self, folder):
        self.folder = folder
        documents = [ended_documents(seed, count) for seed, count in enumerate((7, 1, 12))]
        # two parts of equal lengths: only the content tells them apart
        documents.append([[token % 7 + 1 for token in document] for document in documents[0]])
        self.tokens = [write_tokens(folder / f"d{k}", part, tokenizer={"eod": EOD}) for k, part in enumerate(documents)]
        self.merged = write_tokens(folder / "merged", [*chain.from_iterable(documents)], doc_idx=[0])
        self.scores = [write_scores(folder / f"s{k}", data, k, eod=EOD) for k, data in enumerate(self.tokens)]
        for k in range(4):
            build_mask(folder / f"s{k}", folder / f"m{k}", SETTINGS)
        build_mask(folder / "s1", folder / "graded1", SETTINGS, MaskOptions(encoding="graded"))

    def prefixes(self, letter: str, order=(0, 1, 2, 3)):
        return [self.folder / f"{letter}{k}" for k in order]


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Parts:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return Parts(tmp_path_factory.mktemp("parts"))


def test_masks(parts, tmp_path):
    result = merge_masks(parts.prefixes("m"), tmp_path / "mask", parts.merged.prefix)
    merged = load_aligned(tmp_path / "mask", parts.merged, PENALTIES)
    expected = [np.array(load_aligned(prefix, None, PENALTIES).values) for prefix in parts.prefixes("m")]
    assert merged.values.tolist() == np.concatenate(expected).tolist()
    assert merged.dataset.doc_idx.tolist() == [0]
    assert result["selected"] == np.concatenate(expected).sum() == merged.sidecar["counts"]["selected"]
    assert [part["prefix"] for part in merged.sidecar["parts"]] == [str(path) for path in parts.prefixes("m")]
    assert merged.sidecar["parts"][2]["threshold"] == read_sidecar(parts.folder / "m2")["threshold"]


def test_merged_scores_select_as_the_parts_together_do(parts, tmp_path):
    merge_masks(parts.prefixes("s"), tmp_path / "scores", parts.merged.prefix, SCORES)
    merged = load_aligned(tmp_path / "scores", parts.merged, SCORES)
    assert merged.values.tobytes() == np.concatenate(parts.scores).tobytes()
    # the merged tokens have no sidecar: the scores say which token ends a document
    build_mask(tmp_path / "scores", tmp_path / "mask", SETTINGS)
    outputs = [tmp_path / f"o{k}" for k in range(4)]
    build_masks([BehaviourScores("", parts.prefixes("s"), SETTINGS)], outputs)
    together = np.concatenate([load_aligned(prefix, None, PENALTIES).values for prefix in outputs])
    assert load_aligned(tmp_path / "mask", parts.merged, PENALTIES).values.tolist() == together.tolist()


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (3, 1, 2, 0)], ids=["other lengths", "other content"])
def test_another_order(parts, tmp_path, order):
    with pytest.raises(MismatchError, match=r"give the parts in the order .*by file name"):
        merge_masks(parts.prefixes("m", order), tmp_path / "mask", parts.merged.prefix)
    assert files(tmp_path) == {}


def test_a_part_too_few_or_of_other_tokens(parts, tmp_path):
    with pytest.raises(MismatchError, match="the 3 parts together 20; name every part once"):
        merge_masks(parts.prefixes("m", (0, 1, 2)), tmp_path / "mask", parts.merged.prefix)
    wide = [parts.merged.document(i).tolist() for i in range(parts.merged.num_documents)]
    write_tokens(tmp_path / "wide", wide, np.int32, [0])
    with pytest.raises(MismatchError, match=r"not those that .*m0 was made for .*uint16"):
        merge_masks(parts.prefixes("m"), tmp_path / "mask", tmp_path / "wide")


def test_encodings_do_not_mix_unless_converted(parts, tmp_path):
    masks = parts.prefixes("m")
    masks[1] = parts.folder / "graded1"
    with pytest.raises(InputError, match=r"m0 binary, .*graded1 graded.*--convert-binary"):
        merge_masks(masks, tmp_path / "mask", parts.merged.prefix)
    result = merge_masks(masks, tmp_path / "mask", parts.merged.prefix, convert_binary=True)
    merged = load_aligned(tmp_path / "mask", parts.merged, PENALTIES)
    assert merged.sidecar["encoding"] == result["encoding"] == "graded"
    first = len(parts.scores[0])
    assert set(merged.values[:first].tolist()) == {0, 255}
    graded = load_aligned(parts.folder / "graded1", None, PENALTIES).values
    assert merged.values[first : first + len(graded)].tolist() == graded.tolist()


def test_a_full_disk_leaves_the_old_mask(parts, tiny_disk):
    merge_masks(parts.prefixes("m"), tiny_disk / "mask", parts.merged.prefix)
    used = sum(-(-len(content) // 4096) * 4096 for content in files(tiny_disk).values())
    (tiny_disk / "filler").write_bytes(bytes(TINY_DISK - used - 4096))
    before = files(tiny_disk)
    with pytest.raises(OutOfSpaceError, match="no space left"):
        merge_masks(parts.prefixes("m"), tiny_disk / "mask", parts.merged.prefix)
    assert files(tiny_disk) == before
    load_aligned(tiny_disk / "mask", parts.merged, PENALTIES)


def test_the_command(parts, tmp_path, capsys):
    scores, masks = ([*map(str, parts.prefixes(letter))] for letter in "sm")
    common = ["--data", parts.merged.prefix, "--output", str(tmp_path / "out")]
    assert main(["merge-masks", "--scores", *scores, *common]) == 0
    assert "4 parts, " in capsys.readouterr().out
    assert read_sidecar(tmp_path / "out")["kind"] == "scores"
    for arguments, says in [
        (["--masks", *scores, *common, "--overwrite"], "holds scores, not penalties"),
        (["--masks", masks[0], *common, "--overwrite"], "name two or more"),
        (["--masks", *masks, "--data", parts.merged.prefix, "--output", masks[1]], "the name of an input"),
        (["--masks", *masks, "--data", parts.merged.prefix, "--output", str(tmp_path / "no/out")], "does not exist"),
    ]:
        assert main(["merge-masks", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and says in error
