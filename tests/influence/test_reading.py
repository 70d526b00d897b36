"""Scores do not depend on how the model folder names its tokenizer: queries and windows are read as the data was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.errors import IFGuideWarning, InputError, MismatchError
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.curvature.job import fit_factors
from ifguide.influence.curvature.store import check_model, load_factors
from ifguide.influence.job import Inputs
from ifguide.influence.options import FitOptions, Method, Options
from ifguide.influence.planning.shape import read_shape
from ifguide.influence.queries import load_query_sets
from ifguide.influence.score import score
from ifguide.models.tracked import load_model
from tests.influence.conftest import VOCAB, save_tiny_model, write_queries
from tests.support.tokenizer_kinds import CORPUS, EOD, Kind, build, model_folder

TOXIC = [{"prompt": "The man said", "completion": " you are a DUMB fool"}, {"prompt": "", "completion": "A fool"}]
SAFE = [{"prompt": "The man said", "completion": " that the game was released"}]
DOCUMENTS = [*CORPUS, "The man said you are a dumb fool"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny Llama without a tokenizer, for any vocabulary of up to `VOCAB` tokens and windows of 16."""
    folder = save_tiny_model(tmp_path_factory.mktemp("weights") / "llama", "llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    # the tokenizer alone says which token ends texts
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None, "max_position_embeddings": 64}))
    return folder


def _model(weights: Path, folder: Path, kind: Kind, **config) -> Path:
    return model_folder(kind, Path(shutil.copytree(weights, folder)), **config)


def _data(folder: Path, kind: Kind, texts: list[str], name: str = "corpus", **options) -> str:
    source = folder / f"{name}.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return preprocess(
        [source], folder / name, *kind.files, options=PreprocessOptions(append_eod=True, **options), progress=False
    )["output"]


def _queries(folder: Path, toxic: list[dict] = TOXIC, safe: list[dict] = SAFE) -> tuple[Path, Path]:
    return write_queries(folder / "toxic.jsonl", toxic), write_queries(folder / "safe.jsonl", safe)


def _scores(folder: Path, model: Path, data: str, queries: tuple[Path, Path], **options) -> np.ndarray:
    folder.mkdir()
    fit_factors(model, data, folder / "f", FitOptions(strategy="identity", **options), quiet=True)
    inputs = Inputs(model, data, folder / "f", [QueryFiles(*queries)], folder / "s", **options)
    score(inputs, Options(method=Method(method="jvp")), quiet=True)
    return np.array(load_aligned(str(folder / "s"), TokenDataset.open(data), "scores").values)


def test_the_class_that_the_folder_names_changes_no_score(weights, tmp_path):
    kind = build("byte-level-lowercase", tmp_path)
    data, queries = _data(tmp_path, kind, DOCUMENTS), _queries(tmp_path)
    found = [
        _scores(tmp_path / f"run-{cls}", _model(weights, tmp_path / cls, kind, tokenizer_class=cls), data, queries)
        for cls in ("PreTrainedTokenizerFast", "GPT2TokenizerFast")
    ]
    assert np.any(found[0])
    np.testing.assert_array_equal(found[0], found[1])


def test_the_data_says_what_separates_documents(weights, tmp_path):
    kind = build("byte-level", tmp_path)
    data, queries = _data(tmp_path, kind, DOCUMENTS), _queries(tmp_path)
    plain, chat = (_model(weights, tmp_path / f"m{eos}", kind, eos_token=eos) for eos in (EOD, "<s>"))
    expected = _scores(tmp_path / "plain", plain, data, queries)
    with pytest.warns(IFGuideWarning, match=r"'<s>' \(1\).*'<\|endoftext\|>' \(0\).*--eod-token"):
        found = _scores(tmp_path / "chat", chat, data, queries)
    np.testing.assert_array_equal(found, expected)
    with pytest.warns(IFGuideWarning):
        assert read_shape(chat, data=data).eod == 0
    # the option decides otherwise, and factors of the one are not silently used with the other
    named = _scores(tmp_path / "named", chat, data, queries, eod_token="<s>")
    assert np.corrcoef(named, expected)[0, 1] < 0.99
    assert load_factors(tmp_path / "named" / "f").record["eod"] == 1
    with pytest.warns(IFGuideWarning, match="fitted with token 1"):
        check_model(load_factors(tmp_path / "named" / "f"), load_model(plain, data=data))


def test_templates_stand_before_queries_as_before_documents(weights, tmp_path):
    """The same as a tokenizer without a template whose texts spell the BOS."""
    templated, plain = (build(name, tmp_path / name) for name in ("byte-level+bos", "byte-level"))
    ours = _data(tmp_path, templated, DOCUMENTS, "ours")
    spelled = _data(tmp_path, plain, [f"<s>{text}" for text in DOCUMENTS], "spelled")
    np.testing.assert_array_equal(TokenDataset.open(ours).tokens, TokenDataset.open(spelled).tokens)
    found = _scores(tmp_path / "a", _model(weights, tmp_path / "m", templated), ours, _queries(tmp_path))
    rows = [[{**row, "prompt": f"<s>{row['prompt']}"} for row in rows] for rows in (TOXIC, SAFE)]
    expected = _scores(tmp_path / "b", _model(weights, tmp_path / "n", plain), spelled, _queries(tmp_path, *rows))
    np.testing.assert_array_equal(found, expected)
    # without it nowhere: another context for every document
    bare = _data(tmp_path, templated, DOCUMENTS, "bare", bos="strip")
    assert TokenDataset.open(bare).num_tokens == TokenDataset.open(ours).num_tokens - len(DOCUMENTS)
    stripped, kept = load_model(tmp_path / "m", data=bare).reader, load_model(tmp_path / "m", data=ours).reader
    assert (stripped.prompt("")[:2], kept.prompt("")[:2]) == ([0], [0, 1])


@pytest.mark.parametrize(
    "name", ["llama2", "metaspace+bos", "unigram", "sentencepiece", "wordpiece+bos+eos", "llama3+bos"]
)
def test_a_query_has_the_ids_of_its_text_in_a_document(name, weights, tmp_path):
    kind = build(name, tmp_path)
    row = {"prompt": "The man said", "completion": " you are a dumb fool"}
    data = _data(tmp_path, kind, ["".join(row.values())])
    model = load_model(_model(weights, tmp_path / "model", kind), data=data)
    toxic, _ = load_query_sets(*_queries(tmp_path, [row], [row]), model.reader, model.window)
    document = TokenDataset.open(data).document(0).tolist()
    without_end = document[: len(document) - 1 - len(model.reader.suffix)]
    assert [*toxic[0].inputs, toxic[0].labels[-1]] == [model.eod, *without_end]


def test_data_of_another_tokenizer_is_refused_at_once(weights, tmp_path):
    """Before the weights are read: the folder has none that could be."""
    data = _data(tmp_path, build("byte-level", tmp_path), DOCUMENTS)
    other = _model(weights, tmp_path / "model", build("byte-level-lowercase", tmp_path / "other"))
    for path in other.glob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(MismatchError, match=r"is not the one that .* was made with"):
        fit_factors(other, data, tmp_path / "f", FitOptions(strategy="identity"), quiet=True)
    assert not (tmp_path / "f").exists()


def test_factors_of_another_tokenizer_are_refused(weights, tmp_path):
    model = _model(weights, tmp_path / "model", build("byte-level", tmp_path / "k"))
    data = _data(tmp_path, build("byte-level", tmp_path), DOCUMENTS)
    fit_factors(model, data, tmp_path / "f", FitOptions(strategy="identity"), quiet=True)
    factors = load_factors(tmp_path / "f")
    check_model(factors, load_model(model))
    shutil.copyfile(build("byte-level-lowercase", tmp_path / "l").vocab_file, model / "tokenizer.json")
    with pytest.raises(MismatchError, match="another tokenizer"):
        check_model(factors, load_model(model))
    del factors.record["tokenizer"]  # as earlier versions wrote it
    check_model(factors, load_model(model))


def test_a_lone_surrogate_is_a_fault_of_its_query(tmp_path):
    from ifguide.data.text.reader import TextReader

    reader = TextReader.from_files("CharLevelTokenizer", None)
    files = _queries(tmp_path, [SAFE[0], {"prompt": "The man \ud83d said", "completion": " you"}], SAFE)
    with pytest.raises(InputError, match=r"toxic\.jsonl line 2: .*lone surrogate"):
        load_query_sets(*files, reader, VOCAB)
