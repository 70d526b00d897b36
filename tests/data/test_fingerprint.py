from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from ifguide.data import fingerprint as module
from ifguide.data.fingerprint import differences, fingerprint
from ifguide.data.indexed import IndexedDataset, TokenDataset
from ifguide.data.sidecar import file_states, sidecar_path
from ifguide.system.files import write_json


def _forbid_hashing(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the content was read again")

    monkeypatch.setattr(module, "hash_file", refuse)


def test_says_what_the_dataset_contains(tokens_prefix, documents):
    found = fingerprint(TokenDataset.open(tokens_prefix))
    content = Path(tokens_prefix + ".bin").read_bytes()
    assert found["documents"] == len(documents) and found["tokens"] == sum(map(len, documents))
    assert found["dtype"] == "uint16"
    assert found["content_hash"] == hashlib.blake2b(content, digest_size=32).hexdigest()


def test_does_not_depend_on_the_path(tmp_path, tokens_prefix, documents, write_raw):
    (tmp_path / "elsewhere").mkdir()
    copy = write_raw(tmp_path / "elsewhere" / "copy", documents, np.uint16, 8)
    assert fingerprint(TokenDataset.open(copy)) == fingerprint(TokenDataset.open(tokens_prefix))


def test_each_part_of_the_content_changes_it(tmp_path, documents, write_raw):
    def taken(name, *args):
        return fingerprint(IndexedDataset.open(write_raw(tmp_path / name, *args)))

    base = taken("base", documents, np.uint16, 8)
    other_lengths = [documents[0][:4], documents[0][4:] + documents[1], *documents[2:]]
    assert differences(base, taken("lengths", other_lengths, np.uint16, 8))[0].startswith("hash of the index")
    merged = taken("doc_idx", documents, np.uint16, 8, [0, 6, 6])
    assert [text.split(" ")[0] for text in differences(base, merged)] == ["hash"]
    assert "dtype uint16 != int32" in differences(base, taken("dtype", documents, np.int32, 4))
    fewer = differences(base, taken("fewer", documents[:-1], np.uint16, 8))
    assert fewer[:2] == ["documents 6 != 5", "tokens 90 != 26"]


def test_is_taken_once_and_found_again(tokens_prefix, monkeypatch):
    first = fingerprint(TokenDataset.open(tokens_prefix))
    _forbid_hashing(monkeypatch)
    assert fingerprint(TokenDataset.open(tokens_prefix)) == first


def test_own_sidecar_is_asked_first(tokens_prefix, monkeypatch, private_cache):
    dataset = TokenDataset.open(tokens_prefix)
    found = fingerprint(dataset)
    states = file_states(dataset.index_path, dataset.bin_path)
    write_json(tokens_prefix + ".json", {"format_version": 1, "kind": "tokens", "files": states, "fingerprint": found})
    for entry in private_cache.rglob("*.json"):
        entry.unlink()
    _forbid_hashing(monkeypatch)
    assert fingerprint(dataset) == found


def test_same_size_other_content_is_noticed(tokens_prefix):
    dataset = TokenDataset.open(tokens_prefix)
    before = fingerprint(dataset)
    states = file_states(dataset.index_path, dataset.bin_path)
    write_json(tokens_prefix + ".json", {"format_version": 1, "kind": "tokens", "files": states, "fingerprint": before})
    content = bytearray(dataset.bin_path.read_bytes())
    content[3] ^= 1
    dataset.bin_path.write_bytes(content)
    os.utime(dataset.bin_path, ns=(0, states["bin"][1] + 1))
    after = fingerprint(TokenDataset.open(tokens_prefix))
    assert [text.split(" ")[0] for text in differences(before, after)] == ["content"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"files": null}'])
def test_damaged_cache_is_taken_again(tokens_prefix, private_cache, damage):
    first = fingerprint(TokenDataset.open(tokens_prefix))
    (entry,) = private_cache.rglob("*.json")
    entry.write_text(damage)
    assert fingerprint(TokenDataset.open(tokens_prefix)) == first


def test_works_without_a_writable_cache(tokens_prefix, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fingerprint(TokenDataset.open(tokens_prefix))["documents"] == 6


def test_a_sidecar_that_contradicts_the_index_is_not_believed(tokens_prefix):
    """Whoever edits the counts in a sidecar may have edited the hash."""
    tokens = TokenDataset.open(tokens_prefix)
    sound = fingerprint(tokens)
    states = file_states(tokens.index_path, tokens.bin_path)
    for key, lie in (("documents", 7), ("tokens", 1), ("dtype", "int64")):
        lies = sound | {key: lie, "content_hash": "0" * 64}
        write_json(sidecar_path(tokens_prefix), {"files": states, "fingerprint": lies})
        assert fingerprint(tokens) == sound
