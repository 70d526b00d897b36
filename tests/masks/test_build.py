"""Scores on disk -> masks on disk, against the literal Algorithm 1; controls; bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES, read_sidecar
from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.masks import BehaviourScores, MaskOptions, build_mask, build_masks
from ifguide.selection import SelectionSettings
from tests.masks.datasets import EOD, ended_documents, write_scores
from tests.selection.literal import literal_algorithm_1
from tests.support.datasets import write_tokens
from tests.support.folders import files

SETTINGS = SelectionSettings(0.9, 1, 0.08, None, 32)


def expected_mask(scores, starts, eod, settings=SETTINGS) -> np.ndarray:
    s = settings
    chosen = literal_algorithm_1(
        scores, starts, s.threshold_quantile, s.window, s.budget(len(scores)), s.unit_tokens, eod
    )
    mask = np.zeros(len(scores), np.uint8)
    mask[list(chosen)] = 1
    return mask


class Data:
    """Two corpora in a folder, with scores in two directions."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tokens: list[TokenDataset] = []
        self.scores: dict[str, list[np.ndarray]] = {"insults": [], "threats": []}
        for number, dtype in enumerate((np.uint16, np.int32)):
            prefix = folder / f"corpus{number}"
            self.tokens.append(write_tokens(prefix, ended_documents(number), dtype, tokenizer={"eod": EOD}))
            for seed, (name, found) in enumerate(self.scores.items()):
                found.append(write_scores(folder / f"{name}{number}", self.tokens[-1], 10 * seed + number))

    def prefixes(self, name: str, count: int = 2) -> list[Path]:
        return [self.folder / f"{name}{number}" for number in range(count)]

    def together(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(scores, starts, EOD positions) of both corpora as one."""
        starts = np.concatenate([[0], np.cumsum(np.concatenate([data.lengths for data in self.tokens]))])
        return np.concatenate(self.scores[name]), starts, np.concatenate([data.tokens == EOD for data in self.tokens])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return Data(tmp_path_factory.mktemp("data"))


def mask_of(prefix: Path, tokens: TokenDataset) -> np.ndarray:
    return np.array(load_aligned(prefix, tokens, PENALTIES).values)


def test_one_corpus_equals_the_literal_loop_and_says_where_it_comes_from(data, tmp_path):
    result = build_mask(data.folder / "insults0", tmp_path / "mask", SETTINGS)
    tokens, scores = data.tokens[0], data.scores["insults"][0]
    expected = expected_mask(scores, tokens.starts, tokens.tokens == EOD)
    assert mask_of(tmp_path / "mask", tokens).tolist() == expected.tolist()
    assert result["selected"] == expected.sum() and result["fraction"] == expected.mean()
    assert result["threshold"] == np.quantile(scores.astype(np.float64), 0.9)
    sidecar = read_sidecar(tmp_path / "mask")
    assert sidecar["threshold"] == result["threshold"] and sidecar["encoding"] == "binary"
    assert sidecar["counts"] == {key: result[key] for key in sidecar["counts"]} and sidecar["counts"]["toxic"] > 0
    assert sidecar["scores"]["prefix"] == str(data.folder / "insults0")
    assert sidecar["scores"]["fingerprint"] == read_sidecar(data.folder / "insults0")["fingerprint"]
    assert sidecar["parameters"]["unit_tokens"] == 32 and sidecar["parameters"]["method"] == "influence"
    assert sidecar["data_prefix"] == str(data.folder / "corpus0") and sidecar["command"] == []


def test_two_corpora_share_threshold_ranking_and_budget(data, tmp_path):
    outputs = [tmp_path / "a", tmp_path / "b"]
    result = build_masks([BehaviourScores("", data.prefixes("insults"), SETTINGS)], outputs)
    expected = expected_mask(*data.together("insults"))
    masks = [mask_of(prefix, tokens) for prefix, tokens in zip(outputs, data.tokens)]
    assert np.concatenate(masks).tolist() == expected.tolist()
    assert [corpus["selected"] for corpus in result["corpora"]] == [mask.sum() for mask in masks]
    sidecar = read_sidecar(outputs[1])
    assert [source["prefix"] for source in sidecar["scores"]] == [str(path) for path in data.prefixes("insults")]
    assert sidecar["counts"]["selected"] == masks[1].sum() and sidecar["counts"]["tokens"] == len(masks[1])


def test_categories_have_their_own_budgets_and_are_joined(data, tmp_path):
    small = SelectionSettings(0.95, 0, 0.02, None, 32)
    behaviours = [
        BehaviourScores("insults", data.prefixes("insults"), SETTINGS),
        BehaviourScores("threats", data.prefixes("threats"), small),
    ]
    result = build_masks(behaviours, [tmp_path / "a", tmp_path / "b"])
    each = [expected_mask(*data.together("insults")), expected_mask(*data.together("threats"), small)]
    masks = [mask_of(tmp_path / name, tokens) for name, tokens in zip("ab", data.tokens)]
    assert np.concatenate(masks).tolist() == np.maximum(*each).tolist()
    assert [about["counts"]["selected"] for about in result["categories"].values()] == [mask.sum() for mask in each]
    sidecar = read_sidecar(tmp_path / "a")
    assert sidecar["categories"]["threats"]["parameters"]["max_fraction"] == 0.02 and len(sidecar["scores"]) == 4


def test_graded_categories_take_the_larger_strength(data, tmp_path):
    names = ("insults", "threats")
    for name in names:
        build_mask(data.folder / f"{name}0", tmp_path / name, SETTINGS, MaskOptions(encoding="graded"))
    behaviours = [BehaviourScores(name, data.prefixes(name, 1), SETTINGS) for name in names]
    build_masks(behaviours, [tmp_path / "both"], MaskOptions(encoding="graded"))
    one, other, both = (mask_of(tmp_path / name, data.tokens[0]) for name in (*names, "both"))
    assert both.tolist() == np.maximum(one, other).tolist() and both.max() == 255 and len(set(both.tolist())) > 3


def test_the_random_control_has_the_same_size(data, tmp_path):
    outputs = [tmp_path / "a", tmp_path / "b"]
    behaviour = BehaviourScores("", data.prefixes("insults"), SETTINGS)
    size = build_masks([behaviour], outputs)["selected"]
    result = build_masks([behaviour], outputs, MaskOptions(method="random", seed=3))
    masks = np.concatenate([mask_of(prefix, tokens) for prefix, tokens in zip(outputs, data.tokens)])
    assert result["selected"] == masks.sum() == size
    assert not (masks.astype(bool) & data.together("insults")[2]).any()
    assert read_sidecar(outputs[0])["parameters"]["seed"] == 3


def test_document_removal_writes_mask_and_filtered_tokens(data, tmp_path):
    outputs, filtered = [tmp_path / "a", tmp_path / "b"], [tmp_path / "fa", tmp_path / "fb"]
    behaviour = BehaviourScores("", data.prefixes("insults"), SETTINGS)
    result = build_masks([behaviour], outputs, MaskOptions(method="document"), filtered_outputs=filtered)
    assert 0 < result["tokens_removed"] <= result["budget"] and result["documents_removed"] > 1
    removed = 0
    for tokens, mask_prefix, filtered_prefix in zip(data.tokens, outputs, filtered):
        mask, left = mask_of(mask_prefix, tokens), TokenDataset.open(filtered_prefix)
        documents = [tokens.document(i) for i in range(tokens.num_documents)]
        masked = [mask[tokens.starts[i] : tokens.starts[i + 1]] for i in range(tokens.num_documents)]
        # a whole document but its EOD, or nothing
        assert all(codes[:-1].all() or not codes.any() for codes in masked) and not mask[tokens.tokens == EOD].any()
        kept = [document.tolist() for document, codes in zip(documents, masked) if not codes.any()]
        assert [left.document(i).tolist() for i in range(left.num_documents)] == kept and left.dtype == tokens.dtype
        removed += tokens.num_tokens - left.num_tokens
        sidecar = read_sidecar(filtered_prefix)
        assert sidecar["tokenizer"] == {"eod": EOD} and sidecar["data_prefix"] == tokens.prefix
        assert sidecar["counts"] == {"documents": left.num_documents, "tokens": left.num_tokens}
        write_aligned(tmp_path / "again", left, np.zeros(left.num_tokens, np.float32), np.float32, {})
        assert read_sidecar(tmp_path / "again")["data"] == sidecar["fingerprint"]
    assert removed == result["tokens_removed"]


def test_filtered_tokens_without_a_mask_and_never_nothing(data, tmp_path):
    behaviour = BehaviourScores("", data.prefixes("insults", 1), SETTINGS)
    result = build_masks([behaviour], [], MaskOptions(method="document"), filtered_outputs=[tmp_path / "left"])
    assert (
        "selected" not in result
        and result["filtered"]["tokens"] == data.tokens[0].num_tokens - result["tokens_removed"]
    )
    (tmp_path / "new").mkdir()
    tokens = write_tokens(tmp_path / "one", [[1, 2, 3], [4, 5]], tokenizer={"eod": EOD})
    write_aligned(tmp_path / "s", tokens, np.array([5, 0, 0, 5, 0], np.float32), np.float32, {})
    everything = BehaviourScores("", [tmp_path / "s"], SelectionSettings(0.5, 1, 1.0))
    with pytest.raises(InputError, match=r"no document of .*s would be left"):
        build_masks(
            [everything], [tmp_path / "new/m"], MaskOptions(method="document"), filtered_outputs=[tmp_path / "new/f"]
        )
    assert files(tmp_path / "new") == {}


# end-of-document tokens


def test_eod_of_data_made_elsewhere_is_what_the_scoring_pass_used(data, tmp_path):
    tokens = write_tokens(tmp_path / "foreign", ended_documents(5))
    scores = write_scores(tmp_path / "s", tokens, 1, eod=EOD)
    build_mask(tmp_path / "s", tmp_path / "mask", SETTINGS)
    expected = expected_mask(scores, tokens.starts, tokens.tokens == EOD)
    assert mask_of(tmp_path / "mask", tokens).tolist() == expected.tolist()
    build_mask(
        tmp_path / "s", tmp_path / "mask", SelectionSettings(0.9, 1, 0.08, None, 32, include_eod=True)
    )  # fmt: skip
    expected = expected_mask(scores, tokens.starts, np.zeros(len(scores), bool))
    assert mask_of(tmp_path / "mask", tokens).tolist() == expected.tolist()


def test_nothing_says_which_token_ends_a_document(tmp_path):
    tokens = write_tokens(tmp_path / "foreign", ended_documents(5))
    write_scores(tmp_path / "s", tokens, 1)
    with pytest.raises(InputError, match=r"nothing says which token ends a document.*--include-eod"):
        build_mask(tmp_path / "s", tmp_path / "mask")


def test_tokens_that_moved(data, tmp_path):
    tokens = write_tokens(tmp_path / "first", ended_documents(5), tokenizer={"eod": EOD})
    write_scores(tmp_path / "s", tokens, 1)
    for suffix in (".bin", ".idx", ".json"):
        (tmp_path / f"first{suffix}").rename(tmp_path / f"second{suffix}")
    with pytest.raises(InputError, match=r"are not at .*first; say where with --data"):
        build_mask(tmp_path / "s", tmp_path / "mask")
    build_mask(tmp_path / "s", tmp_path / "mask", data_prefix=tmp_path / "second")
    assert read_sidecar(tmp_path / "mask")["data_prefix"] == str(tmp_path / "second")


# bad input


def test_nan_names_document_and_token_and_leaves_nothing(data, tmp_path):
    tokens = data.tokens[0]
    scores = data.scores["insults"][0].copy()
    document = int(np.argmax(tokens.lengths))
    scores[tokens.starts[document] + 2] = np.nan
    (tmp_path / "out").mkdir()
    write_aligned(tmp_path / "bad", tokens, scores, np.float32, {})
    with pytest.raises(NumericsError, match=f"bad: document {document}, token 2: nan"):
        build_mask(tmp_path / "bad", tmp_path / "out/mask")
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output", "m"], ["give either --scores, or --category"]),
        (["--scores", "S0", "--category", "x", "0.1", "S0", "--output", "m"], ["give either --scores, or --category"]),
        (["--scores", "S0", "S1", "--output", "m"], ["--output names 1 datasets for 2 corpora"]),
        (["--scores", "S0", "--output", "m", "--data", "D0", "D1"], ["--data names 2 datasets for 1 corpora"]),
        (["--scores", "S0", "S1", "--output", "m", "m"], ["is the name of an input or of another output"]),
        (["--scores", "S0", "--output", "S0"], ["is the name of an input or of another output"]),
        (["--scores", "S0", "--output", "no/m"], ["folder", "does not exist"]),
        (["--scores", "S0"], ["nothing to write: give --output"]),
        (["--category", "x", "0.1", "--output", "m"], ["expected a name, a share of tokens and score datasets"]),
        (["--category", "x", "S0", "S0", "--output", "m"], ["expected a name, a share of tokens and score datasets"]),
        (["--category", "x", "2", "S0", "--output", "m"], ["max fraction must be in [0, 1], got 2.0"]),
        (["--category", "x", "0.1", "S0", "--max-fraction", "0.1", "--output", "m"], ["has its own share"]),
        (["--category", "x", "0.1", "S0", "--category", "x", "0.2", "S0", "--output", "m"], ["the same name"]),
        (["--category", "x", "0.1", "S0", "--category", "y", "0.2", "S0", "S1", "--output", "m"], ["y names 2 score"]),
        (["--category", "x", "0.1", "S0", "--category", "y", "0.2", "S1", "--output", "m"], ["of different tokens"]),
        (["--scores", "S0", "--method", "wordlist", "--output", "m"], ["a word list go together"]),
        (["--scores", "S0", "--method", "random", "--encoding", "graded", "--output", "m"], ["does not select by"]),
        (["--scores", "S0", "--filtered-output", "f", "--output", "m"], ["give that method"]),
        (["--scores", "S0", "--data", "D1", "--output", "m"], ["made for other data than"]),
        (["--scores", "D0", "--output", "m"], ["holds tokens, not scores"]),
        (["--scores", "absent", "gone", "--output", "m", "n"], ["absent.idx does not", "gone.idx does not"]),
        (
            ["--scores", "S0", "--method", "random", "--encoding", "graded", "--output", "no/m", "n"],
            ["does not select by", "--output names 2", "folder"],
        ),
    ],
)  # fmt: skip
def test_bad_arguments(data, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    places = {
        f"{letter}{k}": data.folder / f"{name}{k}"
        for letter, name in (("S", "insults"), ("D", "corpus"))
        for k in (0, 1)
    }
    before = files(data.folder)
    assert main(["build-mask", *(str(places.get(argument, argument)) for argument in arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == max(1, len([part for part in says if part != "does not exist"]))
    assert all(part in "\n".join(lines) for part in says)
    assert files(data.folder) == before and files(tmp_path) == {}


def test_other_scores_than_the_tokens_of_a_category(data, tmp_path):
    behaviours = [
        BehaviourScores(name, [data.folder / prefix], SETTINGS)
        for name, prefix in (("a", "insults0"), ("b", "threats1"))
    ]
    with pytest.raises(MismatchError, match="different tokens"):
        build_masks(behaviours, [tmp_path / "m"])
    assert files(tmp_path) == {}


def test_a_mask_under_its_budget_says_why_and_which_flag_changes_it(data, tmp_path):
    """Each flag that is named is turned, and more is selected."""

    def built(name, **settings):
        s = SelectionSettings(**{"threshold_quantile": 0.9, "unit_tokens": 32, **settings})
        return build_mask(data.folder / "insults0", tmp_path / name, s)

    few = built("few", max_fraction=0.9)
    (line,) = few["shortfall"]
    assert line.startswith(f"{few['selected']:,} tokens are selected of a budget of {few['budget']:,}: ")
    assert f"the {few['toxic']:,} tokens above the threshold and their neighbours are all in" in line
    assert "a lower --threshold-quantile (now 0.9) or a larger --window" in line
    assert built("lower", max_fraction=0.9, threshold_quantile=0.8)["selected"] > few["selected"]
    assert built("wider", max_fraction=0.9, window=2)["selected"] > few["selected"]
    assert "neighbours" not in built("alone", max_fraction=0.9, window=0)["shortfall"][0]
    assert "--threshold-quantile" not in built("every", max_fraction=1.0, threshold_quantile=0)["shortfall"][0]

    budgets = [built("b", max_fraction=None, max_tokens=count) for count in range(20, 40)]
    assert {result["budget"] - result["selected"] for result in budgets} == {0, 1, 2}
    for result in budgets:
        if result["selected"] == result["budget"]:
            assert result["shortfall"] == []
        else:
            (line,) = result["shortfall"]
            assert line.endswith("neighbours do not fit whole; a larger --max-tokens selects more")


def test_every_method_and_category_says_it(data, tmp_path):
    settings = SelectionSettings(0.9, 1, 0.9, None, 32)
    behaviours = [BehaviourScores(name, data.prefixes(name), settings) for name in ("insults", "threats")]
    outputs = [tmp_path / "a", tmp_path / "b"]
    lines = build_masks(behaviours, outputs)["shortfall"]
    assert [line.partition(":")[0] for line in lines] == ["insults", "threats"]
    lines = build_masks(
        [BehaviourScores("", data.prefixes("insults"), settings)], outputs, MaskOptions(method="random")
    )["shortfall"]
    assert len(lines) == 1 and "--threshold-quantile" in lines[0]

    result = build_masks(
        [BehaviourScores("", data.prefixes("insults"), SETTINGS)], outputs, MaskOptions(method="document")
    )
    (line,) = result["shortfall"]
    assert f"documents of {result['tokens_removed']:,} tokens" in line and line.endswith("--max-fraction drops more")
    settings = SelectionSettings(0.999, 1, 1.0, None, 32)
    (line,) = build_masks(
        [BehaviourScores("", data.prefixes("insults"), settings)], outputs, MaskOptions(method="document")
    )["shortfall"]
    assert "all that have a token above the threshold; a lower --threshold-quantile drops more" in line


def test_the_command_says_it(data, tmp_path, capsys):
    arguments = ["build-mask", "--scores", str(data.folder / "insults0"), "--max-fraction", "0.9"]
    assert main([*arguments, "--output", str(tmp_path / "a")]) == 0
    *_, said, following = capsys.readouterr().out.splitlines()
    assert said.endswith("or a larger --window selects more")
    assert following == f"next: ifguide verify --data {data.folder / 'corpus0'} --mask {tmp_path / 'a'}"


def test_the_command(data, tmp_path, capsys):
    threats, insults = ([*map(str, data.prefixes(name))] for name in ("threats", "insults"))
    arguments = ["build-mask", "--category", "insults", "0.05", *insults, "--category", "threats", "0.01", *threats]
    assert main([*arguments, "--output", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{tmp_path / 'a'}: ") and shown[3].startswith("threats: ")
    assert all("of a budget of" in line for line in shown[4:])
    assert read_sidecar(tmp_path / "a")["command"][:2] == ["ifguide", "build-mask"]
