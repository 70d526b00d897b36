"""Alignment: the penalty of a token acts where that token is the label, in every layout of documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.data.indexed import TokenDataset, write_index
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.datasets import open_training_data, pack, training_iterations
from ifguide.engine.packing import stack
from ifguide.engine.settings import TrainSettings, resolve
from ifguide.errors import InputError, MismatchError
from tests.engine.tiny import MODEL
from tests.support.datasets import write_indexed, write_mask, write_tokens
from tests.support.tokenizer_kinds import CORPUS, Kind, build

TOKENIZER = build_tokenizer("CharLevelTokenizer", None)
SELECTED = 200  # planted: exactly the tokens from here on are selected


def planted(folder: Path, name: str, seed: int, documents: int = 60) -> tuple[str, str]:
    """A dataset whose mask can be read off its tokens: token >= 200 <=> code 1. Returns (data, mask) prefixes."""
    generator = np.random.default_rng(seed)
    contents = [generator.integers(1, 256, size=generator.integers(1, 50)) for _ in range(documents)]
    tokens = write_tokens(folder / name, contents, np.int32)
    write_mask(folder / f"{name}_mask", tokens, tokens.tokens[:] >= SELECTED)
    return str(folder / name), str(folder / f"{name}_mask")


def configuration(**values: Any) -> TrainSettings:
    return resolve(TrainConfig(**{**MODEL, **values}))


def packed(settings: TrainSettings, train_samples: int, eval_samples: int = 1000) -> Any:
    return pack(settings, open_training_data(settings, TOKENIZER), TOKENIZER, train_samples, eval_samples)


def check_alignment(dataset: Any, count: int) -> None:
    batch = stack([dataset[index] for index in range(count)], 512)
    assert (batch.codes.bool() == (batch.labels >= SELECTED)).all()
    assert batch.codes.any() and not batch.codes.all()
    # the test can fail: input tokens are the labels shifted by one
    assert (batch.codes.bool() != (batch.tokens >= SELECTED)).any()
    assert (batch.tokens[:, 1:] == batch.labels[:, :-1]).all()


def test_codes_belong_to_labels_across_documents_and_epochs(tmp_path: Path) -> None:
    data, mask = planted(tmp_path, "a", 0)
    settings = configuration(data_path=data, penalty_data_path=mask, split="90,10,0")
    epochs = 3
    count = epochs * int(0.9 * open_training_data(settings, TOKENIZER).tokens[data].num_tokens) // 16
    result = packed(settings, count)
    check_alignment(result.train, count)
    assert not stack([result.valid[index] for index in range(len(result.valid))], 512).codes.any()


def test_every_token_of_an_epoch_is_a_label_once_with_its_code(tmp_path: Path) -> None:
    data, mask = planted(tmp_path, "a", 1)
    settings = configuration(
        data_path=data, penalty_data_path=mask, split="1", train_iters=None, train_epochs=1, train_batch_size=1
    )
    corpus = open_training_data(settings, TOKENIZER)
    iterations = training_iterations(settings, corpus)
    tokens = corpus.tokens[data]
    assert iterations == (tokens.num_tokens - 1) // 16
    result = pack(settings, corpus, TOKENIZER, iterations, 0)
    batch = stack([result.train[index] for index in range(iterations)], 512)
    seen = np.bincount(batch.labels.flatten().numpy(), minlength=256)
    # all but the first token of the stream, and the rest that fills no sample
    assert (seen <= np.bincount(tokens.tokens[:], minlength=256)).all()
    assert seen.sum() == iterations * 16 >= tokens.num_tokens - 17


def test_blend_keeps_each_datasets_own_mask(tmp_path: Path, process_group: None) -> None:
    (a, mask), (b, _) = planted(tmp_path, "a", 2), planted(tmp_path, "b", 3)
    write_tokens(tmp_path / "marked", [np.full(40, 300) for _ in range(30)])  # tokens that only this dataset has
    settings = configuration(
        train_data_paths=[a, str(tmp_path / "marked"), b],
        valid_data_paths=[b],
        test_data_paths=[b],
        train_penalty_data_paths=[mask, "", f"{b}_mask"],
        train_data_weights=[0.5, 0.2, 0.3],
    )
    result = packed(settings, 100)
    batch = stack([result.train[index] for index in range(100)], 512)
    unmasked = batch.labels == 300
    assert unmasked.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (batch.codes.bool() == ((batch.labels >= SELECTED) & ~unmasked)).all()


def test_graded_codes_arrive_unchanged(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "a", [np.arange(1, 31), np.arange(31, 80), np.arange(80, 256)])
    write_mask(tmp_path / "m", tokens, tokens.tokens[:], "graded")
    settings = configuration(data_path=str(tmp_path / "a"), penalty_data_path=str(tmp_path / "m"), split="1")
    result = packed(settings, 15)
    batch = stack([result.train[index] for index in range(15)], 512)
    assert (batch.codes.int() == batch.labels).all()


def test_validation_covers_every_token_and_pads_without_loss(tmp_path: Path) -> None:
    write_tokens(tmp_path / "train", [np.arange(1, 60)])
    write_tokens(tmp_path / "valid", [np.arange(1, 22)])
    paths = {f"{name}_data_paths": [str(tmp_path / name)] for name in ("train", "valid")}
    result = packed(configuration(**paths, test_data_paths=[str(tmp_path / "valid")]), 3)
    batch = stack([result.valid[index] for index in range(len(result.valid))], 512)
    assert sorted(batch.labels[batch.loss_mask > 0].tolist()) == list(range(2, 22))


def test_end_of_document_mask(tmp_path: Path) -> None:
    documents = [np.append(np.arange(1, 10), 0) for _ in range(20)]
    write_tokens(tmp_path / "a", documents)
    settings = configuration(data_path=str(tmp_path / "a"), split="1", eod_mask_loss=True)
    batch = stack([packed(settings, 5).train[index] for index in range(5)], 512)
    assert ((batch.loss_mask == 0) == (batch.tokens == 0)).all()


def test_a_merged_datasets_degenerate_doc_idx_is_no_obstacle(tmp_path: Path) -> None:
    write_indexed(tmp_path / "a", [np.arange(1, 60), np.arange(60, 100)], np.int32, doc_idx=[0])
    with pytest.warns(UserWarning, match="each sequence is a document"):
        train = packed(configuration(data_path=str(tmp_path / "a"), split="1"), 4).train
    assert train[0]["labels"].shape == (16,)


def test_impossible_ids_and_codes_are_refused_where_they_are_read(tmp_path: Path) -> None:
    """Packed, a negative id would be padding, one from 2**32 on another token with a code, a 2 a doubled penalty."""
    from ifguide.engine.packing import Documents

    for bad, dtype in ((-1, np.int32), (5 + (1 << 32), np.int64)):
        tokens = write_tokens(tmp_path / "a", [np.arange(1, 9), np.arange(9, 20)])
        values = tokens.tokens[:].astype(dtype)
        values[10] = bad
        values.tofile(tokens.bin_path)
        write_index(tokens.index_path, dtype, tokens.lengths, tokens.starts, tokens.doc_idx)
        documents = Documents(TokenDataset.open(tokens.prefix), None)
        assert documents.get(0).tolist() == list(range(1, 9))
        assert documents.get(1, 3).tolist() == list(range(12, 20))
        with pytest.raises(InputError, match="document 1 holds an impossible token id"):
            documents.get(1, 1, 4)


def test_the_index_cache_sees_changed_data(tmp_path: Path) -> None:
    for high in (100, 200):
        write_tokens(tmp_path / "a", [np.arange(high - 90, high) for _ in range(4)])
        result = packed(configuration(data_path=str(tmp_path / "a"), split="1"), 5)
        assert int(stack([result.train[index] for index in range(5)], 512).labels.max()) < high
    write_tokens(tmp_path / "a", [np.arange(1, 31) for _ in range(12)])  # as many tokens, other documents
    batch = stack([packed(configuration(data_path=str(tmp_path / "a"), split="1"), 5).train[i] for i in range(5)], 512)
    assert int(batch.labels.max()) == 30


def test_mask_of_other_data_is_refused(tmp_path: Path) -> None:
    (a, _), (_, other) = planted(tmp_path, "a", 4), planted(tmp_path, "b", 5)
    with pytest.raises(MismatchError, match="made for other data than"):
        open_training_data(configuration(data_path=a, penalty_data_path=other), TOKENIZER)


def _preprocessed(folder: Path, kind: Kind, name: str, **options: Any) -> str:
    source = folder / "corpus.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS), encoding="utf-8")
    return preprocess(
        [source], folder / name, *kind.files, options=PreprocessOptions(append_eod=True, **options), progress=False
    )["output"]


def test_data_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    """Also where the vocabulary is the same and only the normalizer differs."""
    kind = build("byte-level", tmp_path / "a")
    data = _preprocessed(tmp_path, kind, "d")
    other = tmp_path / "tokenizer.json"
    description = json.loads(kind.vocab_file.read_text(encoding="utf-8"))
    other.write_text(json.dumps(description | {"normalizer": {"type": "Lowercase"}}), encoding="utf-8")
    settings = configuration(data_path=data, tokenizer_type="HFTokenizer", vocab_file=str(other))
    with pytest.raises(MismatchError, match="made with another tokenizer"):
        open_training_data(settings, build_tokenizer("HFTokenizer", other))
    other.write_text(json.dumps(description, indent=1), encoding="utf-8")
    open_training_data(settings, build_tokenizer("HFTokenizer", other))


def test_the_separator_of_the_data_is_the_models(tmp_path: Path) -> None:
    kind = build("llama2+bos", tmp_path / "a")
    named = _preprocessed(tmp_path, kind, "named", eod_token="</s>", bos="strip")
    tokenizer = build_tokenizer(*kind.files)
    open_training_data(configuration(data_path=named), tokenizer)
    assert (tokenizer.eod, tokenizer.bos) == (tokenizer.token_id("</s>"), "strip")
    tokenizer.save_pretrained(tmp_path / "export")
    reader = TextReader.of_model(tmp_path / "export")
    assert (reader.eod_token, reader.prefix) == ("</s>", ())
    plain = _preprocessed(tmp_path, kind, "plain")
    mixed = configuration(train_data_paths=[named], valid_data_paths=[plain], test_data_paths=[plain])
    with pytest.raises(MismatchError, match="do not end and open their documents alike"):
        open_training_data(mixed, tokenizer)


def test_too_short_data_and_foreign_tokens_are_named(tmp_path: Path) -> None:
    write_tokens(tmp_path / "short", [np.arange(1, 10)])
    with pytest.raises(InputError, match=r"has 9 tokens; one sample needs 17"):
        packed(configuration(data_path=str(tmp_path / "short"), split="1"), 1)
    write_tokens(tmp_path / "large", [np.full(40, 600)])
    result = packed(configuration(data_path=str(tmp_path / "large"), split="1"), 1)
    with pytest.raises(InputError, match="holds token 600, the vocabulary has 512"):
        stack([result.train[0]], 512)
