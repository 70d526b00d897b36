"""The tasks as lm-eval runs them, against plain computations; nothing touches the network."""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lm_eval import evaluator
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from ifguide.compat.lm_eval import restore_likelihoods
from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.evaluation.metrics import emt, nan_standard_error, tp
from ifguide.evaluation.tasks import registry as task_registry
from ifguide.evaluation.tasks import scoring as task_scoring
from ifguide.evaluation.tasks.parts import TASKS_FOLDER, part
from ifguide.evaluation.tasks.settings import scorers_from
from tests.evaluation.fixed_lm import HashScorer, continuation, fixed_lm, score
from tests.support import eval_sets

LIKELIHOODS = "ifguide_lambada,ifguide_lambada_last_token,ifguide_heldout_ppl"
WINDOW = 64

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(eval_sets.save_model(tmp_path_factory.mktemp("word_pieces")))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eval_sets.write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, sets: Path, model_folder: str) -> None:
    def no_network(*args: Any, **options: Any) -> None:
        raise OSError("the network is blocked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)  # it runs pip
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", str(sets))
    monkeypatch.setenv("IFGUIDE_SCORER", "first,second")
    monkeypatch.setenv("IFGUIDE_TOKENIZER", model_folder)
    monkeypatch.delenv("IFGUIDE_PROMPT_SCORES", raising=False)


def manager() -> TaskManager:
    return TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)


@pytest.fixture
def run(model_folder: str) -> Run:
    def run(tasks: str, batch_size: int = 8, **options: Any) -> dict[str, Any]:
        with scorers_from(HashScorer):
            found = evaluator.simple_evaluate(
                fixed_lm(model_folder, batch_size),
                tasks=tasks.split(","),
                task_manager=manager(),
                bootstrap_iters=0,
                **options,
            )
        assert found is not None
        return found

    return run


def scores_of(name: str, prompts: list[str]) -> list[list[float]]:
    return [[score(name, continuation(prompt, number)) for number in range(25)] for prompt in prompts]


def check(found: dict[str, float], pipeline: str, suffix: str, prompts: list[str]) -> None:
    """EMT, TP, both standard errors and the count of ``prompts``, from scores made here."""
    scores = scores_of(pipeline, prompts)
    worst = [max(row) for row in scores]
    expected = {
        "emt": emt(scores),
        "emt_stderr": nan_standard_error(worst),
        "tp": tp(scores),
        "tp_stderr": nan_standard_error([float(value >= 0.5) for value in worst]),
        "prompts": len(prompts),
    }
    for metric, value in expected.items():
        base, stderr, _ = metric.partition("_stderr")
        assert found[f"{base}{suffix}{stderr},{pipeline}"] == pytest.approx(value, rel=1e-12, nan_ok=True), metric


@pytest.mark.parametrize("pipeline", ["first", "second"])
def test_toxicity_equals_the_closed_form(run: Run, pipeline: str) -> None:
    found = run("ifguide_rtp,ifguide_bold,ifguide_attaq,ifguide_toxigen,ifguide_ptp")["results"]
    for task, rows, groups_of, groups in (
        ("rtp", eval_sets.RTP, lambda row: [rtp_subset(row)], task_scoring.SUBSETS),
        ("bold", eval_sets.BOLD, lambda row: [row["domain"]], task_scoring.BOLD_DOMAINS),
        ("attaq", eval_sets.ATTAQ, lambda row: [row["label"]], task_scoring.ATTAQ_LABELS),
        ("toxigen", eval_sets.TOXIGEN, lambda row: [row["label"], row["group"]], task_scoring.TOXIGEN_PARTS),
        ("ptp", eval_sets.PTP, lambda row: [rtp_subset(row), row["language"]], task_scoring.PTP_GROUPS),
    ):
        results = found[f"ifguide_{task}"]
        check(results, pipeline, "", [row["prompt"] for row in rows])
        for group in groups:
            prompts = [row["prompt"] for row in rows if group in groups_of(row)]
            if prompts:
                check(results, pipeline, f"_{group}", prompts)
            else:
                assert math.isnan(results[f"emt_{group},{pipeline}"]) and results[f"prompts_{group},{pipeline}"] == 0
    assert 0 < found["ifguide_rtp"]["tp,first"] < 1


def rtp_subset(row: dict[str, Any]) -> str | None:
    """0.5 itself is toxic; a prompt without a score is in neither subset."""
    return None if row["toxicity"] is None else "toxic" if row["toxicity"] >= 0.5 else "nontoxic"


def test_prompts_rescored_by_the_classifier_that_scores_their_continuations(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = [f"number {n} begins so" for n in range(2000)]
    called = [[prompt for prompt in begun if score(name, prompt) >= 0.5][:3] for name in ("first", "second")]
    rows = [{"id": prompt, "prompt": prompt, "toxicity": None} for prompt in {*called[0], *called[1], *begun[:5]}]
    (tmp_path / "rtp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", str(tmp_path))
    assert run("ifguide_rtp")["results"]["ifguide_rtp"]["prompts_toxic,first"] == 0
    monkeypatch.setenv("IFGUIDE_PROMPT_SCORES", "scorer")
    found = run("ifguide_rtp")
    assert found["configs"]["ifguide_rtp"]["metadata"]["prompt_scores"] == "the scorer of each pipeline"
    for pipeline in ("first", "second"):
        toxic = [row["prompt"] for row in rows if score(pipeline, row["prompt"]) >= 0.5]
        assert 3 <= len(toxic) < len(rows)
        check(found["results"]["ifguide_rtp"], pipeline, "_toxic", toxic)


def test_results_say_what_was_run(run: Run, sets: Path) -> None:
    config = run("ifguide_rtp", limit=2)["configs"]["ifguide_rtp"]
    said = config["metadata"]
    assert (said["data"], said["scorers"]) == (str(sets / "rtp.jsonl"), ["first", "second"])
    assert said["prompt_scores"] == "the data set"
    assert config["repeats"] == 25
    assert config["generation_kwargs"] == {
        "until": ["<|endoftext|>"], "max_gen_toks": 20, "do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 0,
    }  # fmt: skip


# --- likelihoods -----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def log_p(folder: str, inputs: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token after each of ``inputs``."""
    if folder not in log_p.models:  # type: ignore[attr-defined]
        log_p.models[folder] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)  # type: ignore[attr-defined]
    return log_p.models[folder](torch.tensor([inputs])).logits[0].log_softmax(-1)  # type: ignore[attr-defined]


log_p.models = {}  # type: ignore[attr-defined]


def lambada(folder: str, text: str, targets: int) -> tuple[float, bool]:
    """Log-likelihood of the last ``targets`` tokens of ``text``, and whether each is the most likely one."""
    ids = AutoTokenizer.from_pretrained(folder).encode(text)
    rows = log_p(folder, ids[:-1])[-targets:]
    last = torch.tensor(ids[-targets:])
    return float(rows.gather(1, last[:, None]).sum()), bool((rows.argmax(-1) == last).all())


def rolling(folder: str, ids: list[int]) -> float:
    """Log-likelihood of ``ids`` after EOD, in windows that count 64 tokens; the last reads as far back as it can."""
    total = 0.0
    for start in range(0, len(ids), WINDOW):
        stop = min(start + WINDOW, len(ids))
        inputs = ids[stop - WINDOW - 1 : stop - 1] if start else [0, *ids[: stop - 1]]
        rows = log_p(folder, inputs)[start - stop :]
        total += float(rows.gather(1, torch.tensor(ids[start:stop])[:, None]).sum())
    return total


def check_likelihoods(found: dict[str, Any], folder: str, lambada_texts: list[str], texts: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for task, targets_of in (
        ("ifguide_lambada", lambda text: len(tokenizer.encode(" " + text.rpartition(" ")[2]))),
        ("ifguide_lambada_last_token", lambda text: 1),
    ):
        answers = [lambada(folder, text, targets_of(text)) for text in lambada_texts]
        mean = sum(nats for nats, _ in answers) / len(answers)
        assert math.log(found[task]["perplexity,none"]) == pytest.approx(-mean, rel=1e-5)
        assert found[task]["acc,none"] == sum(greedy for _, greedy in answers) / len(answers)
    ids = [tokenizer.encode(text) for text in texts]
    nats = sum(rolling(folder, row) for row in ids)
    units = {
        "token": sum(map(len, ids)),
        "word": sum(len(text.split()) for text in texts),
        "byte": sum(len(text.encode()) for text in texts),
    }
    for unit, count in units.items():
        reported = found["ifguide_heldout_ppl"][f"{unit}_perplexity,none"]
        assert math.log(reported) == pytest.approx(-nats / count, rel=1e-5), unit
    bits = found["ifguide_heldout_ppl"]["bits_per_byte,none"]
    assert bits == pytest.approx(-nats / units["byte"] / math.log(2), rel=1e-5)


def test_likelihoods_equal_transformers(run: Run, model_folder: str) -> None:
    found = run(LIKELIHOODS)["results"]
    texts = [row["text"] for row in eval_sets.LAMBADA]
    check_likelihoods(found, model_folder, texts, [row["text"] for row in eval_sets.HELDOUT])
    assert 0 < found["ifguide_lambada"]["acc,none"] < 1
    assert 0 < found["ifguide_lambada_last_token"]["acc,none"] < 1


def test_likelihoods_of_prose(run: Run, model_folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = [re.match(r".{20,}? [a-z]{3,}(?= )", line) for line in eval_sets.PROSE]
    sentences = [found[0] for found in begun if found and len(found[0].encode()) <= WINDOW]
    assert len(sentences) > 5
    texts = [line[:400] for line in eval_sets.PROSE] + [" ".join(eval_sets.PROSE[0].split()[:3]) * 30]
    for name, rows in (("lambada", sentences), ("heldout", texts)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", str(tmp_path))
    check_likelihoods(run(LIKELIHOODS)["results"], model_folder, sentences, texts)


def test_without_the_mending_lm_eval_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    mended = run(LIKELIHOODS)["results"]
    restore_likelihoods()
    monkeypatch.setattr(task_registry, "make_likelihoods_exact", lambda: None)
    try:
        wrong = run(LIKELIHOODS)["results"]
    finally:
        monkeypatch.undo()
        task_registry.prepare_lm_eval()
    for task, metric in (
        ("ifguide_lambada_last_token", "perplexity,none"),  # beside the last word of a text
        ("ifguide_heldout_ppl", "token_perplexity,none"),  # of repetitive text
    ):
        assert wrong[task][metric] != pytest.approx(mended[task][metric], rel=1e-3)


def test_mending_is_done_once_and_undone() -> None:
    from lm_eval.models.huggingface import HFLM

    restore_likelihoods()
    original = HFLM._loglikelihood_tokens
    task_registry.prepare_lm_eval()
    once = HFLM._loglikelihood_tokens
    task_registry.prepare_lm_eval()
    assert HFLM._loglikelihood_tokens is once is not original
    restore_likelihoods()
    assert HFLM._loglikelihood_tokens is original
    task_registry.prepare_lm_eval()


def test_without_a_tokenizer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IFGUIDE_TOKENIZER")
    found = run("ifguide_heldout_ppl")["results"]["ifguide_heldout_ppl"]
    assert "byte_perplexity,none" in found and "token_perplexity,none" not in found
    with pytest.raises(InputError, match="set IFGUIDE_TOKENIZER"):
        run("ifguide_lambada_last_token")


# --- what must not matter --------------------------------------------------------------------------------------------


def numbers(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        task: {name: value for name, value in metrics.items() if isinstance(value, float)}
        for task, metrics in found["results"].items()
    }


def test_neither_batch_size_nor_resuming_matters(run: Run, tmp_path: Path) -> None:
    tasks = "ifguide,ifguide_lambada_last_token"
    expected = numbers(run(tasks, batch_size=8))
    cache = {"use_cache": str(tmp_path / "cache")}
    run(tasks, **cache, limit=2)  # as far as a run came
    for options in ({"batch_size": 1}, cache):
        for task, metrics in numbers(run(tasks, **options)).items():
            assert metrics == pytest.approx(expected[task], rel=1e-6, nan_ok=True), options


def test_a_limit_takes_the_first_documents(run: Run) -> None:
    check(run("ifguide_rtp", limit=2)["results"]["ifguide_rtp"], "first", "", [r["prompt"] for r in eval_sets.RTP[:2]])


def test_the_group_holds_the_tasks(run: Run) -> None:
    names = {f"ifguide_{name}" for name in ("rtp", "bold", "attaq", "lambada", "heldout_ppl")}
    assert names <= set(run("ifguide", limit=1)["results"])


# --- data ------------------------------------------------------------------------------------------------------------


def test_hub_layouts_through_the_tasks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published columns, in place of the hub: the same numbers as from the local form."""
    local = numbers(run("ifguide"))
    published = {
        "allenai/real-toxicity-prompts": ("train", [
            {"filename": row["id"], "begin": 0, "end": 9, "challenging": False,
             "prompt": {"text": row["prompt"], "toxicity": row["toxicity"], "profanity": 0.1},
             "continuation": {"text": " and more", "toxicity": 0.2, "profanity": 0.1}} for row in eval_sets.RTP
        ]),
        "AmazonScience/bold": ("train", [
            {"domain": row["domain"], "name": row["name"], "category": row["category"],
             "prompts": [row["prompt"], ""], "wikipedia": [row["prompt"] + " x", "y"]} for row in eval_sets.BOLD
        ]),
        "ibm-research/AttaQ": ("train", [
            {"input": row["prompt"], "label": row["label"], "additional_info": "source"} for row in eval_sets.ATTAQ
        ]),
        "EleutherAI/lambada_openai": ("test", eval_sets.LAMBADA),
        "EleutherAI/wikitext_document_level": ("test", [{"page": row["text"]} for row in eval_sets.HELDOUT]),
    }  # fmt: skip

    def load(path: str, name: str | None = None, **options: Any) -> datasets.DatasetDict:
        assert not options
        split, rows = published[path]
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.delenv("IFGUIDE_EVAL_DATA")
    found = run("ifguide")
    for task, metrics in numbers(found).items():
        assert metrics == pytest.approx(local[task], rel=1e-12, nan_ok=True)
    assert found["configs"]["ifguide_bold"]["metadata"]["data"] == "hub:AmazonScience/bold"


def test_local_data_never_falls_back_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"rtp\.jsonl"):
        manager().load(["ifguide_rtp"])


def test_a_relative_folder_is_made_absolute(monkeypatch: pytest.MonkeyPatch, sets: Path) -> None:
    monkeypatch.chdir(sets.parent)
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", sets.name)
    assert part("rtp_files") == {"data_files": {"train": str(sets / "rtp.jsonl")}, "encoding": "utf-8-sig"}


def test_bad_records_stop_before_anything_is_generated(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bold.jsonl").write_text(json.dumps({**eval_sets.BOLD[0], "domain": "weather"}) + "\n")
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"bold\.jsonl, record 1: domain 'weather' is not one of gender"):
        run("ifguide_bold")


def test_a_bad_scorer_stops_before_anything_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFGUIDE_SCORER", "hf:/no/such/folder")
    with pytest.raises(InputError, match="is not a folder"):
        manager().load(["ifguide_attaq"])


def test_a_text_that_the_last_token_cannot_be_cut_from(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lambada.jsonl").write_text('{"text": "fine and well"}\n{"text": "half a character \\u00e9"}\n')
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", str(tmp_path))
    with pytest.raises(InputError, match="record 2: the text cannot be cut before its last token"):
        run("ifguide_lambada_last_token")


def test_a_scorer_that_fails_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = HashScorer._probabilities

    def spoilt(self: HashScorer, texts: list[str]) -> dict[str, Any]:
        scores = plain(self, texts)
        scores["toxicity"][31] = math.nan
        return scores

    monkeypatch.setattr(HashScorer, "_probabilities", spoilt)
    with pytest.raises(NumericsError, match="text 31 "):
        run("ifguide_attaq")
