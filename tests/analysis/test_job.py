"""From a command to a folder: results, record and page; a kill that costs nothing; every fault in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import run_child
from ifguide import cli
from ifguide.analysis import neurons, speech
from ifguide.analysis.inputs import Bench, Subject, prompt_groups, text_of
from ifguide.errors import MismatchError
from ifguide.influence.queries import make_query
from tests.support.insides import make_bench, save, small_llama, small_neox, write_jsonl
from tests.support.tiny_models import tiny_neox

SPEECH = ["--samples", "2", "--max-new-tokens", "2", "--max-prompts", "3"]
NEURONS = ["--neurons", "4", "--unalign", "2"]
OPTIONS = {
    "lens": ["--positions", "every"],
    "direction": ["--scales", "1", *SPEECH],
    "probe": ["--folds", "2", "--hidden", "2"],
    "neurons": [*NEURONS, *SPEECH],
    "drift": [*NEURONS, "--random-sets", "20"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, queries, and words of one byte."""
    folder = tmp_path_factory.mktemp("made")
    save(tiny_neox(hidden_size=16, intermediate_size=32), folder / "a")
    other = tiny_neox(hidden_size=16, intermediate_size=32)
    for parameter in other.parameters():
        parameter.data *= 1.1
    save(other, folder / "b")
    for role, letters in (("toxic", "abcdef"), ("safe", "uvwxyz")):
        rows = [{"prompt": f"{role[0]}{n}", "completion": f" {letter}{letter}"} for n, letter in enumerate(letters)]
        write_jsonl(folder / f"{role}.jsonl", rows)
    # every byte: the base says one of them everywhere
    (folder / "words.txt").write_text("\n".join("abcdefghijklmnopqrstuvwxyz0123456789!?.,;:"))
    return folder


def command(made: Path, what: str, output: Path, *more: str) -> list[str]:
    words = ["--toxic-words", str(made / "words.txt"), "--top-k", "40"] if what == "lens" else []
    return [
        "analyse", what, "--models", f"base={made / 'a'}", f"guided={made / 'b'}", "--toxic-queries",
        str(made / "toxic.jsonl"), "--safe-queries", str(made / "safe.jsonl"), "--scorer", "lexicon", "--resamples",
        "100", "--device", "cpu", "--output", str(output), *OPTIONS[what], *words, *more,
    ]  # fmt: skip


@pytest.mark.parametrize("what", OPTIONS)
def test_a_folder_holds_results_record_and_page(made: Path, tmp_path: Path, capsys: Any, what: str) -> None:
    output = tmp_path / "deep" / "out"
    assert cli.main(command(made, what, output)) == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "results.json", "run.json"]
    results = json.loads((output / "results.json").read_text())
    assert (results["kind"], results["what"]) == ("ifguide-analysis", what)
    assert [model["label"] for model in results["models"]] == ["base", "guided"]
    page = (output / "report.html").read_text()
    for finding in results["findings"]:
        assert finding["verdict"] and all(sentence in said for sentence in finding["verdict"])
        assert finding["figure"]["kind"] in ("lines", "dots", "heat")
    assert page.count("<figure>") == len(results["findings"]) and not re.search(r"\bnan\b", page.lower())
    record = json.loads((output / "run.json").read_text())
    assert record["command"][:3] == ["ifguide", "analyse", what] and record["inputs"]["toxic_queries"]["hash"]
    if what in ("probe", "drift", "lens"):  # the table of docs/mechanism.md reads these
        table = run_child(["benchmarks/insides_table.py", output / "results.json"]).output.splitlines()
        assert re.fullmatch(r"\| guided( \| [\d.e-]+){1,3} \|", table[3])
    assert cli.main(command(made, what, output)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert cli.main(command(made, what, output, "--seed", "1")) == 2
    assert "--seed was 0, is 1" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_comes_to_the_same(made: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert cli.main(command(made, "neurons", whole)) == 0
    calls = []
    plain = speech.speak

    def failing(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(neurons, "speak", failing)
    assert cli.main(command(made, "neurons", torn)) == 130
    assert [path.name for path in torn.iterdir()] == ["journal.jsonl"]
    assert cli.main(command(made, "neurons", torn)) == 0
    assert len(calls) == 5 + 2, "four of six were kept"
    assert "going on with" in capsys.readouterr().err
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (whole, torn))
    assert one["numbers"] == other["numbers"] and one["findings"] == other["findings"]
    assert not (torn / "journal.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--models", "=base"], "--models =base: give NAME=DIR"),
        (["--models", "a={a}", "a={a}"], "2 models are named 'a'"),
        (["--models", "a=/nowhere"], "model a: /nowhere is not a folder"),
        (["--toxic-queries", "/nowhere"], "toxic queries /nowhere does not exist"),
        (["--random-sets", "30"], "--random-sets is an option of drift, not of direction"),
        (["--scorer", "nobody"], "scorer 'nobody' is not known"),
        (["--text", "{a}/config.json"], "line 1: not valid JSON"),
        (["--resamples", "5"], "--resamples 5 at least 100"),
        (["--scales", "nan"], "--scales must be numbers"),
        (["--samples", "0"], "samples (0)"),
        (["--max-new-tokens", "64"], "leaves no room for a prompt"),
    ],
)
def test_a_fault_is_one_line_and_leaves_nothing(
    made: Path, tmp_path: Path, capsys: Any, change: list[str], says: str
) -> None:
    change = [word.replace("{a}", str(made / "a")) for word in change]
    assert cli.main([*command(made, "direction", tmp_path / "out"), *change]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "pieces" not in line]
    assert len(lines) == 1 and says in lines[0] and not list(tmp_path.iterdir())


def test_what_is_missing_is_named(made: Path, tmp_path: Path, capsys: Any) -> None:
    common = ["--models", f"base={made / 'a'}", "--output", str(tmp_path / "out")]
    assert cli.main(["analyse", "probe", *common]) == 2
    error = capsys.readouterr().err
    assert "analyse probe needs --toxic-queries FILE" in error and "analyse probe needs --safe-queries FILE" in error
    assert cli.main(["analyse", "lens", *common]) == 2
    assert "analyse lens needs --prompts FILE or --toxic-queries FILE" in capsys.readouterr().err


def test_models_of_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MismatchError, match=r"model llama is of another kind than base \(model_type llama, not gpt_neox"
    ):
        make_bench(tmp_path, {"base": small_neox(), "llama": small_llama()}, ["a"], ["b"])
    (tmp_path / "two").mkdir()
    with pytest.raises(MismatchError, match="num_hidden_layers 2, not 3"):
        make_bench(tmp_path / "two", {"base": small_neox(), "short": small_neox(num_hidden_layers=2)}, ["a"], ["b"])


def test_a_text_is_the_query_with_its_last_token() -> None:
    text = text_of(make_query([5, 6], [7, 8, 9], 0))
    assert text.tokens == (0, 5, 6, 7, 8, 9) and text.is_target == (False, False, False, True, True, True)
    assert text.prompt == (0, 5, 6) and text.targets == [3, 4, 5]
    others = [make_query([5, 6], [1], 0), make_query([5], [6, 7], 0)]
    assert prompt_groups([text, *map(text_of, others)]).tolist() == [0, 0, 1]


def test_one_model_is_in_memory_at_a_time(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {"base": small_neox(), "other": small_neox()}, ["a"], ["b"])

    def loaded() -> list[str]:
        return [model.label for model in bench.models if "lm" in vars(model)]

    seen = []
    for model in bench.each():
        assert isinstance(model, Subject) and model.lm is model.lm
        seen.append(loaded())
    assert seen == [["base"], ["other"]] and loaded() == []
    assert isinstance(bench, Bench)


def test_several_folders_are_one_page(made: Path, tmp_path: Path, capsys: Any) -> None:
    for what in ("lens", "probe"):
        assert cli.main(command(made, what, tmp_path / what)) == 0
    capsys.readouterr()
    page = tmp_path / "all.html"
    runs = [str(tmp_path / "lens"), str(tmp_path / "probe")]
    assert cli.main(["compare", *runs, "--html", str(page)]) == 0
    said, text = capsys.readouterr().out, page.read_text()
    assert "Logit lens" in text and "Probes" in text and text.count("<h1>") == 1
    for what in ("lens", "probe"):
        for finding in json.loads((tmp_path / what / "results.json").read_text())["findings"]:
            assert all(sentence in said for sentence in finding["verdict"])
    assert cli.main(["compare", runs[0], str(made), "--html", str(tmp_path / "other.html")]) == 2
    assert "holds no finished analysis" in capsys.readouterr().err and not (tmp_path / "other.html").exists()
    assert cli.main(["compare", runs[0], runs[0]]) == 2
    assert "is given twice" in capsys.readouterr().err
