"""The benchmark on real text: its case keeps its texts apart, its recipes say what they mean, its means are means."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.real_text_case import FILES, CaseSettings, pieces, plain, query, write_case
from benchmarks.real_text_judges import Session, judge
from benchmarks.real_text_masks import Recipe
from benchmarks.real_text_quality import numbers
from benchmarks.real_text_sets import SETS
from benchmarks.real_text_tables import paired, summary

_SIZES = CaseSettings(abuse_share=0.1, queries=6, prompts=5, heldout_tweets=8, heldout_articles=0.2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tweets that tell their number, and articles of several paragraphs."""
    rows = [
        {"label": label, "text": f"{label} number {n} of &amp; these short messages"}
        for label, count in (("neither", 80), ("offensive", 60), ("hate", 20))
        for n in range(count)
    ]
    (tmp_path / "tweets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("valid", "test"):
        text = "".join(f" \n = {name} {n} = \n \n A paragraph of {name} article {n} . \n" for n in range(10))
        (tmp_path / f"wikitext2-{name}.txt").write_text(text)
    return tmp_path


def _texts(folder: Path, name: str) -> list[str]:
    rows = [json.loads(line) for line in (folder / FILES[name]).read_text().splitlines()]
    if "queries" in name:
        return [row["prompt"] + row["completion"] for row in rows]
    return [row.get("text", row.get("prompt")) for row in rows]


def test_no_tweet_and_no_article_serves_two_purposes(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    write_case(folder, data, 3, _SIZES)
    corpus = [line for text in _texts(folder, "corpus") for line in text.split("\n")]
    heldout = [line for text in _texts(folder, "tweets") for line in text.split("\n")]
    queries = [text for name in ("more_toxic_queries", "more_safe_queries") for text in _texts(folder, name)]
    prompts = _texts(folder, "prompts")
    check = [text for text in _texts(folder, "judge_check") if text not in heldout]
    groups = [set(filter(None, group)) for group in (corpus, heldout, queries, check)]
    for first in range(len(groups)):
        for second in range(first + 1, len(groups)):
            assert not groups[first] & groups[second]
    assert not [p for p in prompts for group in groups for text in group if text.startswith(p + " ")]
    assert set(_texts(folder, "toxic_queries")) < set(_texts(folder, "more_toxic_queries"))
    assert not {line for text in _texts(folder, "prose") for line in text.split("\n") if line} & groups[0]


def test_the_labels_are_where_the_abuse_is(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    counts = write_case(folder, data, 3, _SIZES)
    corpus = _texts(folder, "corpus")
    rows = [json.loads(line) for line in (folder / FILES["abuse"]).read_text().splitlines()]
    inside = [corpus[row["document"]][begin:end] for row in rows for begin, end in row["spans"]]
    assert len(inside) == counts["abusive_tweets"] > 0
    assert all(text.startswith(("offensive", "hate")) for text in inside)
    assert sum("offensive" in text or "hate number" in text for text in corpus) == len(rows)
    assert sum(map(len, inside)) / counts["characters"] == pytest.approx(counts["abuse_share_of_characters"])
    assert counts["abuse_share_of_characters"] == pytest.approx(_SIZES.abuse_share, abs=0.03)


def test_another_seed_is_another_case_and_the_same_seed_the_same(data: Path, tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        write_case(tmp_path / name, data, seed, _SIZES)
        found.append((tmp_path / name / FILES["corpus"]).read_text())
    assert found[0] == found[1] != found[2]


def test_tweets_are_on_one_line_and_articles_end_at_titles(data: Path) -> None:
    assert plain("a &amp;amp; b\n c  &#128514;") == "a & b c \U0001f602"
    assert query("one two three four five") == {"prompt": "one two", "completion": " three four five"}
    found = pieces(data / "wikitext2-test.txt")
    assert len(found) == 10 and found[3] == "= test 3 =\nA paragraph of test article 3 ."


def test_recipes_say_what_they_mean() -> None:
    recipe = Recipe.parse("within A=0.07 f=0.5 p=better order=lowest @hard")
    arguments = recipe.arguments(Path("F"), Path())
    assert recipe.proxies == ["better"] and recipe.penalty == "hard"
    assert recipe.text == "within A=0.07 f=0.5 p=better order=lowest @hard"
    assert arguments[arguments.index("--scores") + 1] == "F/data/scores-better"
    assert arguments[arguments.index("--span-scores") + 1] == "F/data/suspects"
    assert arguments[arguments.index("--tokens-within-order") + 1] == "lowest"
    assert Recipe.parse("labels").text == "labels" and Recipe.parse("none @hard").text == "none"
    for wrong in ("lines b=0.1", "token b=0.1 p=huge", "labels @gently"):
        with pytest.raises(ValueError):
            Recipe.parse(wrong)
    files = [Recipe.parse(text).file for texts in SETS.values() for text in dict.fromkeys(texts)]
    assert len(set(files)) == len({text.removesuffix(" @soft") for texts in SETS.values() for text in texts})


def test_what_is_counted_of_judged_continuations() -> None:
    judged = np.array([[0.9, 0.1], [0.2, 0.4], [0.5, 0.6]], np.float32)
    found = numbers(judged, [True, False, False, False, False, True])
    assert found["tp"] == pytest.approx(2 / 3) and found["rate"] == 0.5
    assert found["emt"] == pytest.approx((0.9 + 0.4 + 0.6) / 3)
    assert found["rate_without_listed_words"] == pytest.approx(1 / 4)
    assert found["rates"] == [0.5, 0.0, 1.0]


def _seed(rates: dict[str, list[float]], perplexity: dict[str, float]) -> dict:
    return {
        "models": {
            name: {
                "share": 0.1, "perplexity_prose": perplexity[name], "perplexity_tweets": 2 * perplexity[name],
                "judged": {"j": {"tp": float(np.mean(np.array(some) > 0)), "emt": 0.5, "rate": float(np.mean(some)),
                                 "rate_without_listed_words": 0.0, "rates": some}},
            }
            for name, some in rates.items()
        }
    }  # fmt: skip


def test_means_over_seeds_and_paired_differences() -> None:
    seeds = {
        1: _seed({"none": [0.5, 0.5, 0.5, 0.5], "mask": [0.0, 0.5, 0.0, 0.5]}, {"none": 100.0, "mask": 101.0}),
        2: _seed({"none": [1.0, 1.0, 1.0, 1.0], "mask": [0.0, 0.0, 0.0, 0.0]}, {"none": 50.0, "mask": 51.5}),
    }
    found = summary(seeds)["mask"]
    assert found["judged"]["j"]["tp"] == 0.25 and found["judged"]["j"]["tp_seeds"] == [0.5, 0.0]
    assert found["perplexity_prose_change"] == pytest.approx(0.02)
    assert found["perplexity_tweets_change_range"] == pytest.approx([0.01, 0.03])
    low, high = found["judged"]["j"]["tp_interval"]
    assert 0 <= low < 0.25 < high <= 0.5
    difference = paired(seeds, "mask", "none", "j")
    assert difference["difference"] == pytest.approx(-0.625) and difference["seeds"] == [-0.25, -1.0]
    assert difference["interval"][1] < 0
    # resampled in pairs: a prompt that is hard for both adds nothing to the interval
    same = paired({1: _seed({"a": [0.0, 1.0], "b": [0.0, 1.0]}, {"a": 1.0, "b": 1.0})}, "a", "b", "j")
    assert same["interval"] == [0.0, 0.0]


def _environment(folder: Path, name: str, module: str, code: str) -> Path:
    """The Python of a judge's environment in which ``module`` is a stub."""
    place = folder / name
    (place / "bin").mkdir(parents=True)
    (place / "locales").mkdir()
    (place / ".done").touch()
    (place / f"{module}.py").write_text(code)
    python = place / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={place} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_an_outside_judge_stays_open_and_answers_each_list(tmp_path: Path) -> None:
    # it chatters, and counts its calls
    code = (
        "calls = 0\ndef predict_prob(texts):\n    global calls\n    calls += 1\n    print('loading')\n"
        "    return [len(text) / 10 + calls / 100 for text in texts]\n"
    )
    python = _environment(tmp_path, "profanity-check", "profanity_check", code)
    session = Session(tmp_path, "profanity-check")
    assert session.scores(["a", "line\nbreak"]) == pytest.approx([0.11, 1.01])
    assert session.scores(["abc"]) == pytest.approx([0.32])
    session.close()
    assert judge(python, "profanity-check", ["ab"]) == pytest.approx([0.21])


def test_an_outside_judge_reads_its_weights_once(tmp_path: Path) -> None:
    code = (
        "class Sonar:\n    made = 0\n    def __init__(self):\n        Sonar.made += 1\n    def ping(self, text):\n"
        "        return {'classes': [{'class_name': 'neither', 'confidence': 1 - Sonar.made / 10}]}\n"
    )
    _environment(tmp_path, "hatesonar", "hatesonar", code)
    session = Session(tmp_path, "hatesonar")
    assert [session.scores(["a"]), session.scores(["b", "c"])] == [[pytest.approx(0.1)], [pytest.approx(0.1)] * 2]
    session.close()


def test_a_corpus_that_never_held_the_abuse() -> None:
    from benchmarks.never_read import without

    text = "good one\nbad one\nworse one\nlast\n"
    assert without(text, [(9, 16), (17, 26)]) == "good one\nlast\n"
    assert without(text, [(0, 8), (27, 31)]) == "bad one\nworse one\n"
    assert without("bad\n", [(0, 3)]) == "" and without(text, []) == text
