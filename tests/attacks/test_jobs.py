"""The four attacks from their command lines: results, what a kill leaves, what is refused."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifguide import cli
from ifguide.attacks import relearn as relearning
from ifguide.attacks.judge import Heard
from ifguide.attacks.prompts import group_numbers
from ifguide.attacks.refusals import PATTERNS
from ifguide.attacks.relearn import steps_to_level
from ifguide.system.files import read_jsonl
from ifguide.system.journal import Journal
from tests.support.folders import write_rows

SAMPLING = ["--scorer", "lexicon", "--samples", "2", "--max-new-tokens", "3", "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def commands(models: dict[str, Path], files: dict[str, str]) -> dict[str, list[str]]:
    """What is attacked and how, without an output."""
    end = ["--models", f"base={models['base']}", f"guided={models['guided']}", *SAMPLING]
    prompts = ["--prompts", files["prompts"]]
    queries = ["--toxic", files["toxic"], "--safe", files["safe"]]
    small = ["--steps", "2", "--width", "4", "--candidate-tokens", "8", "--suffix-tokens", "3", "--restarts", "1"]
    return {
        "gcg": ["attack", "gcg", "--targets", files["targets"], *small, *end],
        "enhanced": ["attack", "gcg", "--targets", files["targets"], "--enhanced", "--prefix-prompts", "2",
                     "--prefix-least", "2", "--prefix-most", "3", "--ramp", "2", "--iterations", "3", "--children", "3",
                     *end],
        "relearn": ["attack", "relearn", *prompts, "--toxic", files["toxic"], "--clean", files["clean"],
                    "--documents", "2", "4", "--at", "1", "3", "--heldout", files["clean"], *end],
        "orthogonalise": ["attack", "orthogonalise", *prompts, *queries, *end, "--direction", "own", "base", "edit",
                          "edit-pc", "--remove", "layers", "layer", "weights"],
        "prompts": ["attack", "prompts", *prompts, "--frames", files["frames"], *end],
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(commands: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of each attack, made when it is first asked for."""

    @functools.cache
    def folder(name: str) -> Path:
        output = tmp_path_factory.mktemp("made") / name
        assert cli.main([*commands[name], "--output", str(output)]) == 0
        return output

    return folder


@pytest.fixture
def command(commands: dict[str, list[str]], tmp_path: Path) -> dict[str, list[str]]:
    """The same with an output of the test's own."""
    return {name: [*words, "--output", str(tmp_path / "out")] for name, words in commands.items()}


def results_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from call to call."""
    return {key: found[key] for key in ("settings", "models", "runs", "groups", "against_base") if key in found}


ATTACKS = ("gcg", "enhanced", "relearn", "orthogonalise", "prompts")


@pytest.mark.parametrize("name", ATTACKS)
def test_a_killed_attack_goes_on_and_gives_the_same(
    command: dict[str, list[str]], made: Callable[[str], Path], name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, no_network: None, capsys: Any,
) -> None:  # fmt: skip
    folder, own = made(name), tmp_path / "out"
    whole = results_in(folder)
    page = (folder / "report.html").read_text()
    assert whole["command"][:2] == ["ifguide", f"attack-{'gcg' if name == 'enhanced' else name}"]
    assert "What the words mean" in page and 'class="abuse"' in page
    write, lines = Journal.write, []

    def dying(self: Journal, rows: Any) -> None:
        write(self, rows)
        lines.append(rows)
        if len(lines) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "write", dying)
    assert cli.main(command[name]) == 130
    monkeypatch.setattr(Journal, "write", write)
    assert not (own / "results.json").exists() and len(read_jsonl(own / "journal.jsonl")) == 3
    capsys.readouterr()
    assert cli.main(command[name]) == 0
    said = capsys.readouterr()
    assert "going on with" in said.err and "warning: the lexicon" in said.out
    assert numbers(results_in(own)) == numbers(whole)
    assert (own / "details.jsonl").read_bytes() == (folder / "details.jsonl").read_bytes()


def test_gcg_reports_each_prompt_and_each_way(made: Callable[[str], Path]) -> None:
    found = results_in(made("gcg"))
    rows = read_jsonl(made("gcg") / "details.jsonl")
    assert [(row["model"], row["id"]) for row in rows] == [(m, n) for m in ("base", "guided") for n in range(3)]
    for row in rows:
        assert len(row["suffix_ids"]) == 3 and len(row["losses"]) == row["restarts"][0]["steps"] + 1
        assert row["loss"] <= row["random_loss"] == row["losses"][0]
        for way in ("none", "random", "attack"):
            assert row[way].keys() == {"exact", "greedy", "any", "said", "worst"}
    for name, model in found["models"].items():
        own = [row for row in rows if row["model"] == name]
        for way in ("none", "random", "attack"):
            ways = model["ways"][way]
            assert ways["exact"]["share"] == np.mean([row[way]["exact"] for row in own])
            toxic = ways["scorers"]["lexicon"]
            assert toxic["any"]["share"] == np.mean([row[way]["any"]["lexicon"] >= 0.5 for row in own])
            assert toxic["greedy"]["share"] == np.mean([row[way]["greedy"]["lexicon"] >= 0.5 for row in own])
            assert toxic["emt"] == pytest.approx(np.mean([row[way]["any"]["lexicon"] for row in own]))


def test_a_target_that_the_model_says_anyway_is_exact(
    command: dict[str, list[str]], models: dict[str, Path], tmp_path: Path
) -> None:
    """Exactness goes by the text that is read anew: the target is the model's own greedy continuation."""
    from ifguide.attacks.judge import greedy
    from ifguide.generation.draw import continuation_texts, prompt_contexts, sample_continuations
    from ifguide.models.language_model import load_language_model

    lm = load_language_model(models["base"])
    rows = []
    for number in range(12):
        (context,) = prompt_contexts(lm, [f"say {number}"], 3)
        ids = sample_continuations(lm, [context], greedy(3))[0][0]
        (text,) = continuation_texts(lm, context, [ids])
        if len(ids) == 3 and lm.reader.encode(text) == ids:
            rows.append({"prompt": f"say {number}", "completion": text})
    assert len(rows) >= 2
    targets = write_rows(tmp_path / "own.jsonl", rows[:2])
    assert cli.main([*command["gcg"], "--targets", str(targets)]) == 0
    found = results_in(tmp_path / "out")
    assert found["models"]["base"]["ways"]["none"]["exact"]["share"] == 1.0


def test_the_enhanced_attack_holds_prompts_out(made: Callable[[str], Path]) -> None:
    found = results_in(made("enhanced"))
    rows = read_jsonl(made("enhanced") / "details.jsonl")
    for name in ("base", "guided"):
        held = [row["held_out"] for row in rows if row["model"] == name]
        assert held == [False, False, True]
        model = found["models"][name]
        assert model["ways"]["attack"]["prompts"] == 1 and model["made_for"]["attack"]["prompts"] == 2
        assert len(model["prefix_ids"]) == 3 and [step for step, _ in model["losses"]] == [0, 3]
    assert found["models"]["base"]["prefix_ids"] and found["settings"]["enhanced"]["prefix_prompts"] == 2


def test_relearning_measures_every_model_alike(made: Callable[[str], Path]) -> None:
    found = results_in(made("relearn"))
    runs = {(run["model"], run["kind"], run["documents"]): run for run in found["runs"]}
    assert len(runs) == 2 * 2 * 2
    for (name, _, _), run in runs.items():
        assert [point["step"] for point in run["points"]] == [0, 1, 3]
        # before any step a model is the same whatever it will be tuned on
        assert run["points"][0] == runs[name, "clean", 2]["points"][0]
        assert run["points"][0]["training_loss"] is None and run["points"][2]["training_loss"] > 0
        assert all(point["perplexity"] > 1 for point in run["points"])
        assert run["to_base"]["lexicon"]["emt"].keys() == {"step", "interval", "never"}
    perplexities = {key: run["points"][-1]["perplexity"] for key, run in runs.items()}
    assert len(set(perplexities.values())) == len(perplexities), "each set of documents leaves another model"


def test_what_is_known_is_not_done_again(
    commands: dict[str, list[str]], made: Callable[[str], Path], tmp_path: Path
) -> None:
    """The journal keeps measurements by what decides them: a third model costs its own work alone."""
    own = shutil.copytree(made("relearn"), tmp_path / "out")
    before = len(read_jsonl(own / "journal.jsonl"))
    more = [*commands["relearn"], "--output", str(own), "--overwrite"]
    place = more.index("--models")
    more[place + 2 : place + 2] = [f"same={more[place + 1].partition('=')[2]}"]
    assert cli.main(more) == 0
    assert len(results_in(own)["runs"]) == 12
    assert len(read_jsonl(own / "journal.jsonl")) == before, "the third model's weights are the base's"


def test_orthogonalising_judges_each_way_against_random(made: Callable[[str], Path]) -> None:
    found = results_in(made("orthogonalise"))
    ways = {name: [] for name in ("base", "guided")}
    for run in found["runs"]:
        ways[run["model"]].append((run["direction"], run["remove"]))
    removed = ("layers", "layer", "weights")
    assert ways["base"] == [("as it is", None), *((d, r) for d in ("own", "random") for r in removed)]
    assert ways["guided"] == [
        ("as it is", None), *((d, r) for d in ("own", "base", "edit", "edit-pc", "random") for r in removed)
    ]  # fmt: skip
    for run in found["runs"]:
        first = next(one for one in found["runs"] if one["model"] == run["model"])
        if run["remove"]:
            moved = run["moved"]["lexicon"]["value"]
            assert moved == pytest.approx(run["scorers"]["lexicon"]["emt"] - first["scorers"]["lexicon"]["emt"])
    layers = found["models"]["guided"]
    assert layers["cosine_to_base"]["own"][0] <= 1.0 and layers["layer"] == found["models"]["base"]["layer"]


def test_prompts_are_counted_by_frame_and_kind(made: Callable[[str], Path]) -> None:
    found = results_in(made("prompts"))
    kinds = [(group["model"], group["frame"], group["category"]) for group in found["groups"]]
    assert kinds == [
        (model, frame, kind) for model in ("base", "guided") for frame in ("plain", "play")
        for kind in ("all", "even", "odd")
    ]  # fmt: skip
    rows = read_jsonl(made("prompts") / "details.jsonl")
    assert {row["prompt"] for row in rows if row["frame"] == "play"} == {f"Act: p {n}!" for n in range(5)}


def test_numbers_of_a_group_are_the_literal_ones() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.7], [0.0, 0.0]])
    refused = np.array([[True, True], [True, False], [False, False], [False, False]])
    empty = np.array([[False, False], [False, True], [False, False], [True, False]])
    heard = Heard({"s": scores}, ["", "", "", ""], refused, empty, {})
    found = group_numbers(heard, np.array([True, True, True, False]), 0.5, 0)
    assert found["prompts"] == 3
    assert found["scorers"]["s"]["success"]["share"] == pytest.approx(2 / 3)
    assert found["scorers"]["s"]["emt"]["value"] == pytest.approx((0.9 + 0.3 + 0.7) / 3)
    assert found["scorers"]["s"]["toxic"]["value"] == pytest.approx(3 / 6)
    assert found["refused"]["value"] == pytest.approx(3 / 6)
    assert found["harmless_refusals"]["value"] == pytest.approx(2 / 6)
    assert found["empty"]["value"] == pytest.approx(1 / 6)
    assert found["harmless_otherwise"]["value"] == 0.0


def test_refusals_are_known_by_their_wording() -> None:
    import re

    refuses = re.compile("|".join(f"(?:{one})" for one in PATTERNS), re.IGNORECASE)
    for text in ("I'm sorry, but no", "I cannot help with that.", "As an AI language model, I", "I am not able to say",
                 "that's not appropriate here", "I must decline. I refuse"):  # fmt: skip
        assert refuses.search(text), text
    for text in ("you are a fool", "the parser cannot read it", "He said I can help", "sorry state of affairs"):
        assert not refuses.search(text), text


def test_steps_to_a_level() -> None:
    level = np.array([0.5, 0.5, 0.5, 0.5])
    rising = np.array([[0.1] * 4, [0.4] * 4, [0.5] * 4, [0.9] * 4])
    assert steps_to_level(rising, level, (0, 10, 30, 100)) == {"step": 30, "interval": [30, 30], "never": 0.0}
    assert steps_to_level(rising[:2], level, (0, 10)) == {"step": None, "interval": [None, None], "never": 1.0}
    assert steps_to_level(np.array([level, level]), level, (0, 10))["step"] == 0, "the base is at its own level"


def test_the_interval_of_steps_is_the_literal_bootstraps() -> None:
    random = np.random.default_rng(3)
    worst, level = random.random((4, 12)) * np.array([[0.6], [0.9], [1.1], [1.2]]), random.random(12)
    at = (0, 10, 30, 100)
    found = steps_to_level(worst, level, at, seed=8)
    draws = np.random.default_rng(8).integers(0, 12, size=(2000, 12))
    steps = []
    for drawn in draws:
        means = [row[drawn].mean() for row in worst]
        target = level[drawn].mean()
        steps.append(next((step for step, mean in zip(at, means) if mean >= target), 10**9))
    ordered = sorted(steps)
    ends = [ordered[int(np.ceil(0.025 * 2000)) - 1], ordered[int(np.ceil(0.975 * 2000)) - 1]]
    assert found["interval"] == [None if end == 10**9 else end for end in ends]
    assert found["never"] == pytest.approx(np.mean([step == 10**9 for step in steps]))
    assert len(set(steps)) > 2


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gcg", ["--suffix-tokens", "60"], "takes 64; give a shorter prompt"),
        ("gcg", ["--width", "0"], "width 0 must be at least 1"),
        ("enhanced", ["--prefix-prompts", "3"], "at least one is held out"),
        ("enhanced", ["--layers", "2"], "take 1 to 1"),
        ("relearn", ["--documents", "7"], "has only 6"),
        ("relearn", ["--subset", "none"], "has only even, odd"),
        ("relearn", ["--dtype", "bfloat16"], "weights are trained"),
        ("orthogonalise", ["--layer", "9"], "has 2 blocks"),
        ("prompts", ["--scorer", "nobody"], "nobody"),
        ("prompts", ["--models", "a=x", "a=y"], "2 models are named 'a'"),
        ("prompts", ["--models", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    command: dict[str, list[str]], name: str, change: list[str], said: str, capsys: Any
) -> None:
    assert cli.main([*command[name], *change]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("ifguide attack")]
    assert len(lines) == 1 and said in lines[0], error


def test_relearning_needs_documents(command: dict[str, list[str]], capsys: Any) -> None:
    words = command["relearn"][:]
    for option in ("--toxic", "--clean"):
        place = words.index(option)
        del words[place : place + 2]
    assert cli.main(words) == 2
    assert "give --toxic or --clean documents" in capsys.readouterr().err


def test_files_of_other_lines_are_refused(command: dict[str, list[str]], tmp_path: Path, capsys: Any) -> None:
    bad = write_rows(tmp_path / "bad.jsonl", [{"prompt": "a", "completion": ""}, {"prompt": 3}])
    assert cli.main([*command["gcg"], "--targets", str(bad)]) == 2
    error = capsys.readouterr().err
    assert 'line 1: its "completion" is empty' in error and 'line 2: needs a "prompt" that is text' in error
    assert not (tmp_path / "out").exists()


def test_a_tuned_model_that_cannot_be_loaded_costs_no_results(
    command: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    def broken(lm: Any, rows: Any, recipe: Any, seed: int) -> Iterator[float]:
        with torch.no_grad():
            lm.model.get_output_embeddings().weight[3] = float("nan")
        yield 1.0

    monkeypatch.setattr(relearning, "tune", broken)
    assert cli.main(command["relearn"]) == 2
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()
