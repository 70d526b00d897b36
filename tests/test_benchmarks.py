"""The benchmark scripts still run, and clean up; their numbers are for people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import REPOSITORY, markdown_table, median_time, run_child, time_alternating


def test_selection(tmp_path):
    command = [sys.executable, REPOSITORY / "benchmarks/selection.py", "--workdir", tmp_path, "--tokens", "1e5"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    row, *others = result["build_mask"]
    assert [other["case"] for other in others] == ["line", "sentence", "window", "within"]
    assert all(0 < other["selected"] <= 2100 and other["spans_selected"] > 0 for other in others)
    assert row["tokens"] == 100_000 and 0 < row["selected"] <= 2000 and row["toxic"] > 900
    assert row["seconds"] > 0 and row["peak_rss_gb"] > 0.01 and row["times_the_literal_loop"] > 0
    assert {"versions", "machine", "revision", "command"} <= result.keys()
    assert "| 1e+05 |" in done.stderr and not list(tmp_path.iterdir())


def test_data_in(tmp_path):
    for name in ("megatron.core", "tokenizers", "pyarrow", "zstandard"):
        pytest.importorskip(name)
    command = [sys.executable, REPOSITORY / "benchmarks/data_in.py", "--folder", tmp_path, "--megabytes", "0.02"]
    text = tmp_path.with_suffix(".jsonl")
    text.write_text(
        "".join(json.dumps({"text": f"{word} of a text that comes again\n\nand again"}) + "\n" for word in "abc")
    )
    command += ["--vocab-size", "300", "--workers", "2", "--kinds", "zst", "parquet", "--text", text]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert [(case["kind"], case["work"], case["workers"]) for case in result["cases"]] == [
        ("zst", "read", 1), ("zst", "preprocess", 2), ("parquet", "read", 1), ("parquet", "preprocess", 2),
    ]  # fmt: skip
    assert all(case["mb_per_second"] > 0 and case["peak_rss_mb"] > 1 for case in result["cases"])
    assert "| zst | preprocess | 2 |" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ranks(tmp_path):
    pytest.importorskip("torch")
    options = ["--documents", "3e4", "--seconds", "0.01", "--folders", "20"]
    result = json.loads(run_child(["benchmarks/ranks.py", "--workdir", tmp_path, *options]).output)
    assert result["waits"]["least_possible"] == 0.03 and result["waits"]["after"] > 0
    assert [row["shards"] for row in result["folder"]["writes"]] == [20]
    start = result["start"]
    for ways in start["seconds"].values():
        assert ways["later start"]["all"] <= ways["first start"]["all"] < ways["before"]["all"]
        assert all(parts["all"] == pytest.approx(sum(parts.values()) - parts["all"]) for parts in ways.values())
    assert start["gb_at_1e8_documents"].keys() == {"read", "mapped"} and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_attribution(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("kronfluence")
    options = (
        "--shape tiny --sections memory direction speed precision --repeats 1 --windows 2 --queries 32 "
        "--memory-windows 2 --memory-of difference"
    )
    child = run_child(["benchmarks/attribution.py", *options.split()], OMP_NUM_THREADS="1")
    result = json.loads(child.output)
    assert result["direction"]["largest_difference"] < 1e-4
    speed = result["speed"]
    assert speed["agreement"]["kronfluence with position"]["largest_difference"] < 1e-5
    assert speed["agreement"]["difference with jvp"]["correlation"] > 0.999
    assert "bergson" in speed["forwards"] or speed["bergson"]["not_timed"]
    assert speed["forwards"].keys() == speed["flops"]["ways"].keys() and speed["forwards"]["plain forward"] == 1
    assert result["precision"]["ways"]["jvp, bf16"]["agreement_with_fp32_jvp"]["correlation"] > 0.99
    size = result["memory"]["bytes"]["difference"]
    assert size["peak"] > size["model_loaded"] > 1e7 and size["above_model"] == size["peak"] - size["model_loaded"]
    assert {goal["goal"] for goal in result["goals"]} >= {"jvp <= 3.4 plain forwards"}


@pytest.mark.slow
def test_contention():
    pytest.importorskip("transformers")
    options = "--repeats 1 --seconds 0.05 --threads 1 --policies default passive"
    result = json.loads(run_child(["benchmarks/contention.py", *options.split()]).output)
    assert result["policies"] == {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}
    for places in result["tokens_per_second"].values():
        assert places.keys() == {"quiet", "beside two busy threads"}
        assert all(found["training"] > 0 and found["scoring"] > 0 for found in places.values())


def test_child_processes_are_measured():
    child = run_child(["-c", "x = bytearray(200_000_000); print(len(x))"])
    assert child.output == "200000000\n" and child.peak_rss > 2e8
    assert child.cpu_seconds > 0 and child.seconds > 0
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1.*no such thing"):
        run_child(["-c", "raise SystemExit('no such thing')"])


def test_works_take_turns():
    order: list[str] = []
    works = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = time_alternating(works, repeats=3, warmup=1)
    assert order == ["a", "b"] * 4 and len(timings["a"].seconds) == 3
    assert median_time(lambda: None, repeats=4).as_dict()["repeats"] == 4


def test_table():
    assert markdown_table(["size", "s"], [("1e6", 2)]) == "| size | s |\n| --- | ---: |\n| 1e6 | 2 |"


def test_the_repository_is_the_one_of_this_test():
    assert Path(__file__).resolve().is_relative_to(REPOSITORY)


def test_insides_cost():
    pytest.importorskip("torch")
    options = "--parameters 1e9 --matmul 1e15 --bandwidth 1e30 --queries 10 --query-tokens 5 --prompts 2 --samples 3"
    commands = json.loads(run_child(["benchmarks/insides_cost.py", *options.split()]).output)["commands"]
    assert commands["analyse lens"] == {
        "read": 100,
        "trained": 0,
        "said": 0,
        "minutes": pytest.approx(2e11 / 1e15 / 60),
    }
    # with memory that is never waited for, a token said costs what a token read does
    assert commands["attack prompts"]["minutes"] == pytest.approx(2 * 3 * 20 * 2e9 / 1e15 / 60)
    assert commands["attack relearn"]["said"] == (1 + 4 * 4) * 120 and commands["attack relearn"]["trained"] == 48_000


def test_methods_table(tmp_path):
    def entry(tp, perplexity, **more):
        mean = {"tp_toxic": tp, "tp_toxic@j": tp, "emt_toxic": tp, "perplexity": perplexity, "distinct_2": 0.8}
        costs = {"seconds": 60.0, "trained_tokens": 2e6, "memory": 1e9}
        return {"mean": mean | costs, "interval": {}, "extra": ["word list"], **more}

    against = {
        "tp_toxic": {"difference": -0.4, "interval": [-0.5, -0.3]},
        "perplexity": {"ratio": 1.1, "interval": None},
    }
    methods = {
        "base": entry(0.9, 50.0),
        "good": entry(0.5, 55.0, against_base={"metrics": against}),
        "bad": entry(0.9, 51.0),
    }
    (tmp_path / "r.json").write_text(json.dumps({"judges": ["i", "j"], "methods": methods | {"none": {"mean": {}}}}))
    said = run_child(["benchmarks/methods_table.py", tmp_path / "r.json"]).output
    assert "| good | 0.50 / 0.50 | -0.40 [-0.50, -0.30] | 0.50 | +10.0 % | 0.80 |" in said
    assert said.endswith("Not beaten in both TP and perplexity: base, good\n") and "none" not in said
    said = run_child(["benchmarks/methods_table.py", tmp_path / "r.json", "--costs", "--names", "good"]).output
    assert said.splitlines()[-1] == "| good | 60 | 2.00 | 1.0 | word list |"
    with pytest.raises(RuntimeError, match=r"ended with 2:(?s:.*)no results of none, no; it has base, good, bad\n"):
        run_child(["benchmarks/methods_table.py", tmp_path / "r.json", "--names", "none", "base", "no"])


def test_insides_table(tmp_path):
    def write(seed, what, of_models, labels=("base", "a")):
        path = tmp_path / str(seed) / what / "results.json"
        path.parent.mkdir(parents=True)
        models = [{"label": label} for label in labels]
        path.write_text(json.dumps({"what": what, "models": models, "numbers": {"models": of_models}}))
        return path

    def last(value):
        return {"values": [0.9, value]}

    paths = []
    for seed in (1, 2):
        cka = {"toxic": last(seed / 3), "safe": last(seed / 7)}
        matrices = [{"relative": 0.2}, {"relative": seed}, {"relative": 0.3}]
        paths.append(write(seed, "drift", {"a": {"matrices": matrices, "cka": cka}}))
        probed = {"base": {"logistic": last(0.78)}, "a": {"logistic": last(0.7), "base's probe": last(seed / 9)}}
        paths.append(write(seed, "probe", probed))
    said = run_child(["benchmarks/insides_table.py", *paths]).output.splitlines()
    assert said[0] == (
        "| model | AUC of a fresh probe | of the base's probe | most moved matrix | CKA, toxic | CKA, safe |"
    )
    assert said[2:] == [
        "| base | 0.78, 0.78 |  |  |  |  |",
        "| a | 0.7, 0.7 | 0.111, 0.222 | 1, 2 | 0.333, 0.667 | 0.143, 0.286 |",
    ]
    with pytest.raises(RuntimeError, match="not of the same number of seeds"):
        run_child(["benchmarks/insides_table.py", *paths[:3]])
    with pytest.raises(RuntimeError, match="not of the same models"):
        run_child(["benchmarks/insides_table.py", *paths, write(3, "probe", {}, ("base", "b"))])


def test_insides_table_of_directions(tmp_path):
    for seed in (1, 2):
        own = {"emt": {"values": [0.5, seed / 4]}}
        numbers = {
            "scales": [0.0, 2.0], "models": {"base": {"own": own}, "a": {"own": own, "base's": own}},
            "cosines": {"base": {"values": [0.0, 1.0]}, "a": {"values": [0.0, seed / 8]}},
        }  # fmt: skip
        models = [{"label": label} for label in ("base", "a")]
        (tmp_path / f"{seed}.json").write_text(json.dumps({"what": "direction", "models": models, "numbers": numbers}))
    said = run_child(["benchmarks/insides_table.py", tmp_path / "1.json", tmp_path / "2.json"]).output.splitlines()
    assert said[0] == "| model | cosine | EMT at 0 | EMT at 2, own | EMT at 2, base's |"
    assert said[2:] == [
        "| base | 1, 1 | 0.5, 0.5 | 0.25, 0.5 |  |",
        "| a | 0.125, 0.25 | 0.5, 0.5 | 0.25, 0.5 | 0.25, 0.5 |",
    ]


def test_attacks_table(tmp_path):
    def said_of(attack, **found):
        for seed in (1, 2):
            text = json.dumps({"attack": f"attack-{attack}", **found}).replace("9.5", str(seed / 4))
            (tmp_path / f"{attack}-{seed}.json").write_text(text)
        return run_child(
            ["benchmarks/attacks_table.py", *sorted(tmp_path.glob(f"{attack}-?.json"))]
        ).output.splitlines()

    runs = [
        {"model": "base", "direction": "as it is", "remove": None, "scorers": {"j": {"emt": 9.5}, "k": {"emt": 0}}},
        {"model": "a", "direction": "as it is", "remove": None, "scorers": {"j": {"emt": 0.5}}},
        {"model": "a", "direction": "own", "remove": "layers", "scorers": {"j": {"emt": 9.5}}},
    ]
    table = ["| model | as it is | own, layers |", "| base | 0.25, 0.50 |  |", "| a | 0.50, 0.50 | 0.25, 0.50 |"]
    said = said_of("orthogonalise", runs=runs)
    assert [said[0], *said[2:]] == table
    groups = [
        {"model": "a", "frame": "plain", "category": kind, "scorers": {"j": {"emt": {"value": value}}}}
        for kind, value in (("all", 9.5), ("rude", 0.1))
    ]
    assert said_of("prompts", groups=groups)[2:] == ["| a | 0.25, 0.50 |"]
    ways = {way: {"scorers": {"j": {"emt": 9.5}}} for way in ("none", "attack")}
    assert said_of("gcg", models={"a": {"ways": ways}})[2:] == ["| a | 0.25, 0.50 | 0.25, 0.50 |"]
    with pytest.raises(RuntimeError, match="not of one attack on the same models"):
        run_child(["benchmarks/attacks_table.py", tmp_path / "gcg-1.json", tmp_path / "prompts-1.json"])


def test_relearn_table(tmp_path):
    def results(emt, reached):
        points = [{"step": step, "scorers": {"j": {"emt": emt + step / 100}}} for step in (0, 10)]
        run = {"points": points, "to_base": {"j": {"emt": {"step": reached}}}}
        return {"runs": [{"model": "a", "kind": kind, "documents": 10, **run} for kind in ("clean", "toxic")]}

    for seed, (emt, reached) in enumerate(((0.2, 10), (0.4, None))):
        (tmp_path / f"{seed}.json").write_text(json.dumps(results(emt, reached)))
    said = run_child(["benchmarks/relearn_table.py", tmp_path / "0.json", tmp_path / "1.json"]).output
    assert said.splitlines()[2:] == ["| 10 toxic | a | 0.30 | 0.40 | 10, – |", "| 10 clean | a | 0.30 | 0.40 | 10, – |"]
