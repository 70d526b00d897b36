"""What a model folder is told by: its weights as a function of ids, its tokenizer too where text goes through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ifguide.models.folder import model_fingerprint, same_fingerprint, weights_fingerprint


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
        ("tokenizer.json", {"post_processor": None, "added_tokens": [{"id": 3, "content": "<s>"}]}),
        ("tokenizer_config.json", {"eos_token": "<other>"}),
        ("tokenizer_config.json", {"add_prefix_space": True}),
        ("special_tokens_map.json", {"eos_token": "<other>"}),
        ("added_tokens.json", {"<new>": 300}),
        ("vocab.json", {"a": 1}),
        ("merges.txt", {}),
        ("vocab.txt", {}),
        ("tokenizer.model", {}),
        ("spiece.model", {}),
        ("generation_config.json", {"eos_token_id": [0, 5]}),
    ],
)
def test_whatever_changes_ids_or_ends_counts(folder: Path, name: str, changes: dict) -> None:
    text, weights = model_fingerprint(folder), weights_fingerprint(folder)
    edit(folder / name, **changes)
    assert model_fingerprint(folder) != text and not same_fingerprint(text, model_fingerprint(folder))
    assert weights_fingerprint(folder) == weights, "factors and scores are of token ids; queries are hashed as ids"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer_config.json", {"chat_template": "{{ messages }}", "name_or_path": "/elsewhere"}),
        ("generation_config.json", {"temperature": 0.3}),
        ("README.json", {"a": 1}),
    ],
)
def test_what_changes_no_id_does_not(folder: Path, name: str, changes: dict) -> None:
    edit(folder / name)
    text = model_fingerprint(folder)
    edit(folder / name, **changes)
    assert model_fingerprint(folder) == text


def test_the_layout_of_a_file_does_not_count(folder: Path) -> None:
    text = model_fingerprint(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(dict(reversed(content.items())), indent=3))
    assert model_fingerprint(folder) == text


def test_half_a_character_and_no_json_are_hashed_too(folder: Path) -> None:
    (folder / "vocab.json").write_text('{"\\ud800": 1}')
    first = model_fingerprint(folder)
    (folder / "vocab.json").write_text("{not json")
    assert model_fingerprint(folder) != first


def test_weights_count(folder: Path) -> None:
    text = model_fingerprint(folder)
    (folder / "model.safetensors").write_bytes(b"other")
    assert not same_fingerprint(text, model_fingerprint(folder))


def test_records_without_a_tokenizer_are_compared_by_the_weights(folder: Path) -> None:
    assert same_fingerprint(weights_fingerprint(folder), model_fingerprint(folder))
    assert same_fingerprint(None, None) and not same_fingerprint(None, model_fingerprint(folder))
    assert not same_fingerprint("another", model_fingerprint(folder))
