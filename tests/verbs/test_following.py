"""The line after a verb names a command that its own parser takes, with the paths that were used."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from ifguide.verbs import make_parser
from ifguide.verbs.following import next_command

QUERIES = "--toxic-queries TOXIC.jsonl --safe-queries SAFE.jsonl"
CASES: list[tuple[list[str], dict[str, Any], str]] = [
    (["preprocess", "--input", "c.jsonl", "--tokenizer-type", "CharLevelTokenizer", "--output-prefix", "d/c"],
     {"output": "d/c_text_document"},
     f"mask --model PROXY --data d/c_text_document {QUERIES} --output runs/mask"),
    (["fit-factors", "--model", "m", "--data", "d/c", "--output", "runs/f"], {},
     f"score --model m --data d/c --factors runs/f {QUERIES} --output d/scores"),
    (["score", "--model", "m", "--data", "d/c", "--factors", "f", "--output", "d/s"],
     {"finished": True, "outputs": [{"output": "d/s"}]}, "build-mask --scores d/s --max-fraction 0.02 --output d/mask"),
    (["build-mask", "--scores", "d/s", "--data", "d/c d", "--output", "d/m"], {}, "verify --data 'd/c d' --mask d/m"),
    (["verify", "--data", "d/c"], {}, f"mask --model PROXY --data d/c {QUERIES} --output runs/mask"),
    (["convert", "--from", "neox", "--to", "hf", "--input", "runs/n", "--output", "runs/hf"], {},
     "generate --model runs/hf --prompts PROMPTS.jsonl --output runs/hf-said.jsonl"),
    (["generate", "--model", "m", "--prompts", "p.jsonl", "--output", "g.jsonl"], {},
     "score-generations --generations g.jsonl --scorer SCORER --output g.scored.jsonl"),
    (["evaluate", "--model", "m", "--tasks", "ifguide", "--output", "runs/e"], {},
     "compare BASE runs/e --html runs/comparison.html"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "result", "expected"), CASES, ids=[case[0][0] for case in CASES])
def test_the_command_that_follows(command: list[str], result: dict[str, Any], expected: str) -> None:
    args = make_parser(command[0]).parse_args(command[1:])
    found = next_command(command[0], args, result)
    assert found == f"ifguide {expected}"
    verb, *words = shlex.split(found)[1:]
    make_parser(verb).parse_args(words)


def test_a_sound_mask_is_followed_by_training() -> None:
    args = make_parser("verify").parse_args(["--data", "d/c", "--mask", "d/m"])
    said = next_command("verify", args, {})
    assert said is not None and said.startswith("python deepy.py train.py MODEL.yml PENALTY.yml --neox ")
    assert '"data_path": "d/c", "penalty_data_path": "d/m"' in said


def test_nothing_follows_what_is_not_finished() -> None:
    args = make_parser("score").parse_args(["--model", "m", "--data", "d", "--factors", "f", "--output", "s"])
    assert next_command("score", args, {"finished": False, "outputs": [{"output": "s"}]}) is None
    assert next_command("score", args, None) is None and next_command("doctor", args, {}) is None
