"""Masks of spans on disk, against the literal loops; boundaries; what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.passages.boundaries import boundaries_prefix, known_boundaries
from ifguide.data.sidecar import PENALTIES, read_sidecar
from ifguide.data.text.tokenizers import CharLevelTokenizer
from ifguide.errors import InputError
from ifguide.masks import BehaviourScores, SpanOptions, build_masks
from ifguide.selection import SelectionSettings
from tests.masks.datasets import EOD
from tests.selection.literal_passages import (
    literal_passages,
    literal_selection,
    literal_strengths,
    literal_within,
)
from tests.support.datasets import write_tokens
from tests.support.folders import files

WORDS = ["you", "fool.", "the", "quiet", "garden!", "rubbish?", "\n", "all", "of", "it,", "and", "more\n"]


class Text:
    """Two corpora of characters in a folder, with two directions of influence and a classifier's scores."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tokens: list[TokenDataset] = []
        self.scores: dict[str, list[np.ndarray]] = {"insults": [], "threats": [], "classifier": []}
        generator = np.random.default_rng(0)
        tokenizer = {"type": "CharLevelTokenizer", "eod": EOD, "fingerprint": CharLevelTokenizer().fingerprint}
        for number in range(2):
            documents = [
                [*" ".join(generator.choice(WORDS, generator.integers(1, 30))).encode(), EOD] for _ in range(12)
            ]
            self.tokens.append(write_tokens(folder / f"corpus{number}", documents, tokenizer=tokenizer))
            size = self.tokens[-1].num_tokens
            for name, found in self.scores.items():
                values = generator.standard_t(3, size).astype(np.float32)
                if name == "classifier":
                    values = generator.integers(0, 5, size).astype(np.float32) / 4
                sidecar = {"scorer": {"name": "linear:x", "threshold": 0.4}} if name == "classifier" else {}
                write_aligned(folder / f"{name}{number}", self.tokens[-1], values, np.float32, sidecar)
                found.append(values)

    def prefixes(self, name: str, count: int = 2) -> list[str]:
        return [str(self.folder / f"{name}{number}") for number in range(count)]

    def outputs(self, folder: Path) -> list[str]:
        return [str(folder / f"mask{number}") for number in range(2)]

    def passages(self, name: str, kind: str, shrink: float = 0.0):
        """Those of both corpora as one, cut by the plain rule for characters."""
        scores = np.concatenate(self.scores[name])
        ids = np.concatenate([data.tokens for data in self.tokens])
        starts = np.concatenate([[0], np.cumsum(np.concatenate([data.lengths for data in self.tokens]))])
        radius = int(kind[7:]) if kind.startswith("window") else None
        ends = []
        for i, token in enumerate(ids):
            after = bytes([ids[i + 1]]) if i + 1 < len(ids) else b"\0"
            stop = kind == "sentence" and chr(token) in ".!?" and after in (b" ", b"\n", b"\0")
            ends.append(token in (10, EOD) or stop)
        return literal_passages(scores, starts, ids == EOD, ends, radius, shrink)

    def masks(self, folder: Path) -> np.ndarray:
        return np.concatenate(
            [load_aligned(path, data, PENALTIES).values for path, data in zip(self.outputs(folder), self.tokens)]
        )

    @property
    def size(self) -> int:
        return sum(data.num_tokens for data in self.tokens)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Text:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return Text(tmp_path_factory.mktemp("text"))


def run(capsys, *words: str) -> dict:
    assert main(["build-mask", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def mask_of(text: Text, chosen, codes=None) -> list[int]:
    mask = np.zeros(text.size, np.uint8)
    for _, members, _ in chosen:
        mask[members] = 1
    return mask.tolist()


@pytest.mark.parametrize(
    ("span", "shrink"), [("line", 0.0), ("sentence", 0.0), ("sentence", 4.0), ("window:3", 0.0), ("window:0", 1.0)]
)
def test_whole_spans_equal_the_literal_loop(text, tmp_path, capsys, span, shrink):
    result = run(
        capsys, "--scores", *text.prefixes("insults"), "--output", *text.outputs(tmp_path), "--span", span,
        "--shrink", str(shrink), "--max-fraction", "0.1",
    )  # fmt: skip
    window = span.startswith("window")
    chosen, short = literal_selection(
        text.passages("insults", span, shrink), math.floor(0.1 * text.size), window, shrink, True
    )
    assert text.masks(tmp_path).tolist() == mask_of(text, chosen)
    assert result["selected"] == sum(len(members) for _, members, _ in chosen) > 0
    assert result["spans_selected"] == len(chosen) and result.get("spans_short", 0) == len(short)
    assert result["threshold"] == chosen[-1][2]
    sidecar = read_sidecar(text.outputs(tmp_path)[0])
    assert sidecar["parameters"]["span"] == span and sidecar["parameters"]["max_fraction"] == 0.1


def test_graded_codes_follow_the_score_of_the_span(text, tmp_path, capsys):
    run(
        capsys, "--scores", *text.prefixes("insults"), "--output", *text.outputs(tmp_path), "--span", "line",
        "--max-tokens", "300", "--encoding", "graded",
    )  # fmt: skip
    chosen, _ = literal_selection(text.passages("insults", "line"), 300, False, 0.0, True)
    expected = sorted((i, score) for _, members, score in chosen for i in members)
    codes = text.masks(tmp_path)
    assert codes[codes > 0].tolist() == literal_strengths([score for _, score in expected])


@pytest.mark.parametrize("rule", ["each", "global"])
@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_tokens_within_spans_of_a_classifier(text, tmp_path, capsys, rule, order):
    words = [
        "--scores", *text.prefixes("insults"), "--output", *text.outputs(tmp_path), "--span", "sentence",
        "--span-scores", *text.prefixes("classifier"), "--span-fraction", "0.3", "--tokens-within", "0.5",
        "--within-rule", rule, "--tokens-within-order", order,
    ]  # fmt: skip
    result = run(capsys, *words)
    spans, _ = literal_selection(
        text.passages("classifier", "sentence"), math.floor(0.3 * text.size), False, 0.0, False
    )

    class Settings:
        share, spans = 0.5, 0.3

    Settings.rule, Settings.order = rule, order
    scores = np.concatenate(text.scores["insults"])
    expected = literal_within(scores, spans, text.size, Settings, float)
    assert np.flatnonzero(text.masks(tmp_path)).tolist() == expected
    assert result["budget"] == math.floor(0.15 * text.size)
    sidecar = read_sidecar(text.outputs(tmp_path)[0])
    assert [record["prefix"] for record in sidecar["span_scores"]] == text.prefixes("classifier")
    assert sidecar["parameters"]["span_fraction"] == 0.3 and sidecar["parameters"]["tokens_within"] == 0.5
    # the same command has nothing to do
    assert run(capsys, *words)["unchanged"]


def test_the_budget_stands_for_the_share_that_is_not_given(text, tmp_path):
    def built(name: str, **given) -> dict:
        (tmp_path / name).mkdir()
        fraction = given.pop("max_fraction", None)
        options = SpanOptions("line", **given)
        settings = SelectionSettings(max_fraction=0.02 if fraction is None else fraction)
        outputs = text.outputs(tmp_path / name)
        build_masks([BehaviourScores("", text.prefixes("insults"), settings)], outputs, spans=options)
        return read_sidecar(outputs[0])["parameters"]

    assert built("a", max_fraction=0.1, tokens_within=0.5)["span_fraction"] == 0.2
    assert built("b", max_fraction=0.1, span_fraction=0.4)["tokens_within"] == 0.25
    with pytest.raises(InputError, match="must be at most 1"):
        built("c", max_fraction=0.4, tokens_within=0.3)


def test_the_random_control_follows_its_seed(text, tmp_path, capsys):
    masks = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        run(
            capsys, "--scores", *text.prefixes("insults"), "--output", *text.outputs(tmp_path / name), "--span", "line",
            "--tokens-within", "0.5", "--span-fraction", "0.4", "--tokens-within-order", "random", "--seed", seed,
        )  # fmt: skip
        masks.append(text.masks(tmp_path / name).tolist())
    assert masks[0] == masks[1] != masks[2] and sum(masks[0]) > 0


def test_every_category_has_its_budget(text, tmp_path, capsys):
    result = run(
        capsys, "--category", "insults", "0.05", *text.prefixes("insults"), "--category", "threats", "0.1",
        *text.prefixes("threats"), "--output", *text.outputs(tmp_path), "--span", "sentence",
    )  # fmt: skip
    expected = np.zeros(text.size, np.uint8)
    for name, share in (("insults", 0.05), ("threats", 0.1)):
        chosen, _ = literal_selection(text.passages(name, "sentence"), math.floor(share * text.size), False, 0.0, True)
        expected |= np.array(mask_of(text, chosen), np.uint8)
        assert result["categories"][name]["counts"]["spans_selected"] == len(chosen)
    assert text.masks(tmp_path).tolist() == expected.tolist()


def literal_ranks(passages) -> dict[int, float]:
    """First position -> mid-rank."""
    every = sum(len(members) for _, members, _ in passages)
    return {
        first: (
            sum(len(m) for _, m, s in passages if s < score) + sum(len(m) for _, m, s in passages if s == score) / 2
        )
        / every
        for first, _, score in passages
    }


def test_combined_rankings_add_their_weighted_ranks(text, tmp_path, capsys):
    run(
        capsys, "--combine", "1", *text.prefixes("classifier"), "--combine", "0.25", *text.prefixes("insults"),
        "--output", *text.outputs(tmp_path), "--span", "line", "--max-fraction", "0.2",
    )  # fmt: skip
    ranked = {
        name: [passage for passage in text.passages(name, "line") if len(passage[1]) >= 3]
        for name in ("classifier", "insults")
    }
    first, second = (literal_ranks(ranked[name]) for name in ("classifier", "insults"))
    added = [(begin, members, first[begin] + 0.25 * second[begin]) for begin, members, _ in ranked["classifier"]]
    chosen, _ = literal_selection(added, math.floor(0.2 * text.size), False, 0.0, False)
    assert text.masks(tmp_path).tolist() == mask_of(text, chosen)


@pytest.mark.parametrize(("name", "threshold", "limit"), [
    ("classifier", "0.55", 0.55), ("classifier", "default", 0.4), ("threats", "default", None),
])  # fmt: skip
def test_only_spans_that_another_score_suspects(text, tmp_path, capsys, name, threshold, limit):
    run(
        capsys, "--scores", *text.prefixes("insults"), "--within", threshold, *text.prefixes(name), "--output",
        *text.outputs(tmp_path), "--span", "line", "--max-fraction", "0.2",
    )  # fmt: skip
    others = {first: score for first, members, score in text.passages(name, "line") if len(members) >= 3}
    limit = float(np.quantile(list(others.values()), 0.9)) if limit is None else limit
    kept = [p for p in text.passages("insults", "line") if len(p[1]) >= 3 and others[p[0]] > limit]
    chosen, _ = literal_selection(kept, math.floor(0.2 * text.size), False, 0.0, True)
    assert text.masks(tmp_path).tolist() == mask_of(text, chosen) and chosen
    assert read_sidecar(text.outputs(tmp_path)[0])["parameters"]["within"] == [limit]


def test_boundaries_are_kept_and_need_no_tokenizer_afterwards(text, tmp_path):
    """The second time in a Python that has no tokenizer."""
    for data in text.tokens:
        for path in Path(text.folder).glob(f"{Path(boundaries_prefix(data.prefix)).name}*"):
            path.unlink()
    words = [
        "build-mask", "--scores", *text.prefixes("insults"), "--output", *text.outputs(tmp_path), "--span", "line",
        "--overwrite",
    ]  # fmt: skip
    assert main(words) == 0
    assert all(known_boundaries(data) is not None for data in text.tokens)
    first = files(tmp_path)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['tokenizers', 'transformers', 'torch', 'sklearn', 'scipy'])); "
        "from ifguide.data.text import tokenizers; tokenizers._TYPES = {}; "
        f"from ifguide.cli import main; sys.exit(main({words!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert {name: data for name, data in files(tmp_path).items() if not name.endswith(".json")} == {
        name: data for name, data in first.items() if not name.endswith(".json")
    }


def test_boundaries_of_other_tokens_are_made_again(tmp_path):
    tokenizer = {"type": "CharLevelTokenizer", "eod": EOD}
    for words in (b"one\ntwo", b"o\ne two"):
        tokens = write_tokens(tmp_path / "data", [[*words, EOD]], tokenizer=tokenizer)
        write_aligned(tmp_path / "scores", tokens, np.ones(8, np.float32), np.float32, {})
        settings = SelectionSettings(max_fraction=1.0)
        build_masks(
            [BehaviourScores("", [tmp_path / "scores"], settings)], [tmp_path / "mask"], spans=SpanOptions("line")
        )
        found = known_boundaries(tokens)
        assert found is not None and np.flatnonzero(found.values).tolist() == [words.index(b"\n"), 7]


def test_data_without_a_tokenizer_says_what_to_name(tmp_path, capsys):
    tokens = write_tokens(tmp_path / "data", [[*b"one two", EOD]], tokenizer={"eod": EOD})
    write_aligned(tmp_path / "scores", tokens, np.ones(8, np.float32), np.float32, {})
    words = ["build-mask", "--scores", str(tmp_path / "scores"), "--output", str(tmp_path / "mask"), "--span", "line"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "has no boundaries" in error and "--tokenizer-type" in error and "Traceback" not in error
    assert main([*words, "--tokenizer-type", "CharLevelTokenizer", "--max-fraction", "1"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--span", "line", "--window", "2"], "--window has no meaning for --span line"),
        (["--span", "line", "--unit-tokens", "9", "--include-eod"], "--unit-tokens, --include-eod"),
        (["--span", "lines"], "must be token, line, sentence or window:W"),
        (["--tokens-within", "0.5"], "--tokens-within selects by spans"),
        (["--span", "window:3", "--tokens-within", "0.5"], "not of windows"),
        (["--span", "line", "--tokens-within", "0.5", "--span-fraction", "0.1", "--max-fraction", "0.1"], "already"),
        (["--span", "line", "--tokens-within", "0.5", "--max-tokens", "9"], "not --max-tokens"),
        (["--span", "line", "--tokens-within", "1.5"], "--tokens-within 1.5"),
        (["--span", "line", "--combine", "much", "S"], "expected a weight"),
        (["--span", "line", "--within", "0.5"], "expected a threshold"),
        (["--span", "line", "--method", "random"], "--method random does not"),
        (["--span", "line", "--span-scores", "a", "b", "c"], "names 3 datasets for 2 corpora"),
        (["--span", "line", "--shrink", "-1"], "--shrink -1"),
    ],
)  # fmt: skip
def test_refuses_in_one_line(text, tmp_path, capsys, words, message):
    given = ["build-mask", "--scores", *text.prefixes("insults"), "--output", *text.outputs(tmp_path)]
    assert main([*given, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not files(tmp_path)


def test_refuses_a_cascades_scores(text, tmp_path):
    write_aligned(
        tmp_path / "scores", text.tokens[0], text.scores["insults"][0], np.float32, {"cascade": {"report": {}}}
    )
    with pytest.raises(InputError, match="cascade"):
        build_masks(
            [BehaviourScores("", [tmp_path / "scores"], SelectionSettings())],
            [tmp_path / "mask"],
            spans=SpanOptions("line"),
        )
    assert not (tmp_path / "mask.json").exists()


def test_the_short_form_is_score_text_and_a_mask_of_its_lines(text, tmp_path, capsys):
    pytest.importorskip("torch")
    data = [tokens.prefix for tokens in text.tokens]
    for prefix, number in zip(data, range(2)):
        assert (
            main(["score-text", "--data", prefix, "--scorer", "lexicon", "--output", str(tmp_path / f"S{number}")]) == 0
        )
    (tmp_path / "long").mkdir()
    (tmp_path / "short").mkdir()
    share = ["--max-fraction", "0.2"]
    suspects = [str(tmp_path / f"S{number}") for number in range(2)]
    run_words = ["--output", *text.outputs(tmp_path / "long"), "--span", "line", *share]
    capsys.readouterr()
    run(capsys, "--scores", *suspects, *run_words)
    short = ["--method", "classifier", "--scorer", "lexicon", "--data", *data, *share]
    result = run(capsys, *short, "--output", *text.outputs(tmp_path / "short"))
    assert text.masks(tmp_path / "short").tolist() == text.masks(tmp_path / "long").tolist() and result["selected"]
    assert run(capsys, *short, "--output", *text.outputs(tmp_path / "short"))["unchanged"]
    # influence inside its lines
    for name, words in (
        ("long", ["--scores", *text.prefixes("insults"), "--span", "line", "--span-scores", *suspects]),
        ("short", ["--scores", *text.prefixes("insults"), *short[:-2]]),
    ):
        outputs = text.outputs(tmp_path / name)
        run(capsys, *words, "--output", *outputs, "--tokens-within", "0.5", "--span-fraction", "0.3", "--overwrite")
    assert text.masks(tmp_path / "short").tolist() == text.masks(tmp_path / "long").tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "classifier"], "give --scorer and --data"),
        (["--method", "classifier", "--scorer", "lexicon", "--data", "a", "--span-scores", "b"], "its own scores"),
        (["--span", "line", "--scorer", "lexicon"], "--scorer is of --method classifier"),
        (["--method", "classifier", "--scorer", "lexicon", "--data", "a", "--scores", "b"], "give --tokens-within"),
    ],
)
def test_the_short_form_refuses_in_one_line(tmp_path, capsys, words, message):
    assert main(["build-mask", "--output", str(tmp_path / "m"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
