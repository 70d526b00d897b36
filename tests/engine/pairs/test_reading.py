"""Pairs as tokens: read as queries are, in an order that is a function of the place, with faults by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.engine.pairs.reading import read_pairs
from ifguide.errors import ConfigError, InputError
from tests.support.tokenizer_kinds import KINDS, build


@pytest.fixture
def reader() -> TextReader:
    return TextReader(build_tokenizer("CharLevelTokenizer", None))


def write(folder: Path, *rows: Any) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def row(prompt: str = "ab", chosen: str = "cd", rejected: str = "efg", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def test_tokens_are_those_of_queries(reader: TextReader, tmp_path: Path) -> None:
    rows = [row("Grün is", " nice 🙂", " bad"), row("", "x", "yz", category="insult")]
    pairs = read_pairs(write(tmp_path, *rows), reader, 64, seed=0)
    for number, given in enumerate(rows):
        for kind, text in (("chosen", pairs.chosen[number]), ("rejected", pairs.rejected[number])):
            query = reader.query(given["prompt"], given[kind])
            assert text.tokens.tolist() == query.tokens and text.counts.tolist() == query.is_target
            assert text.toxic.tolist() == (query.is_target if kind == "rejected" else [False] * len(query.tokens))


@pytest.mark.parametrize("name", KINDS)
def test_tokens_are_those_of_queries_with_every_tokenizer(name: str, tmp_path: Path) -> None:
    reader = TextReader.from_files(*build(name, tmp_path / "tokenizer").files)
    pairs = read_pairs(write(tmp_path, row("The cat", " sat down.", " is stupid.")), reader, 64, seed=0)
    for continuation, text in ((" sat down.", pairs.chosen[0]), (" is stupid.", pairs.rejected[0])):
        query = reader.query("The cat", continuation)
        assert text.tokens.tolist() == query.tokens
        assert text.counts.tolist()[1:] == query.is_target[1:] and not text.counts[0]


def test_spans_label_the_tokens_that_they_touch(reader: TextReader, tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, row("é", "x", "aüb🙂c", rejected_spans=[[1, 2], [4, 5]])), reader, 64, 0)
    text = pairs.rejected[0]
    toxic = bytes(text.tokens[text.toxic].tolist())  # a token a byte
    assert toxic == "ü".encode() + b"c"
    assert text.counts.sum() == len("aüb🙂c".encode())


def test_batches_are_padded_and_keep_their_numbers(reader: TextReader, tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, row(), row("", "c", "longer"), row("abc", "d", "e")), reader, 64, 0)
    batch = pairs.batch([2, 0])
    assert batch.numbers.tolist() == [2, 0] and batch.tokens.shape == (4, 1 + 2 + 3)
    for place, text in enumerate((pairs.chosen[2], pairs.chosen[0], pairs.rejected[2], pairs.rejected[0])):
        size = len(text.tokens)
        assert batch.tokens[place, :size].tolist() == text.tokens.tolist() and not batch.counts[place, size:].any()
        assert batch.counts[place, :size].tolist() == text.counts.tolist()
        assert batch.toxic[place, :size].tolist() == text.toxic.tolist()


def test_the_order_is_a_function_of_the_place(reader: TextReader, tmp_path: Path) -> None:
    path = write(tmp_path, *(row("a", "b", "c" * (1 + number)) for number in range(7)))
    pairs, again, other = (read_pairs(path, reader, 64, seed) for seed in (3, 3, 4))
    epochs = [[pairs.number(epoch * 7 + place) for place in range(7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [again.number(place) for place in range(20, 6, -1)] == [pairs.number(place) for place in range(20, 6, -1)]
    assert [other.number(place) for place in range(21)] != [pairs.number(place) for place in range(21)]
    assert pairs.fingerprint == other.fingerprint
    changed = write(tmp_path, *(row("a", "b", "c" * (1 + number), rejected_spans=[[0, 1]]) for number in range(7)))
    assert read_pairs(changed, reader, 64, 3).fingerprint != pairs.fingerprint


def test_every_fault_is_named_by_its_line(reader: TextReader, tmp_path: Path) -> None:
    path = write(
        tmp_path, row(), {"prompt": "a", "chosen": "b"}, row(prompt=3), row(chosen=""), row("a", "b", "b"),
        row(rejected="x" * 20), row(rejected_spans=[[2, 9]]), row(rejected_spans=[1]), row(),
    )  # fmt: skip
    with pytest.raises(ConfigError) as refusal:
        read_pairs(path, reader, 16, 0)
    assert refusal.value.faults == [
        f'pairs {path} line 2: has no "rejected"',
        f'pairs {path} line 3: "prompt" must be text',
        f'pairs {path} line 4: "chosen" is empty',
        f"pairs {path} line 5: chosen and rejected are the same text",
        f'pairs {path} line 6: prompt and "rejected" are 23 tokens, the model has a window of 16; shorten them',
        *(
            f'pairs {path} line {line}: "rejected_spans" must be a list of [begin, end], characters of rejected with '
            "begin before end"
            for line in (7, 8)
        ),
    ]


def test_no_file_no_pair_no_json(reader: TextReader, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty; write lines with prompt, chosen and rejected"):
        read_pairs(write(tmp_path), reader, 16, 0)
    with pytest.raises(InputError, match="line 2: not valid JSON"):
        read_pairs(write(tmp_path, row(), "{"), reader, 16, 0)
    with pytest.raises(InputError, match="does not exist"):
        read_pairs(str(tmp_path / "nowhere.jsonl"), reader, 16, 0)


def test_a_first_token_with_nothing_before_it_does_not_count(tmp_path: Path) -> None:
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    tokenizer.eod = None
    reader = TextReader(tokenizer)
    pairs = read_pairs(write(tmp_path, row("", "ab", "cd")), reader, 16, 0)
    assert pairs.chosen[0].counts.tolist() == [False, True]
    with pytest.raises(ConfigError, match='"chosen" has no token to predict'):
        read_pairs(write(tmp_path, row("", "a", "cd")), reader, 16, 0)
