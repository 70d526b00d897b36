"""One text has one reading: every kind of tokenizer, every use, against the libraries and against the bytes."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.sidecar import read_sidecar
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.errors import IFGuideWarning, InputError, MismatchError
from ifguide.system.text_files import NotUnicodeError
from tests.support.tokenizer_kinds import CORPUS, EOD, KINDS, TEMPLATED, TEXTS, Kind, build, model_folder

# parts of a template, as a tokenizer.json spells them
_TEXT = {"Sequence": {"id": "A", "type_id": 0}}
_EOS = {"SpecialToken": {"id": "</s>", "type_id": 0}}


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    root = tmp_path_factory.mktemp("kinds")
    return {name: build(name, root / name) for name in KINDS}


def _library(kind: Kind, text: str) -> list[int]:
    """Ids as the library gives them, with the template, as GPT-NeoX's own preprocessing calls it."""
    if kind.tokenizer_type == "CharLevelTokenizer":
        return list(text.encode())
    if kind.tokenizer_type == "SPMTokenizer":
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=str(kind.vocab_file)).encode(text)
    if kind.merge_file:
        from transformers import GPT2Tokenizer

        return GPT2Tokenizer(str(kind.vocab_file), str(kind.merge_file)).encode(text)
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(kind.vocab_file)).encode(text).ids


def _preprocess(folder: Path, kind: Kind, texts: list[str], name: str = "corpus", **options) -> dict:
    source = folder / f"{name}.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return preprocess(
        [source], folder / name, *kind.files, options=PreprocessOptions(append_eod=True, **options), progress=False
    )


def _documents(prefix: str) -> list[list[int]]:
    data = TokenDataset.open(prefix)
    return [data.document(number).tolist() for number in range(data.num_documents)]


@pytest.mark.parametrize("name", KINDS)
def test_every_use_reads_a_text_as_the_data_does(name, kinds, tmp_path):
    kind = kinds[name]
    stats = _preprocess(tmp_path, kind, list(TEXTS))
    reader = TextReader.of_data(stats["output"])
    readers = [reader, TextReader.from_files(*kind.files)]
    if kind.tokenizer_type != "CharLevelTokenizer":
        folder = model_folder(kind, tmp_path / "model")
        readers += [TextReader.of_model(folder), TextReader.of_model(folder, stats["output"])]
    assert [reader.tokenizer.token_name(index) for index in reader.prefix] == list(kind.prefix)
    assert [reader.tokenizer.token_name(index) for index in reader.suffix] == list(kind.suffix)
    for text, document in zip(TEXTS, _documents(stats["output"]), strict=True):
        assert document == [*_library(kind, text), reader.eod]
        for other in readers:
            ids = other.encode(text)
            assert document == [*reader.prefix, *ids, *reader.suffix, reader.eod]
            assert document == [*other.document(text), other.eod]
            assert other.encode_batch([text, "x"])[0] == ids
            assert other.prompt(text) == [reader.eod, *reader.prefix, *ids]
            for cut in range(len(text)):
                tokens, is_target = other.query(text[:cut], text[cut:])
                assert tokens == other.prompt(text)
                assert len(is_target) == len(tokens)
                assert not any(is_target[: 1 + len(reader.prefix)])
            assert all(other.query("", text).is_target[1 + len(reader.prefix) :])
            assert not any(other.query(text, "").is_target)


@pytest.mark.parametrize("name", [name for name in KINDS if "+" not in name])
def test_targets_are_the_tokens_that_hold_a_byte_of_the_completion(name, kinds):
    """Counted on the bytes that the tokens themselves spell, where they spell the text."""
    kind = kinds[name]
    if not kind.lossless:
        pytest.skip("its tokens do not spell every text")
    reader = TextReader.from_files(*kind.files)
    for text in (text for text in TEXTS if EOD not in text):
        pieces = [reader.token_bytes(index) for index in reader.encode(text)]
        dummy = len(b"".join(pieces)) - len(text.encode())
        assert dummy in (0, 1)
        ends = np.cumsum([len(piece) for piece in pieces]) - dummy
        for cut in range(1, len(text)):
            # a token that ends inside of a character holds a part of that character
            boundary = len(text[:cut].encode())
            assert reader.query(text[:cut], text[cut:]).is_target[1:] == (ends > boundary).tolist(), (text, cut)


CASES = {
    # merged across the boundary; a space that stands alone; capitals; an accent that joins the letter before it
    "byte-level": [
        ("The man sa", "id", ["Ġsaid"]),
        ("The man", "  ", ["Ġ", "Ġ"]),
        ("The man said ", "you", ["Ġ", "you"]),
    ],
    "byte-level-lowercase": [("The MAN", " YOU", ["Ġyou"]), ("The man sa", "ID", ["Ġsaid"])],
    "neox": [("said", "   that", ["   ", "that"]), ("caf", "e\u0301", ["Ã©"])],
    "llama2": [("The man", " you", ["▁you"]), ("The man ", "you", ["▁you"]), ("", "The man", ["▁The", "▁man"])],
    "metaspace": [("The man", " you", ["▁you"]), ("The man", " 世", ["▁", "世"])],
    "llama3+bos": [("The man", " you", ["Ġyou"]), ("", "The", ["The"])],
    "sentencepiece-bytes": [("The man", " ☃", ["▁", "<0xE2>", "<0x98>", "<0x83>"]), ("☃", " said", ["▁said"])],
    "wordpiece+bos+eos": [("The man", " YOU said", ["you", "said"]), ("The MAN sa", "id", ["said"])],
}


@pytest.mark.parametrize("name", CASES)
def test_targets_by_name(name, kinds):
    reader = TextReader.from_files(*kinds[name].files)
    for prompt, completion, expected in CASES[name]:
        tokens, is_target = reader.query(prompt, completion)
        found = [reader.tokenizer.token_name(index) for index, counts in zip(tokens, is_target) if counts]
        assert "".join(found) == "".join(expected), (prompt, completion)
        assert sum(is_target) >= 1


@pytest.mark.parametrize("name", ["byte-level", "llama2", "metaspace", "sentencepiece-bytes", "wordpiece", "neox"])
@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=12), completion=st.text(max_size=12))
def test_targets_end_every_query(name, kinds, prompt, completion):
    """They are the last tokens, and there is one wherever the completion is read at all."""
    reader = TextReader.from_files(*kinds[name].files)
    tokens, is_target = reader.query(prompt, completion)
    assert tokens == reader.prompt(prompt + completion)
    assert is_target == sorted(is_target)
    if len(reader.encode(prompt + completion)) > len(reader.encode(prompt)):
        assert any(is_target)


@pytest.mark.parametrize("name", ["llama2+bos", "wordpiece+bos+eos", "byte-level+eos"])
def test_stripped_templates_stand_nowhere(name, kinds, tmp_path):
    kind = kinds[name]
    stats = _preprocess(tmp_path, kind, ["The man said"], bos="strip")
    assert read_sidecar(stats["output"])["tokenizer"]["bos"] == "strip"
    reader = TextReader.of_model(model_folder(kind, tmp_path / "model"), stats["output"])
    assert (reader.bos, reader.prefix, reader.suffix) == ("strip", (), ())
    assert _documents(stats["output"]) == [[*reader.encode("The man said"), reader.eod]]
    assert reader.prompt("a") == [reader.eod, *reader.encode("a")]
    # a folder written for such data says so by itself
    reader.tokenizer.save_pretrained(tmp_path / "written")
    assert TextReader.of_model(tmp_path / "written").bos == "strip"
    assert TextReader.of_model(tmp_path / "written", bos="keep").prefix == reader.tokenizer.prefix
    with pytest.raises(InputError, match="--bos drop"):
        _preprocess(tmp_path, kind, ["a"], bos="drop")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bos", ["keep", "strip"])
def test_empty_texts_are_counted_and_never_become_documents(name, bos, kinds, tmp_path):
    stats = _preprocess(tmp_path, kinds[name], ["", "The man", ""], bos=bos)
    assert (stats["documents"], stats["empty_documents"]) == (1, 2)
    assert TextReader.from_files(*kinds[name].files, bos=bos).document("") == []


def test_blank_texts_without_a_token_are_empty(kinds, tmp_path):
    stats = _preprocess(tmp_path, kinds["wordpiece+bos"], [" \n", "The man"])
    assert (stats["documents"], stats["empty_documents"]) == (1, 1)


def test_the_separator_of_the_data_counts(kinds, tmp_path):
    kind = kinds["byte-level"]
    folder = model_folder(kind, tmp_path / "model", eos_token="</s>")
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    data = _preprocess(tmp_path, kind, ["The man"])["output"]
    alone = TextReader.of_model(folder)
    assert (alone.eod_token, alone.eod) == ("</s>", 2)
    with pytest.warns(IFGuideWarning, match=r"'</s>' \(2\).*'<\|endoftext\|>' \(0\)"):
        assert TextReader.of_model(folder, data).eod == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TextReader.of_model(folder, data, eod_token="</s>").eod == 2
        other = _preprocess(tmp_path, kind, ["The man"], "other", eod_token="</s>")["output"]
        assert TextReader.of_model(folder, other).eod == 2
    assert _documents(other)[0][-1] == 2
    # one that only the generation looks at is another name for the same
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    model_folder(kind, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TextReader.of_model(folder, data)
    for call in (lambda: _preprocess(tmp_path, kind, ["a"], eod_token="<eod>"),
                 lambda: TextReader.of_model(folder, eod_token="<eod>")):  # fmt: skip
        with pytest.raises(InputError, match="--eod-token '<eod>' is not in the"):
            call()


def test_a_model_names_its_separator_as_transformers_writes_it(kinds, tmp_path):
    kind = kinds["byte-level"]
    folder = model_folder(kind, tmp_path / "model", eos_token={"content": "</s>", "lstrip": False})
    assert TextReader.of_model(folder).eod_token == "</s>"
    model_folder(kind, folder, eos_token=None)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<s>"}))
    assert TextReader.of_model(folder).eod_token == "<s>"
    (folder / "special_tokens_map.json").unlink()
    assert TextReader.of_model(folder).eod_token == EOD


def test_no_class_name_rebuilds_the_tokenizer(kinds, tmp_path):
    """transformers replaces the normalizer and the prefix space of these files by those of the class."""
    for name in ("byte-level-lowercase", "byte-level-prefix-space+bos"):
        ids = {
            cls: TextReader.of_model(model_folder(kinds[name], tmp_path / name / cls, tokenizer_class=cls)).encode(
                "A B"
            )
            for cls in ("PreTrainedTokenizerFast", "GPT2TokenizerFast", "GPTNeoXTokenizerFast", "LlamaTokenizerFast")
        }
        assert set(map(tuple, ids.values())) == {tuple(TextReader.from_files(*kinds[name].files).encode("A B"))}


@pytest.mark.parametrize(
    "key, value",
    [
        ("normalizer", {"type": "Lowercase"}),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
        ("decoder", None),
        ("post_processor", {"type": "TemplateProcessing", "pair": [_TEXT], "single": [_EOS, _TEXT],
                            "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}),
        ("added_tokens", []),
    ],
)  # fmt: skip
def test_the_fingerprint_covers_every_part(key, value, kinds, tmp_path):
    kind = kinds["byte-level+bos"]
    data = _preprocess(tmp_path, kind, ["The man"])["output"]
    description = json.loads(kind.vocab_file.read_text(encoding="utf-8"))
    other = Kind("other", "HFTokenizer", tmp_path / "tokenizer.json")
    other.vocab_file.write_text(json.dumps({**description, key: value}), encoding="utf-8")
    assert TextReader.from_files(*other.files).fingerprint != TextReader.from_files(*kind.files).fingerprint
    folder = model_folder(other, tmp_path / "model")
    with pytest.raises(MismatchError, match="is not the one"):
        TextReader.of_model(folder, data)
    with pytest.raises(MismatchError, match="another tokenizer"):
        TextReader.of_data(data, *other.files)


@pytest.mark.parametrize("name", TEMPLATED)
def test_the_fingerprint_does_not_depend_on_formatting(name, kinds, tmp_path):
    kind = kinds[name]
    description = json.loads(kind.vocab_file.read_text(encoding="utf-8"))
    description["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(description, ensure_ascii=True, indent=1, sort_keys=True), encoding="utf-8")
    assert TextReader.from_files("HFTokenizer", path).fingerprint == TextReader.from_files(*kind.files).fingerprint
    assert TextReader.from_files("HFTokenizer", path).encode(CORPUS[0]) == TextReader.from_files(*kind.files).encode(
        CORPUS[0]
    )


@pytest.mark.parametrize("name", [*TEMPLATED, "gpt2-files", "char-level"])
def test_a_written_folder_is_the_same_tokenizer(name, kinds, tmp_path):
    kind = kinds[name]
    tokenizer = build_tokenizer(*kind.files)
    tokenizer.save_pretrained(tmp_path)
    written = TextReader.of_model(tmp_path)
    assert (written.fingerprint, written.eod) == (tokenizer.fingerprint, tokenizer.eod)
    assert written.encode(CORPUS[2]) == tokenizer.bare(CORPUS[2])


def test_a_folder_of_a_byte_tokenizer_reads_as_its_data_does(kinds, tmp_path):
    data = _preprocess(tmp_path, kinds["char-level"], TEXTS)["output"]
    build_tokenizer("CharLevelTokenizer", None).save_pretrained(tmp_path / "model")
    reader = TextReader.of_model(tmp_path / "model", data)
    assert [[*reader.document(text), reader.eod] for text in TEXTS] == _documents(data)


def test_what_earlier_versions_recorded_is_still_read(kinds, tmp_path):
    kind = kinds["byte-level+bos"]
    data = _preprocess(tmp_path, kind, ["The man"])["output"]
    sidecar = read_sidecar(data)
    sidecar["tokenizer"] = {key: sidecar["tokenizer"][key] for key in ("type", "identity", "vocab_size", "eod")}
    Path(f"{data}.json").write_text(json.dumps(sidecar))
    folder = model_folder(kind, tmp_path / "model")
    reader = TextReader.of_model(folder, data)
    assert (reader.bos, reader.eod) == ("keep", 0)
    assert TextReader.of_data(data).document("The man") == _documents(data)[0][:-1]
    sidecar["tokenizer"]["identity"] = "0" * 64
    Path(f"{data}.json").write_text(json.dumps(sidecar))
    with pytest.raises(MismatchError, match="000000000000"):
        TextReader.of_model(folder, data)


def test_folders_without_a_tokenizer_take_that_of_the_data(kinds, tmp_path):
    data = _preprocess(tmp_path, kinds["llama2+bos"], ["The man"])["output"]
    (tmp_path / "bare").mkdir()
    assert TextReader.find(tmp_path / "bare") is None
    with pytest.raises(InputError, match="has no tokenizer"):
        TextReader.of_model(tmp_path / "bare")
    assert TextReader.of_model(tmp_path / "bare", data).prompt("The man") == [1, *_documents(data)[0][:-1]]
    sidecar = read_sidecar(data)
    sidecar["tokenizer_files"][0]["path"] = str(tmp_path / "gone.json")
    Path(f"{data}.json").write_text(json.dumps(sidecar))
    with pytest.raises(InputError, match="is gone"):
        TextReader.of_model(tmp_path / "bare", data)


def test_of_several_files_in_a_folder_the_datas_kind_counts(kinds, tmp_path):
    folder = model_folder(kinds["sentencepiece"], tmp_path / "model")
    model_folder(kinds["llama2"], folder)
    for name in ("sentencepiece", "llama2"):
        data = _preprocess(tmp_path, kinds[name], ["The man"], name)["output"]
        reader = TextReader.of_model(folder, data)
        assert reader.tokenizer.name == kinds[name].tokenizer_type
        assert [*reader.document("The man"), reader.eod] == _documents(data)[0]


def test_continuations_keep_the_space_that_decoders_drop(kinds):
    for name in ("llama2", "metaspace", "sentencepiece-bytes", "byte-level", "unigram"):
        reader = TextReader.from_files(*kinds[name].files)
        before, whole = reader.encode("The man"), reader.encode("The man said")
        assert whole[: len(before)] == before
        assert reader.continuation(before, whole[len(before) :]) == " said"


@pytest.mark.parametrize("name", ["byte-level", "sentencepiece", "char-level", "wordpiece"])
def test_lone_surrogates_are_one_fault(name, kinds):
    reader = TextReader.from_files(*kinds[name].files)
    for call in (reader.encode, reader.document, reader.prompt, reader.spans, lambda text: reader.query("a", text)):
        with pytest.raises(NotUnicodeError, match=r"lone surrogate \(U\+D83D, character 3\)"):
            call("x \ud83d y")


def test_a_post_processor_that_doubles_the_text_is_refused(kinds, tmp_path):
    description = json.loads(kinds["byte-level"].vocab_file.read_text(encoding="utf-8"))
    description["post_processor"] = {
        "type": "TemplateProcessing", "single": [_TEXT, _TEXT], "pair": [_TEXT], "special_tokens": {},
    }  # fmt: skip
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(InputError, match="post_processor"):
        TextReader.from_files("HFTokenizer", path)


def test_moved_files_can_be_named(kinds, tmp_path):
    kind = build("gpt2-files", tmp_path / "first")
    data = _preprocess(tmp_path, kind, ["The man"])["output"]
    moved = shutil.move(tmp_path / "first", tmp_path / "second")
    with pytest.raises(InputError, match=r"vocab\.json .* is gone"):
        TextReader.of_data(data)
    reader = TextReader.of_data(data, None, Path(moved) / "vocab.json", Path(moved) / "merges.txt")
    assert reader.document("The man") == _documents(data)[0][:-1]
