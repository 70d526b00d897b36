"""Queries: what the model sees, and every fault at once."""

from __future__ import annotations

import pytest

from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, InputError
from ifguide.influence.batches import NO_LABEL
from ifguide.influence.queries import load_query_sets, make_query, queries_fingerprint
from tests.influence.conftest import write_queries

READER = TextReader.from_files("CharLevelTokenizer", None)
WITHOUT_EOD = TextReader.from_files("CharLevelTokenizer", None)
WITHOUT_EOD.eod = None


def test_a_query_is_eod_prompt_completion():
    query = make_query([5, 6], [7, 8, 9], eod=0)
    assert query.inputs.tolist() == [0, 5, 6, 7, 8]
    assert query.labels.tolist() == [NO_LABEL, NO_LABEL, 7, 8, 9]
    assert make_query([], [7, 8], eod=0).labels.tolist() == [7, 8]
    assert make_query([], [7, 8], eod=None).labels.tolist() == [8]


def test_both_sets_are_read(tmp_path):
    toxic = write_queries(tmp_path / "t", [{"prompt": "a", "completion": " b", "weight": 2, "category": "insult"}])
    safe = write_queries(tmp_path / "s", [{"prompt": "", "completion": "c"}])
    first, second = load_query_sets(toxic, safe, READER, 16)
    assert (first[0].weight, first[0].category) == (2.0, "insult")
    assert second[0].labels.tolist() == [ord("c")]
    assert queries_fingerprint(first) != queries_fingerprint(second)
    assert queries_fingerprint(first) == queries_fingerprint(load_query_sets(toxic, safe, READER, 16)[0])


def test_all_faults_are_listed_at_once(tmp_path):
    rows = [
        {"prompt": "a"},
        {"prompt": "a", "completion": ""},
        {"prompt": "a", "completion": "b" * 40},
        {"prompt": 3, "completion": "b", "weight": 0},
        {"prompt": "a", "completion": "b", "text": "c"},
    ]
    toxic = write_queries(tmp_path / "t", rows)
    safe = write_queries(tmp_path / "s", [])
    with pytest.raises(ConfigError) as error:
        load_query_sets(toxic, safe, READER, 16)
    expected = [
        'line 1: has no "completion"', "line 2: empty completion", "line 3: 41 tokens", 'line 4: "prompt" must be',
        "line 4: weight 0", 'line 5: unknown key "text"', "no safe queries",
    ]  # fmt: skip
    assert len(error.value.faults) == len(expected)
    for fault, part in zip(error.value.faults, expected):
        assert part in fault


def test_many_faults_are_summed_up(tmp_path):
    toxic = write_queries(tmp_path / "t", [{"prompt": "a"}] * 50)
    safe = write_queries(tmp_path / "s", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(ConfigError, match="and 30 more faults"):
        load_query_sets(toxic, safe, READER, 16)


def test_a_completion_without_anything_before_it(tmp_path):
    toxic = write_queries(tmp_path / "t", [{"prompt": "", "completion": "b"}])
    safe = write_queries(tmp_path / "s", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(ConfigError, match="no token to predict"):
        load_query_sets(toxic, safe, WITHOUT_EOD, 16)
    with pytest.raises(InputError, match="does not exist"):
        load_query_sets(tmp_path / "nothing", safe, WITHOUT_EOD, 16)
