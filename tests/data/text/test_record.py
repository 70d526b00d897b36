"""Records of tokenizers, compared without any tokenizer library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.sidecar import read_sidecar
from ifguide.data.text.record import (
    config_datasets,
    config_faults,
    shared_frame,
    tokenizer_difference,
    tokenizer_file_faults,
)
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.errors import MismatchError
from tests.support.tokenizer_kinds import Kind, build


def _data(folder: Path, kind: Kind, name: str = "corpus", **options) -> str:
    source = folder / f"{name}.jsonl"
    source.write_text('{"text": "The man said"}\n')
    return preprocess(
        [source], folder / name, *kind.files, options=PreprocessOptions(append_eod=True, **options), progress=False
    )["output"]


def test_fingerprints_decide_and_identities_where_one_is_old():
    new, old = {"fingerprint": "a" * 64, "identity": "c" * 64}, {"identity": "c" * 64}
    assert tokenizer_difference(new, {"fingerprint": "b" * 64, "identity": "c" * 64}) == "aaaaaaaaaaaa != bbbbbbbbbbbb"
    assert tokenizer_difference(new, {"fingerprint": "a" * 64, "identity": "d" * 64}) is None
    assert tokenizer_difference(new, old) is None
    assert tokenizer_difference(old, {"identity": "d" * 64}) == "cccccccccccc != dddddddddddd"
    assert tokenizer_difference(new, None) is None
    assert tokenizer_difference({}, {}) is None


def test_files_are_compared_by_their_hashes(tmp_path):
    kind, other = build("byte-level", tmp_path / "a"), build("byte-level-lowercase", tmp_path / "b")
    data = _data(tmp_path, kind)

    def faults(*files):
        return list(tokenizer_file_faults(data, *files))

    assert faults(*kind.files) == []
    (fault,) = faults(*other.files)
    assert fault.startswith(f"vocab_file: {other.vocab_file} is another tokenizer than the one that {data} was made")
    assert f"of {kind.vocab_file}); set vocab_file to that file, or preprocess the texts again" in fault
    # another formatting is the same tokenizer
    pretty = tmp_path / "pretty.json"
    pretty.write_text(json.dumps(json.loads(kind.vocab_file.read_text(encoding="utf-8")), indent=3, sort_keys=True))
    assert faults("hftokenizer", pretty) == []
    # nothing is said of what cannot be compared
    assert faults("HFTokenizer", tmp_path / "gone.json") == []
    assert faults("TiktokenTokenizer", other.vocab_file) == []
    assert faults(None, None) == []
    assert list(tokenizer_file_faults(tmp_path / "without", *other.files)) == []


def test_one_vocabulary_may_lie_in_the_files_of_two_types(tmp_path):
    gpt2, bytes_ = build("gpt2-files", tmp_path / "gpt2"), build("char-level", tmp_path)
    for kind in (gpt2, bytes_):
        folder = tmp_path / kind.name
        build_tokenizer(*kind.files).save_pretrained(folder)
        data = _data(tmp_path, kind, kind.name)
        assert list(tokenizer_file_faults(data, "HFTokenizer", folder / "tokenizer.json")) == []
        other = build("llama2", tmp_path / "llama2")
        (fault,) = tokenizer_file_faults(data, *other.files)
        assert fault.startswith(f"tokenizer_type: {data} was made with {kind.tokenizer_type}, not with HFTokenizer")
    hf = build("byte-level", tmp_path / "hf")
    assert list(tokenizer_file_faults(_data(tmp_path, hf, "hf"), *gpt2.files)) == []
    (fault,) = tokenizer_file_faults(_data(tmp_path, hf, "hf"), *bytes_.files)
    assert "not with CharLevelTokenizer" in fault


def test_merges_count_too(tmp_path):
    kind = build("gpt2-files", tmp_path / "gpt2")
    data = _data(tmp_path, kind)
    fewer = tmp_path / "merges.txt"
    fewer.write_text("\n".join(kind.merge_file.read_text(encoding="utf-8").split("\n")[:-5]), encoding="utf-8")
    (fault,) = tokenizer_file_faults(data, kind.tokenizer_type, kind.vocab_file, fewer)
    assert fault.startswith("merge_file: ")


def test_a_configuration_is_looked_at_as_a_whole(tmp_path):
    kind, other = build("byte-level", tmp_path / "a"), build("byte-level-lowercase", tmp_path / "b")
    ours, theirs = _data(tmp_path, kind, "ours"), _data(tmp_path, other, "theirs")
    keys = {"tokenizer_type": "HFTokenizer", "vocab_file": str(kind.vocab_file)}
    config = {**keys, "train_data_paths": [ours, theirs], "valid_data_paths": [ours], "test_data_paths": None}
    assert config_datasets(config) == [ours, theirs]
    (fault,) = config_faults(config)
    assert theirs in fault
    (fault,) = config_faults({**keys, "data_path": theirs})
    assert theirs in fault
    Path(f"{ours}.json").write_text("[]")
    (fault,) = config_faults({**keys, "data_path": ours})
    assert "is not a JSON object" in fault
    assert list(config_faults({"data_path": 3, "train_data_paths": "x"})) == []


def test_datasets_of_a_run_end_their_documents_alike(tmp_path):
    kind = build("llama2+bos", tmp_path / "k")
    plain, named = _data(tmp_path, kind, "plain"), _data(tmp_path, kind, "named", eod_token="</s>")
    stripped = _data(tmp_path, kind, "stripped", bos="strip")
    assert shared_frame([plain, plain]) == (1, "keep")
    assert shared_frame([named])[0] == read_sidecar(named)["tokenizer"]["eod"] == 3
    assert shared_frame([stripped]) == (1, "strip")
    assert shared_frame([tmp_path / "without a sidecar"]) == (None, "keep")
    for other in (named, stripped):
        with pytest.raises(MismatchError, match="do not end and open their documents alike"):
            shared_frame([plain, other])


def test_the_comparison_needs_no_library(tmp_path):
    data = _data(tmp_path, build("byte-level", tmp_path / "a"))
    other = build("byte-level-lowercase", tmp_path / "b").vocab_file
    code = (
        "import sys\n"
        "for name in ('tokenizers', 'sentencepiece', 'transformers', 'torch'):\n    sys.modules[name] = None\n"
        "from ifguide.data.text.record import config_faults\n"
        "config = {'tokenizer_type': 'HFTokenizer', 'vocab_file': sys.argv[2], 'data_path': sys.argv[1]}\n"
        "print(len(list(config_faults(config))))"
    )
    result = subprocess.run([sys.executable, "-c", code, data, str(other)], capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.stderr) == ("1\n", "")
