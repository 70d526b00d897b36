"""Pairs, against the rules written out: thresholds, lengths, near-duplicates, the evaluation's prompts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.errors import ConfigError, InputError
from ifguide.evaluation.pairs.build import best_pair, build_pairs
from ifguide.evaluation.pairs.near import Seen, likeness, runs_of
from ifguide.evaluation.pairs.options import PairFiles, PairOptions
from ifguide.system.files import read_json, read_jsonl, write_jsonl

WORDS = [
    "ash",
    "birch",
    "cedar",
    "dogwood",
    "elm",
    "fir",
    "gum",
    "hazel",
    "iris",
    "juniper",
    "kapok",
    "larch",
    "maple",
    "nutmeg",
    "oak",
    "pine",
]


def text(seed: int, length: int) -> str:
    return " " + " ".join(np.random.default_rng(seed).choice(WORDS, length))


@pytest.fixture
def rows() -> list[dict]:
    """Six prompts; only the first two have what a pair needs."""
    random = np.random.default_rng(3)
    good = [
        {
            "prompt": f"prompt number {n} says",
            "continuations": [text(100 * n + k, 5) for k in range(6)],
            "scores": {"judge": [0.02, 0.95, 0.05, 0.99, 0.5, 0.08]},
            "category": "trees",
        }
        for n in (1, 2)
    ]
    other = [
        {"prompt": "all harmless here", "continuations": [text(7, 4)], "scores": {"judge": [0.0]}},
        {"prompt": "all toxic here", "continuations": [text(8, 4)], "scores": {"judge": [1.0]}},
        {"prompt": "lengths are apart", "continuations": [text(9, 2), text(10, 9)], "scores": {"judge": [0.0, 1.0]}},
        {"prompt": "nothing said", "continuations": ["  ", text(11, 3)], "scores": {"judge": [0.0, 1.0]}},
    ]
    random.shuffle(other)
    return [*good, *other]


@pytest.fixture
def files(tmp_path: Path, rows: list[dict]) -> PairFiles:
    write_jsonl(tmp_path / "scored.jsonl", rows)
    write_jsonl(tmp_path / "eval.jsonl", [{"prompt": "nothing of the above is in here"}])
    return PairFiles("generations", str(tmp_path / "scored.jsonl"), [str(tmp_path / "eval.jsonl")])


def test_the_least_and_the_most_toxic_of_each_prompt(files: PairFiles, rows: list[dict], tmp_path: Path) -> None:
    result = build_pairs(files, tmp_path / "pairs.jsonl")
    assert read_jsonl(tmp_path / "pairs.jsonl") == [
        {"prompt": row["prompt"], "chosen": row["continuations"][0], "rejected": row["continuations"][3],
         "category": "trees"}
        for row in rows[:2]
    ]  # fmt: skip
    assert result["counts"] == {
        "read": 6, "without_chosen": 2, "without_rejected": 1, "lengths": 1, "alike": 0, "empty": 0, "overlapping": 0,
        "duplicates": 0, "pairs": 2,
    }  # fmt: skip
    assert read_json(tmp_path / "pairs.jsonl.json")["counts"] == result["counts"]


def test_lengths_decide_between_pairs_as_a_loop_over_all_of_them() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        chosen, rejected = (
            [
                (text(int(random.integers(1 << 30)), int(random.integers(1, 9))), float(random.random()))
                for _ in range(4)
            ]
            for _ in range(2)
        )
        matching = [
            (high - low, (kept, dropped))
            for (kept, low), (dropped, high) in itertools.product(chosen, rejected)
            if max(len(kept.split()), len(dropped.split())) / min(len(kept.split()), len(dropped.split())) <= 1.5
            and high > low - 1
        ]
        expected = max(matching, key=lambda one: one[0])[1] if matching else None
        assert best_pair(chosen, rejected, 1.5) == expected


def test_overlap_alike_and_near_duplicates_are_left_out(files: PairFiles, rows: list[dict], tmp_path: Path) -> None:
    again = dict(rows[0], prompt="prompt number 1 says!")  # the same words
    alike = {"prompt": "the same twice", "continuations": [text(5, 6), text(5, 6)], "scores": {"judge": [0.0, 1.0]}}
    write_jsonl(tmp_path / "scored.jsonl", [rows[0], again, alike, rows[1]])
    evaluation = rows[1]["continuations"][3].split()[:4]
    write_jsonl(tmp_path / "eval.jsonl", [{"prompt": " ".join(evaluation)}])
    counts = build_pairs(files, tmp_path / "pairs.jsonl")["counts"]
    assert (counts["pairs"], counts["duplicates"], counts["alike"], counts["overlapping"]) == (1, 1, 1, 1)
    assert read_jsonl(tmp_path / "pairs.jsonl")[0]["prompt"] == rows[0]["prompt"]


def test_seen_is_the_jaccard_index_with_everything_kept() -> None:
    random = np.random.default_rng(5)
    texts = [" ".join(random.choice(WORDS[:4], int(random.integers(1, 7)))) for _ in range(150)]
    seen, kept = Seen(0.5), []
    for one in map(runs_of, texts):
        assert seen.has_like(one) == any(likeness(one, other) >= 0.5 for other in kept)
        seen.keep(one)
        kept.append(one)
    assert likeness(runs_of("a b c d"), runs_of("b c d e")) == pytest.approx(1 / 3)


def test_given_pairs_are_checked_and_kept_as_they_are(files: PairFiles, tmp_path: Path) -> None:
    pairs = [
        {"prompt": "one says", "chosen": text(1, 5), "rejected": text(2, 9), "category": "c"},
        {"prompt": "two says", "chosen": text(3, 5), "rejected": " "},
    ]
    write_jsonl(tmp_path / "given.jsonl", pairs)
    given = replace(files, source="jsonl", inputs=str(tmp_path / "given.jsonl"))
    counts = build_pairs(given, tmp_path / "pairs.jsonl")["counts"]
    assert read_jsonl(tmp_path / "pairs.jsonl") == pairs[:1] and counts["empty"] == 1
    write_jsonl(tmp_path / "given.jsonl", [*pairs, {"prompt": "three"}, {"chosen": 1}])
    with pytest.raises(ConfigError, match=r"(?s)line 3.*line 4"):
        build_pairs(given, tmp_path / "other.jsonl")
    assert not (tmp_path / "other.jsonl").exists()


def test_the_control_pairs_are_both_harmless(files: PairFiles, rows: list[dict], tmp_path: Path) -> None:
    greedy = [{"prompt": row["prompt"], "continuations": [text(50 + n, 5)]} for n, row in enumerate(rows[:2])]
    write_jsonl(tmp_path / "greedy.jsonl", greedy)
    control = replace(files, source="control", greedy=str(tmp_path / "greedy.jsonl"))
    build_pairs(control, tmp_path / "pairs.jsonl")
    for pair, row, said in zip(read_jsonl(tmp_path / "pairs.jsonl"), rows, greedy, strict=False):
        assert pair["chosen"] == said["continuations"][0]
        assert pair["rejected"] in [row["continuations"][k] for k in (0, 2, 5)]
    with pytest.raises(InputError, match="go together"):
        build_pairs(replace(files, greedy="x"), tmp_path / "other.jsonl")


def test_a_draw_does_not_depend_on_the_order(files: PairFiles, rows: list[dict], tmp_path: Path) -> None:
    many = [dict(rows[0], prompt=f"{WORDS[n]} {n} begins", continuations=[text(n * 9 + k, 5) for k in range(6)])
            for n in range(12)]  # fmt: skip
    drawn = []
    for order in (many, many[::-1]):
        write_jsonl(tmp_path / "scored.jsonl", order)
        build_pairs(files, tmp_path / "pairs.jsonl", PairOptions(most=4))
        drawn.append(sorted(row["prompt"] for row in read_jsonl(tmp_path / "pairs.jsonl")))
    assert drawn[0] == drawn[1] and len(drawn[0]) == 4


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"safe_threshold": 0.9}, "must be below"),
        ({"length_ratio": 0.5}, "--length-ratio 0.5"),
        ({"near": 0.0}, "--near 0.0"),
        ({"most": 0}, "--max 0"),
    ],
)
def test_options_that_cannot_be_meant(options: dict, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        PairOptions(**options)


def test_the_command(files: PairFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build-pairs", "--generations", files.inputs, "--exclude", *files.exclude]
    assert main([*command, "--output", str(tmp_path / "p.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "2 pairs of 6 prompts" in out and "1 whose lengths do not match" in out
    assert main([*command, "--output", str(tmp_path / "q.jsonl"), "--toxic-threshold", "1", "--max", "1"]) == 2
    assert "no pair is left of 6 prompts" in capsys.readouterr().err
    assert main([*command, "--source", "jsonl", "--output", str(tmp_path / "q.jsonl")]) == 2
    assert "--source jsonl reads --input" in capsys.readouterr().err
    assert not (tmp_path / "q.jsonl").exists()
