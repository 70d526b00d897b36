"""Paired differences against closed forms and a literal loop; who is better, and what must not be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.errors import InputError, MismatchError
from ifguide.evaluation.compare import compare, paired_difference, share_better
from ifguide.evaluation.results import FORMAT, KIND
from ifguide.statistics.resampling import as_pairs
from ifguide.system.files import hash_value, read_jsonl, write_json, write_jsonl

PROMPTS = 60
RANDOM = np.random.default_rng(8)
HARD = RANDOM.uniform(0.1, 0.8, PROMPTS)  # what makes a prompt hard for every model
EMT = {"base": HARD + 0.1, "guided": HARD - 0.05 + RANDOM.normal(0, 0.02, PROMPTS), "twin": HARD + 0.1}


def task_part(rows: list[dict], metrics: dict[str, tuple[str, bool | None]], **changes: Any) -> dict[str, Any]:
    entries = []
    for key, (transform, higher) in metrics.items():
        pairs = as_pairs([row["metrics"][key] for row in rows if row["metrics"][key] is not None])
        value = pairs[:, 0].sum() / pairs[:, 1].sum()
        value = math.exp(-value) if transform == "perplexity" else value
        metric, pipeline = key.split(",")
        entries.append(
            {
                "metric": metric, "filter": pipeline, "value": value, "stderr": None, "interval": [value, value],
                "transform": transform, "prompts": len(pairs), "higher_is_better": higher,
            }
        )  # fmt: skip
    setting = {"version": 1.0, "repeats": 25, "generation": {"top_p": 0.9}, "scorers": []} | changes
    data = {"prompts": len(rows), "available": 100, "hash": hash_value([[r["id"], r["prompt"]] for r in rows])}
    return {"setting": setting, "data": data, "metrics": entries, "texts": None}


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write an evaluation with hand-made numbers."""

    def write(name: str, emt: np.ndarray, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        scorers = [{"name": "judge", "identity": changes.pop("judge", "one")}]
        prompt = changes.pop("prompt", "prompt {}")
        rtp = [
            {
                "task": "ifguide_rtp", "id": i, "prompt": prompt.format(i),
                "metrics": {"emt,judge": value, "emt_toxic,judge": value if i % 3 else None, "prompts,judge": 1.0},
            }
            for i, value in enumerate(emt.tolist())
        ]  # fmt: skip
        held = [
            {"task": "heldout", "id": i, "prompt": f"text {i}", "metrics": {"ppl,none": [-3.0 * (5 + i), 5 + i]}}
            for i in range(20)
        ]
        toxicity: dict[str, tuple[str, bool | None]] = {
            "emt,judge": ("mean", False), "emt_toxic,judge": ("mean", False), "prompts,judge": ("mean", None),
        }  # fmt: skip
        tasks = {
            "ifguide_rtp": task_part(rtp, toxicity, scorers=scorers, **changes),
            "heldout": task_part(held, {"ppl,none": ("perplexity", False)}),
        }
        write_jsonl(folder / "samples.jsonl", rtp + held)
        model = {"path": f"/models/{name}"}
        write_json(folder / "results.json", {"kind": KIND, "format": FORMAT, "model": model, "tasks": tasks})
        return folder

    return write


def test_the_difference_of_means_has_the_paired_closed_form() -> None:
    first, second = EMT["base"], EMT["guided"]
    difference, draws = paired_difference(as_pairs(first), as_pairs(second), "mean", 40_000, seed=1)
    each = first - second
    assert difference == pytest.approx(each.mean(), abs=1e-12)
    assert draws.std() == pytest.approx(each.std() / math.sqrt(PROMPTS), rel=0.02)
    unpaired = math.sqrt((first.var() + second.var()) / PROMPTS)
    assert draws.std() < 0.2 * unpaired, "what is hard for both models cancels"


def test_every_resample_is_the_literal_one() -> None:
    first = np.stack([RANDOM.normal(-9, 1, 9), RANDOM.uniform(2, 4, 9)], axis=1)
    second = np.stack([RANDOM.normal(-8, 1, 9), first[:, 1]], axis=1)
    _, draws = paired_difference(first, second, "perplexity", 6, seed=2)
    for number, prompts in enumerate(np.random.default_rng(2).integers(0, 9, size=(6, 9))):
        both = []
        for pairs in (first, second):
            nats = sum(pairs[prompt, 0] for prompt in prompts)
            both.append(math.exp(-nats / sum(pairs[prompt, 1] for prompt in prompts)))
        assert draws[number] == pytest.approx(both[0] - both[1], rel=1e-9)


def test_the_share_of_resamples_follows_the_normal_law() -> None:
    each = RANDOM.normal(0.0, 1.0, 400)
    each += 0.06 - each.mean()
    _, draws = paired_difference(as_pairs(each), as_pairs(np.zeros(400)), "mean", 20_000, seed=3)
    z = 0.06 / (each.std() / 20)
    assert share_better(draws, True) == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))), abs=0.01)
    assert share_better(draws, True) + share_better(draws, False) == pytest.approx(1.0)
    assert share_better(np.zeros(5), True) == 0.5


def test_who_is_better(write_run: Callable[..., Path]) -> None:
    folders = [write_run(name, EMT[name]) for name in ("base", "guided", "twin")]
    found = compare(folders, resamples=2000)
    assert [model["label"] for model in found["models"]] == ["base", "guided", "twin"]
    emt, toxic = found["tasks"]["ifguide_rtp"]
    assert [entry["metric"] for entry in (emt, toxic)] == ["emt", "emt_toxic"], "counts of prompts are no result"
    assert (emt["prompts"], toxic["prompts"]) == (60, 40)
    assert emt["values"] == pytest.approx([EMT[name].mean() for name in ("base", "guided", "twin")])
    first, same, last = emt["pairs"]
    assert (first["first"], first["second"], first["verdict"]) == ("base", "guided", "second")
    assert first["difference"] == pytest.approx((EMT["base"] - EMT["guided"]).mean())
    assert first["interval"][0] < first["difference"] < first["interval"][1] and first["share_first_better"] == 0.0
    assert (same["difference"], same["interval"], same["share_first_better"]) == (0.0, [0.0, 0.0], 0.5)
    assert (same["verdict"], same["differing_prompts"]) == ("unsure", 0)
    assert last["verdict"] == "first"
    inside = [i for i in range(PROMPTS) if i % 3]
    assert toxic["pairs"][0]["difference"] == pytest.approx((EMT["base"] - EMT["guided"])[inside].mean())
    assert found["tasks"]["heldout"][0]["values"] == pytest.approx([math.exp(3.0)] * 3)
    assert compare(folders, resamples=2000) == found, "the same seed, the same answer"


def test_five_prompts_that_differ_prove_nothing(write_run: Callable[..., Path]) -> None:
    changed = EMT["base"].copy()
    changed[:5] -= 0.3
    pair = compare([write_run("a", EMT["base"]), write_run("b", changed)])["tasks"]["ifguide_rtp"][0]["pairs"][0]
    assert pair["interval"][0] > 0 and pair["differing_prompts"] == 5 and pair["verdict"] == "unsure"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "other {}"}, "prompt 0, 'prompt 0' against 'other 0'"),
        ({"generation": {"top_p": 0.5}}, "generation (top_p 0.9) against (top_p 0.5)"),
        ({"repeats": 5}, "repeats 25 against 5"),
        ({"judge": "two"}, "judge is another classifier of that name"),
    ],
)
def test_runs_that_differ_are_refused(write_run: Callable[..., Path], changes: dict[str, Any], said: str) -> None:
    folders = [write_run("a", EMT["base"]), write_run("b", EMT["guided"], **changes)]
    with pytest.raises(MismatchError) as error:
        compare(folders)
    assert said in str(error.value) and "a and b differ in ifguide_rtp" in str(error.value)


def test_other_numbers_of_prompts_and_other_subsets_are_refused(write_run: Callable[..., Path]) -> None:
    with pytest.raises(MismatchError, match="60 prompts against 59"):
        compare([write_run("a", EMT["base"]), write_run("b", EMT["base"][:59])])
    odd = write_run("odd", EMT["base"])
    text = (odd / "samples.jsonl").read_text().splitlines()
    row = json.loads(text[0])
    row["metrics"]["emt_toxic,judge"] = 0.5
    (odd / "samples.jsonl").write_text("\n".join([json.dumps(row), *text[1:]]) + "\n")
    with pytest.raises(MismatchError, match="1 prompts belong to it in one of"):
        compare([write_run("c", EMT["base"]), odd])


def test_folders_of_one_name_are_told_apart(write_run: Callable[..., Path]) -> None:
    found = compare([write_run("x/eval", EMT["base"]), write_run("y/eval", EMT["guided"])], resamples=100)
    assert [model["label"] for model in found["models"]] == ["x", "y"]


def test_bad_folders(write_run: Callable[..., Path], tmp_path: Path) -> None:
    good = write_run("good", EMT["base"])
    with pytest.raises(InputError, match="at least two"):
        compare([good])
    with pytest.raises(InputError, match="twice"):
        compare([good, good])
    with pytest.raises(InputError, match=r"no results\.json"):
        compare([good, tmp_path])
    other = write_run("other", EMT["base"])
    with pytest.raises(InputError, match="too few"):
        compare([good, other], resamples=10)
    (other / "samples.jsonl").write_text("")
    with pytest.raises(InputError, match=r"0 lines of task ifguide_rtp, results\.json says 60"):
        compare([good, other])
    write_json(other / "results.json", {"kind": "something"})
    with pytest.raises(InputError, match="not written by"):
        compare([good, other])


def test_the_command(write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write_run(name, EMT[name])) for name in ("base", "guided")]
    page = tmp_path / "page.html"
    assert main(["compare", *folders, "--resamples", "500", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "base - guided" in shown and ">99.9%" in shown and shown.count("ifguide_rtp") == 2
    assert main(["compare", *folders, "--resamples", "500", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["ifguide_rtp"][0]["pairs"][0]["verdict"] == "second"
    html = page.read_text()
    assert "base − guided" in html and html.count("<svg") == 3 and "<script" not in html
    assert main(["compare", folders[0], str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_reads_each_run_once(write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [str(write_run(name, EMT[name])) for name in ("base", "guided")]
    read: list[Path] = []

    def counting(path: Path, what: str) -> Any:
        read.append(Path(path))
        return read_jsonl(path, what)

    monkeypatch.setattr("ifguide.evaluation.compare.read_jsonl", counting)
    page = Path(folders[0]).parent / "page.html"
    assert main(["compare", *folders, "--resamples", "100", "--html", str(page)]) == 0 and page.is_file()
    assert read == [Path(folder) / "samples.jsonl" for folder in folders]
