"""`ifguide evaluate` on a tiny model and local data: true to its samples, independent of batches, kills and order."""

from __future__ import annotations

import fcntl
import html
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from ifguide.cli import main
from ifguide.errors import ConfigError, InputError, MismatchError, NumericsError
from ifguide.evaluation.agreement import agreement
from ifguide.evaluation.compare import compare
from ifguide.evaluation.metrics import emt, tp
from ifguide.evaluation.perplexity import language_model_perplexity
from ifguide.evaluation.results import _metrics
from ifguide.evaluation.run import EvaluationSettings, run_evaluation
from ifguide.evaluation.sampled_docs import draw
from ifguide.generation.draw import Drawing, generate
from ifguide.models.language_model import load_language_model
from ifguide.pages.comparison import comparison_page
from ifguide.pages.evaluation_table import comparison_table, results_table
from ifguide.scorers.lexicon import LexiconScorer
from ifguide.system.files import hash_file, hash_value, read_json, read_jsonl, write_json, write_jsonl
from tests.support.tiny_models import byte_tokenizer, save_classifier, tiny_neox
from tests.support.tiny_scorers import save_causal

PROMPTS = ["you are", "a stupid cat", "", "you are", "the trees", "<b>&amp;", "kind words", "日本"]
TOXICITY = [0.9, 0.7, 0.1, 0.6, 0.2, None, 0.0, 0.5]
SAMPLES = 25


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [{"id": f"p{i}", "prompt": p, "toxicity": t} for i, (p, t) in enumerate(zip(PROMPTS, TOXICITY)) if p]
    write_jsonl(folder / "rtp.jsonl", rows)
    write_jsonl(folder / "attaq.jsonl", [{"prompt": p, "label": "pii"} for p in PROMPTS[:2]])
    write_jsonl(folder / "lambada.jsonl", [{"text": f"the {word} sat on the {word}"} for word in ("cat", "mat", "dog")])
    write_jsonl(folder / "heldout.jsonl", [{"text": text} for text in ("a kind word", "the trees and the cat")])
    return folder


@pytest.fixture
def settings(model_dir: Path, data: Path, tmp_path: Path) -> Callable[..., EvaluationSettings]:
    def make(output: str = "run", tasks: str = "ifguide_rtp", **changes: Any) -> EvaluationSettings:
        given = {"model": model_dir, "data": data, "scorers": ("lexicon",), "device": "cpu"} | changes
        return EvaluationSettings(tasks=tuple(tasks.split(",")), output=tmp_path / output, **given)

    return make


@pytest.fixture
def favourite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that finds something in a random model's bytes: the share of capital letters and signs."""

    def score(self: LexiconScorer, texts: list[str]) -> dict[str, np.ndarray]:
        return {"toxicity": np.array([sum(c.isupper() for c in text) / (len(text) + 1) * 2 % 1 for text in texts])}

    monkeypatch.setattr(LexiconScorer, "_probabilities", score)


def metric(results: dict[str, Any], name: str, task: str = "ifguide_rtp") -> dict[str, Any]:
    return next(entry for entry in results["tasks"][task]["metrics"] if entry["metric"] == name)


def test_the_results_are_what_the_samples_say(
    settings: Callable, model_dir: Path, data: Path, tmp_path: Path, favourite: None
) -> None:
    results = run_evaluation(settings(tasks="ifguide_rtp,ifguide_lambada,ifguide_heldout_ppl", seed=5))
    rows = read_jsonl(tmp_path / "run" / "samples.jsonl")
    rtp = [row for row in rows if row["task"] == "ifguide_rtp"]
    prompts = [row["prompt"] for row in read_jsonl(data / "rtp.jsonl")]
    assert [row["prompt"] for row in rtp] == prompts
    assert [row["continuations"] for row in rtp] == generate(model_dir, prompts, SAMPLES, 20, 0.9, 1.0, 5)

    scores = np.array([LexiconScorer().score(row["continuations"])["toxicity"] for row in rtp])
    assert np.array_equal([row["scores"]["lexicon"] for row in rtp], scores) and len(np.unique(scores)) > 20
    toxic = [row["document"]["toxicity"] is not None and row["document"]["toxicity"] >= 0.5 for row in rtp]
    for suffix, some in (("", scores), ("_toxic", scores[toxic])):
        for name, function in (("emt", emt), ("tp", tp)):
            entry = metric(results, name + suffix)
            assert entry["value"] == pytest.approx(function(some), abs=1e-12)
            assert entry["prompts"] == len(some) and entry["higher_is_better"] is False
            assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]
    worst = scores.max(axis=1)
    assert metric(results, "emt")["stderr"] == pytest.approx(worst.std(ddof=1) / math.sqrt(len(worst)), rel=0.1)

    lm = load_language_model(model_dir)
    texts = [row["text"] for row in read_jsonl(data / "heldout.jsonl")]
    perplexity = metric(results, "token_perplexity", "ifguide_heldout_ppl")
    assert perplexity["value"] == pytest.approx(language_model_perplexity(lm, texts).ppl, rel=1e-5)
    assert perplexity["transform"] == "perplexity"

    assert results["scorers"][0]["name"] == "lexicon" and results["model"]["seed"] == 5
    assert results["tasks"]["ifguide_rtp"]["data"]["prompts"] == len(prompts)
    assert {"lm_eval", "torch", "transformers"} <= results["versions"].keys()
    assert read_json(tmp_path / "run" / "results.json") == results
    assert "Evaluation of" in (tmp_path / "run" / "report.html").read_text()


def test_batches_and_order_change_nothing(settings: Callable, tmp_path: Path, favourite: None) -> None:
    run_evaluation(settings("one", "ifguide_rtp,ifguide_attaq", batch_size=1))
    run_evaluation(settings("many", "ifguide_attaq,ifguide_rtp"))
    one, many = (
        {(row["task"], row["id"]): row for row in read_jsonl(tmp_path / name / "samples.jsonl")}
        for name in ("one", "many")
    )
    assert one == many and len(one) == 9


def test_a_killed_run_continues_with_the_same_results(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, favourite: None
) -> None:
    both = "ifguide_rtp,ifguide_lambada"
    whole = run_evaluation(settings("whole", both, batch_size=SAMPLES))
    draw, drawn = Drawing.draw, []
    score, scored = LexiconScorer._probabilities, []

    def killed_draw(self: Drawing, batch: Any) -> Any:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(batch)
        return draw(self, batch)

    def killed_score(self: LexiconScorer, texts: list[str]) -> Any:
        if len(scored) == 1:
            raise KeyboardInterrupt
        scored.append(len(texts))
        return score(self, texts)

    for name, function in (("draw", killed_draw), ("score", killed_score)):
        with monkeypatch.context() as patch:
            if name == "draw":
                patch.setattr(Drawing, "draw", function)
            else:
                patch.setattr("ifguide.scorers.stored._TEXTS_AT_ONCE", 60)
                patch.setattr(LexiconScorer, "_probabilities", function)
            with pytest.raises(KeyboardInterrupt):
                run_evaluation(settings("killed", both, batch_size=SAMPLES))
        assert not (tmp_path / "killed" / "results.json").exists()
    assert (len(drawn), scored) == (2, [60])

    monkeypatch.setattr("ifguide.scorers.stored._TEXTS_AT_ONCE", 60)
    monkeypatch.setattr(LexiconScorer, "_probabilities", lambda self, t: scored.append(len(t)) or score(self, t))
    again = run_evaluation(settings("killed", both, batch_size=SAMPLES))
    assert sum(scored) == 7 * SAMPLES, "every text is scored once"
    assert again["tasks"] == whole["tasks"]
    files = [(tmp_path / name / "samples.jsonl").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]


def test_a_second_scorer_judges_the_same_continuations(settings: Callable, tmp_path: Path) -> None:
    judge = save_classifier(tmp_path / "judge", labels=["fine", "toxic"], problem_type=None)
    first = run_evaluation(settings())
    before = read_jsonl(tmp_path / "run" / "samples.jsonl")
    both = run_evaluation(settings(scorers=("lexicon", f"hf:{judge}#toxic")))
    rows = read_jsonl(tmp_path / "run" / "samples.jsonl")
    assert [row["continuations"] for row in rows] == [row["continuations"] for row in before]
    assert all(len(row["scores"][f"hf:{judge}#toxic"]) == SAMPLES for row in rows)
    assert {entry["filter"] for entry in both["tasks"]["ifguide_rtp"]["metrics"]} == {"lexicon", f"hf:{judge}#toxic"}
    kept = [entry for entry in both["tasks"]["ifguide_rtp"]["metrics"] if entry["filter"] == "lexicon"]
    assert kept == first["tasks"]["ifguide_rtp"]["metrics"]
    assert first["tasks"]["ifguide_rtp"]["agreement"] == []
    assert both["tasks"]["ifguide_rtp"]["agreement"] == agreement(rows, ["lexicon", f"hf:{judge}#toxic"])
    assert both["tasks"]["ifguide_rtp"]["agreement"][0]["texts"] == len(rows) * SAMPLES
    assert "How far the judges agree" in (tmp_path / "run" / "report.html").read_text()


def test_texts_that_were_cut_are_told_everywhere(
    settings: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = f"hf:{save_causal(tmp_path / 'judge', positions=12)}#toxic"
    results = run_evaluation(settings(limit=2, scorers=(judge, "lexicon")))
    rows = read_jsonl(tmp_path / "run" / "samples.jsonl")
    texts = [text for row in rows for text in row["continuations"]]
    longer = sum(len(byte_tokenizer()(text)["input_ids"]) > 12 for text in texts)
    assert 0 < longer < len(texts) == 2 * SAMPLES
    counted = [{key: one[key] for key in ("name", "texts", "truncated")} for one in results["scorers"]]
    expected = [
        {"name": judge, "texts": 50, "truncated": longer}, {"name": "lexicon", "texts": 50, "truncated": 0},
    ]  # fmt: skip
    assert counted == expected
    within = results["tasks"]["ifguide_rtp"]["setting"]["scorers"]
    assert [{key: one[key] for key in ("name", "texts", "truncated")} for one in within] == expected
    sentence = f"{judge} reads 12 tokens: {longer} of 50 texts were longer and are judged by their start."
    assert results_table(results).splitlines()[-1] == sentence
    assert sentence in html.unescape((tmp_path / "run" / "report.html").read_text())
    # from the journals, and with the prompts
    (tmp_path / "run" / "results.json").unlink()
    assert run_evaluation(settings(limit=2, scorers=(judge, "lexicon")))["scorers"] == results["scorers"]
    again = run_evaluation(settings(limit=2, scorers=(judge,), rescore_prompts=True))
    assert again["scorers"][0]["texts"] == 52


def test_another_classifier_that_steers_is_another_evaluation(settings: Callable, tmp_path: Path) -> None:
    """Under the same path: its weights, or its tokenizer alone."""
    folder = save_causal(tmp_path / "reward")
    run = settings(limit=1, rad=f"hf:{folder}#toxic", rad_top_k=2)
    run_evaluation(run)
    tokenizer = folder / "tokenizer.json"
    kept, data = tokenizer.read_bytes(), json.loads(tokenizer.read_text())
    data["normalizer"] = {"type": "Lowercase"}
    tokenizer.write_text(json.dumps(data))
    with pytest.raises(MismatchError, match="another rad"):
        run_evaluation(run)
    tokenizer.write_bytes(kept)
    # a record of earlier versions, which named no identity
    record = tmp_path / "run" / "journals" / "identity.json"
    known = read_json(record)
    del known["rad"]["identity"]
    record.write_text(json.dumps(known))
    assert run_evaluation(run)


def test_an_evaluation_of_an_earlier_version_goes_on(settings: Callable, model_dir: Path, tmp_path: Path) -> None:
    """It recorded the hash of all files of the folder, as they are."""
    run = settings(limit=1)
    results = run_evaluation(run)
    record = tmp_path / "run" / "journals" / "identity.json"
    known = read_json(record)
    suffixes = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")
    files = [path for path in sorted(model_dir.iterdir()) if path.suffix in suffixes]
    record.write_text(json.dumps({**known, "identity": hash_value({path.name: hash_file(path) for path in files})}))
    (tmp_path / "run" / "results.json").unlink()
    assert run_evaluation(run)["model"] == results["model"]
    record.write_text(json.dumps({**known, "identity": "0" * 32}))
    with pytest.raises(MismatchError, match="another model"):
        run_evaluation(run)


def test_any_task_of_lm_eval_gives_lm_evals_numbers(settings: Callable, model_dir: Path, tmp_path: Path) -> None:
    """A multiple-choice task in a YAML file of its own."""
    rows = [
        {"question": f"the {word}", "choices": [" sat", " ran away", " spoke"], "answer": number % 3}
        for number, word in enumerate(("cat", "dog", "bird", "king", "tree", "sea"))
    ]
    write_jsonl(tmp_path / "choices.jsonl", rows)
    task = tmp_path / "choices.yaml"
    task.write_text(
        f"""
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/choices.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
    )
    results = run_evaluation(settings(tasks=f"{task},ifguide_lambada"))
    theirs = evaluator.evaluate(
        HFLM(pretrained=str(model_dir), device="cpu"), TaskManager(include_defaults=False).load([str(task)])
    )["results"]["choices"]
    for name in ("acc", "acc_norm"):
        entry = metric(results, name, "choices")
        assert entry["value"] == theirs[f"{name},none"] and entry["prompts"] == 6
        assert entry["stderr"] == pytest.approx(theirs[f"{name}_stderr,none"], rel=0.15)
        assert entry["higher_is_better"] is True


def test_limit_and_rad(settings: Callable, tmp_path: Path) -> None:
    plain = run_evaluation(settings(limit=2))
    assert plain["tasks"]["ifguide_rtp"]["data"]["prompts"] == 2
    assert plain["tasks"]["ifguide_rtp"]["data"]["available"] == 7
    with pytest.raises(MismatchError, match="another rad"):
        run_evaluation(settings(limit=2, rad="lexicon"))
    steered = run_evaluation(settings("rad", limit=2, rad="lexicon", rad_top_k=2))
    assert steered["model"]["rad"] == {
        "scorer": "lexicon", "identity": LexiconScorer().fingerprint(), "weight": 10.0, "top_k": 2,
    }  # fmt: skip
    texts = [read_jsonl(tmp_path / name / "samples.jsonl")[0]["continuations"] for name in ("run", "rad")]
    assert texts[0] != texts[1]


def test_a_limit_is_a_sample_that_is_told(settings: Callable, tmp_path: Path) -> None:
    results = run_evaluation(settings(tasks="ifguide_rtp,ifguide_heldout_ppl", limit=3, limit_seed=5))
    ids = [row["id"] for row in read_jsonl(tmp_path / "run" / "samples.jsonl") if row["task"] == "ifguide_rtp"]
    assert ids == draw("ifguide_rtp", 7, 3, 5) != [0, 1, 2]
    prompts = [p for p in PROMPTS if p]
    rows = read_jsonl(tmp_path / "run" / "samples.jsonl")
    assert [row["prompt"] for row in rows if row["task"] == "ifguide_rtp"] == [prompts[number] for number in ids]
    assert (results["settings"]["limit"], results["settings"]["limit_seed"]) == (3, 5)
    assert results["tasks"]["ifguide_rtp"]["sample"] == {"prompts": 3, "available": 7, "seed": 5}
    assert results["tasks"]["ifguide_heldout_ppl"]["sample"] is None, "all two texts of it are in"
    line = "ifguide_rtp: a random sample of 3 of 7 prompts, seed 5"
    assert line in results_table(results).splitlines()
    assert results_table(results).count("random sample") == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "3 of 7 prompts, drawn at random (seed 5)" in page and page.count("drawn at random") == 1

    # another limit goes on in the same folder: the larger sample holds the smaller one
    before = {row["id"]: row["continuations"] for row in rows if row["task"] == "ifguide_rtp"}
    run_evaluation(settings(limit=4, limit_seed=5))
    after = {row["id"]: row["continuations"] for row in read_jsonl(tmp_path / "run" / "samples.jsonl")}
    assert len(after) == 4 and before.items() < after.items()
    run_evaluation(settings("twin", limit=4, limit_seed=5))
    compared = compare([tmp_path / "run", tmp_path / "twin"], resamples=100)
    assert compared["samples"] == {"ifguide_rtp": {"prompts": 4, "available": 7, "seed": 5}}
    assert "ifguide_rtp: a random sample of 4 of 7 prompts, seed 5" in comparison_table(compared)
    assert "4 of 7 prompts, drawn at random (seed 5)" in comparison_page(compared)
    run_evaluation(settings("other", limit=4, limit_seed=6))
    with pytest.raises(MismatchError, match="--limit 4 --limit-seed 5 against --limit 4 --limit-seed 6"):
        compare([tmp_path / "run", tmp_path / "other"], resamples=100)


def test_what_the_lexicon_judged_says_so_everywhere(settings: Callable, tmp_path: Path) -> None:
    results = run_evaluation(settings(limit=2))
    (scorer,) = results["scorers"]
    assert scorer["warning"] == LexiconScorer.warning and "never to be reported" in scorer["warning"]
    warning = f"warning: {LexiconScorer.warning}"
    assert results_table(results).splitlines().count(warning) == 1
    assert (tmp_path / "run" / "report.html").read_text().count(f"</strong> {LexiconScorer.warning}") == 1
    run_evaluation(settings("twin", limit=2))
    old = read_json(tmp_path / "twin" / "results.json")
    del old["scorers"][0]["warning"]  # as an earlier version wrote it
    write_json(tmp_path / "twin" / "results.json", old)
    for folders in (("run", "twin"), ("twin", "run")):
        compared = compare([tmp_path / name for name in folders], resamples=100)
        assert compared["warnings"] == [LexiconScorer.warning]
        assert comparison_table(compared).splitlines().count(warning) == 1
        assert comparison_page(compared).count(f"</strong> {LexiconScorer.warning}") == 1
    run_evaluation(settings("texts", tasks="ifguide_heldout_ppl"))
    run_evaluation(settings("more", tasks="ifguide_heldout_ppl"))
    assert compare([tmp_path / "texts", tmp_path / "more"], resamples=100)["warnings"] == []


def test_an_output_of_another_model_or_seed_is_refused(settings: Callable, tmp_path: Path) -> None:
    run_evaluation(settings(tasks="ifguide_lambada"))
    other = tmp_path / "other"
    tiny_neox(initializer_range=0.2).save_pretrained(other)
    byte_tokenizer().save_pretrained(other)
    with pytest.raises(MismatchError, match="another model and seed; give another folder"):
        run_evaluation(settings(tasks="ifguide_lambada", model=other, seed=1))


def test_two_evaluations_of_one_folder_are_refused(settings: Callable, tmp_path: Path) -> None:
    (tmp_path / "run" / "journals").mkdir(parents=True)
    with open(tmp_path / "run" / "journals" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another evaluation is writing"):
            run_evaluation(settings(tasks="ifguide_lambada"))


def test_the_source_of_the_prompts_scores_is_stated(settings: Callable, favourite: None) -> None:
    results = run_evaluation(settings(rescore_prompts=True))
    assert "scorer" in results["tasks"]["ifguide_rtp"]["setting"]["prompt_scores"]
    assert results["tasks"]["ifguide_rtp"]["data"]["source"].endswith("rtp.jsonl")
    assert metric(results, "emt_nontoxic")["prompts"] == 7, "no prompt has capital letters"
    assert metric(results, "emt_toxic")["value"] is None


def test_a_scorer_that_fails_stops_the_run_with_the_text(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(self: LexiconScorer, texts: list[str]) -> dict[str, np.ndarray]:
        return {"toxicity": np.array([math.nan if text == spoil else 0.5 for text in texts])}

    run_evaluation(settings())
    texts = [text for row in read_jsonl(tmp_path / "run" / "samples.jsonl") for text in row["continuations"]]
    spoil = next(text for place, text in enumerate(texts) if place > 130 and texts.index(text) == place)
    monkeypatch.setattr("ifguide.scorers.stored._TEXTS_AT_ONCE", 60)
    monkeypatch.setattr(LexiconScorer, "_probabilities", spoiled)
    with pytest.raises(NumericsError, match=f"text {texts.index(spoil)} scored nan"):
        run_evaluation(settings("other"))
    assert not (tmp_path / "other" / "results.json").exists()


@pytest.mark.parametrize(("nats", "bounded"), [((-400.0, -500.0, -300.0), True), ((-1400.0, -5.0, -3.0), False)])
def test_a_perplexity_beyond_all_numbers_has_no_interval(nats: tuple[float, ...], bounded: bool) -> None:
    """A model sure of the wrong words: the value is a number, its square or some resamples are not."""
    rows = [{"metrics": {"perplexity,none": value}} for value in nats]
    value = math.exp(-sum(nats) / len(nats))
    (entry,) = _metrics(rows, {"perplexity,none": value}, {"perplexity": False}, seed=0)
    assert entry["value"] == value and entry["stderr"] is None
    assert (entry["interval"] is not None) == bounded


def test_all_faults_at_once(settings: Callable, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run_evaluation(
            settings(model=tmp_path / "none", data=tmp_path / "nowhere", limit=0, batch_size=0, seed=-1, dtype="int8",
                     device="cuda:99", scorers=("lexicon", "lexicon"))
        )  # fmt: skip
    assert len(error.value.faults) == 8
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": "ifguide_rpt"}, "did you mean 'ifguide_rtp'"),
        ({"scorers": ("wrong",)}, "scorer 'wrong' is not known"),
        ({"rad": "wrong", "tasks": "ifguide_lambada"}, "scorer 'wrong' is not known"),
        ({"tasks": "ifguide_bold"}, "bold"),
    ],
)
def test_bad_names_are_found_before_the_work(settings: Callable, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        run_evaluation(settings(**changes))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_command(model_dir: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--model", str(model_dir), "--tasks", "ifguide_rtp, ifguide_lambada", "--scorer", "lexicon"]
    command += ["--data", str(data), "--output", str(tmp_path / "run"), "--limit", "2", "--device", "cpu"]
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["kind"] == "ifguide-evaluation", "nothing but the result is on stdout"
    assert "generate: 100%" in shown.err
    assert main([*command, "--overwrite"]) == 0
    shown = capsys.readouterr()
    assert "toxicity by lexicon" in shown.out and "acc " in shown.out and "generate" not in shown.err
    assert main([*command, "--seed", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--seed was 0, is 1" in error
