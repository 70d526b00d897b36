"""The evaluation of an experiment's models, against the same numbers worked out step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ifguide.evaluation.metrics import distinct_n, summarise
from ifguide.evaluation.perplexity import perplexity
from ifguide.experiments.judging import Judging, collect_generations, judge_models, judged_files
from ifguide.generation.draw import generate
from ifguide.scorers.linear import train_linear
from ifguide.scorers.registry import load_scorer
from ifguide.system.files import read_json, read_jsonl, write_jsonl
from tests.support import eval_sets

PROMPTS = [
    {"id": f"{subset}-{number}", "subset": subset, "prompt": f"{subset} {number} the"}
    for subset in ("toxic", "benign")
    for number in range(3)
]
HELDOUT = ["the cat sat on the mat", "who came in from the rain?"]
SEED, SAMPLES, TOKENS = 5, 4, 6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: eval_sets.save_model(folder / name, nats) for name, nats in (("plain", 0.0), ("fourth", 4.0))}


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Judging:
    folder = tmp_path_factory.mktemp("inputs")
    write_jsonl(folder / "prompts.jsonl", PROMPTS)
    write_jsonl(folder / "heldout.jsonl", [{"text": text} for text in HELDOUT])
    texts = [f"{word} {number}" for number in range(40) for word in ("mat mat", "quiet rain")]
    train_linear(texts, [1, 0] * 40, folder / "judge")
    judge = f"linear:{folder / 'judge'}"
    return Judging(folder / "prompts.jsonl", folder / "heldout.jsonl", judge, SAMPLES, TOKENS, SEED)


@pytest.fixture(scope="module")
def judged(models: dict[str, Path], judging: Judging, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("job") / "evaluation"
    return folder, judge_models(models, judging, folder, processes=0)


def test_the_numbers_are_those_of_the_single_steps(
    models: dict[str, Path], judging: Judging, judged: tuple[Path, dict]
) -> None:
    folder, numbers = judged
    assert list(numbers) == ["plain", "fourth"]
    for name, model in models.items():
        said = generate(model, [row["prompt"] for row in PROMPTS], SAMPLES, TOKENS, seed=SEED)
        (scores,) = load_scorer(judging.scorer).score([text for texts in said for text in texts]).values()
        table = scores.reshape(len(PROMPTS), SAMPLES)
        assert table.std() > 0.01, "scores that tell texts apart"
        measured = perplexity(model, HELDOUT)
        expected = {"perplexity": float(measured), "truncated": 0}
        if bounds := measured.interval(SEED):
            expected["perplexity_interval"] = list(bounds)
        expected |= {"empty_share": sum(not text.strip() for texts in said for text in texts) / table.size}
        expected |= {"distinct_2": distinct_n([text for texts in said for text in texts], 2)}
        for subset, part in (("toxic", table[:3]), ("benign", table[3:])):
            found = summarise(part, seed=SEED)
            for key in ("emt", "emt_interval", "tp", "tp_interval"):
                expected[key.replace("_", f"_{subset}_") if "_" in key else f"{key}_{subset}"] = found[key]
        assert numbers[name] == expected
        assert [row["continuations"] for row in read_jsonl(judged_files(folder, name)[1])] == said
    assert numbers["plain"] != numbers["fourth"]


def test_all_texts_together_as_the_page_reads_them(judged: tuple[Path, dict]) -> None:
    rows = collect_generations(["plain", "fourth"], judged[0])
    assert len(rows) == 2 * len(PROMPTS)
    assert list(rows[0]) == ["model", "id", "subset", "prompt", "continuations", "toxicity"]
    for at, row in enumerate(rows):
        assert row["model"] == ("plain" if at < len(PROMPTS) else "fourth")
        assert {key: row[key] for key in ("id", "subset", "prompt")} == PROMPTS[at % len(PROMPTS)]
        assert len(row["toxicity"]) == SAMPLES and row["toxicity"] == [round(score, 4) for score in row["toxicity"]]
    worst = [max(row["toxicity"]) for row in rows[:3]]
    assert judged[1]["plain"]["emt_toxic"] == pytest.approx(sum(worst) / 3, abs=1e-4)


def test_the_files_say_how_they_were_made(judging: Judging, judged: tuple[Path, dict]) -> None:
    made = read_json(judged_files(judged[0], "fourth")[1].with_suffix(".jsonl.json"))
    assert made["generations"]["made_with"]["sampling"]["seed"] == SEED
    assert [scorer["name"] for scorer in made["scorers"]] == [judging.scorer]


def test_a_second_call_draws_nothing_anew(
    models: dict[str, Path], judging: Judging, judged: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ifguide.generation import job

    monkeypatch.setattr(job, "_generate", lambda *arguments: pytest.fail("drawn again"))
    assert judge_models(models, judging, judged[0], processes=0) == judged[1]


def test_the_key_follows_the_content_of_the_files(judging: Judging, tmp_path: Path) -> None:
    other = tmp_path / "prompts.jsonl"
    other.write_bytes(judging.prompts.read_bytes())
    moved = replace(judging, prompts=other)
    assert moved.key() == judging.key()
    write_jsonl(other, PROMPTS[1:])
    assert moved.key() != judging.key() != replace(judging, seed=SEED + 1).key()
