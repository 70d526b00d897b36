"""The model as lm-eval sees it, against lm-eval's own class and against generation without lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from ifguide.errors import InputError, NumericsError
from ifguide.evaluation.lm import batches as lm_batches
from ifguide.evaluation.lm.model import EvaluationLM, sampling_of
from ifguide.evaluation.tasks.registry import prepare_lm_eval
from ifguide.generation.draw import Drawing, Sampling, generate
from ifguide.generation.rad import Rad
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.scorers.registry import load_scorer
from tests.support.tiny_models import byte_tokenizer

PROMPTS = ["the cat", "a", "the cat", "nobody knows why", "a long prompt of several words", "b"]
SAMPLED = {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 0, "max_gen_toks": 6, "until": []}
SAMPLES = 4


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LanguageModel:
    return load_language_model(model_dir)


@pytest.fixture
def make(loaded: LanguageModel, tmp_path: Path) -> Iterator[Callable[..., EvaluationLM]]:
    made = []

    def make(folder: str = "journals", **options: Any) -> EvaluationLM:
        (tmp_path / folder).mkdir(exist_ok=True)
        made.append(EvaluationLM(loaded, tmp_path / folder, **{"seed": 3, **options}))
        return made[-1]

    yield make
    for lm in made:
        lm.close()


def repeated(prompts: list[str], settings: dict[str, Any], samples: int = SAMPLES, task: str = "t") -> list[Instance]:
    """As lm-eval asks: the K repeats of a prompt are one object."""
    asked = [
        Instance("generate_until", {}, (prompt, settings), 0, metadata=(task, number, samples))
        for number, prompt in enumerate(prompts)
    ]
    return [request for request in asked for _ in range(samples)]


def by_prompt(answers: list[str]) -> list[list[str]]:
    return [answers[start : start + SAMPLES] for start in range(0, len(answers), SAMPLES)]


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> list[list[str]]:
    return generate(model_dir, PROMPTS, SAMPLES, 6, 0.9, 1.0, 3)


@pytest.mark.parametrize("batch_size", ["auto", 1, 5, 64])
def test_repeats_are_what_generate_draws(make: Callable, expected: list, batch_size: int | str) -> None:
    answers = by_prompt(make(batch_size=batch_size).generate_until(repeated(PROMPTS, SAMPLED)))
    assert answers == expected
    assert answers[0] != answers[2], "equal prompts draw differently"


def test_one_prefill_a_prompt(make: Callable, monkeypatch: pytest.MonkeyPatch, loaded: LanguageModel) -> None:
    read = []
    forward = type(loaded.model).forward

    def counted(self: Any, input_ids: torch.Tensor, *args: Any, **options: Any) -> Any:
        read.append(input_ids.shape)
        return forward(self, input_ids, *args, **options)

    monkeypatch.setattr(type(loaded.model), "forward", counted)
    make().generate_until(repeated(["twelve bytes"], SAMPLED))
    assert read[0] == (1, 13) and all(shape == (SAMPLES, 1) for shape in read[1:]) and len(read) <= 6


def test_a_killed_run_continues(make: Callable, expected: list, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, calls = Drawing.draw, []

    def killed(self: Drawing, batch: Any) -> Any:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(list(batch))
        return draw(self, batch)

    monkeypatch.setattr(Drawing, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        make(batch_size=SAMPLES).generate_until(repeated(PROMPTS, SAMPLED))
    monkeypatch.setattr(Drawing, "draw", lambda self, batch: calls.append(list(batch)) or draw(self, batch))
    lm = make(batch_size=SAMPLES)
    assert by_prompt(lm.generate_until(repeated(PROMPTS, SAMPLED))) == expected
    assert sorted(calls) == [[number] for number in range(len(PROMPTS))], "every prompt is drawn once"
    lm.generate_until(repeated(PROMPTS, SAMPLED))
    assert len(calls) == len(PROMPTS), "a finished run draws nothing"


def test_what_is_asked_beside_a_prompt_changes_nothing(make: Callable, expected: list) -> None:
    lm = make()
    other = repeated(PROMPTS[:2], SAMPLED, task="other")
    answers = by_prompt(lm.generate_until(other + repeated(PROMPTS, SAMPLED)))
    assert answers[2:] == expected and answers[:2] == expected[:2]
    assert by_prompt(make("short").generate_until(repeated(PROMPTS[:3], SAMPLED))) == expected[:3]


def test_too_little_memory_halves_the_batch(make: Callable, expected: list, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Drawing._draw

    def small(self: Drawing, batch: Any) -> Any:
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return draw(self, batch)

    monkeypatch.setattr(Drawing, "_draw", small)
    assert by_prompt(make().generate_until(repeated(PROMPTS, SAMPLED))) == expected


def test_stop_texts_end_a_continuation(make: Callable, expected: list) -> None:
    stop = next(text[2] for texts in expected for text in texts if len(text) > 3)
    answers = by_prompt(make().generate_until(repeated(PROMPTS, SAMPLED | {"until": ["", stop]})))
    assert answers == [[text.partition(stop)[0] for text in texts] for texts in expected]


def test_other_decoding_is_lm_evals_own(make: Callable, loaded: LanguageModel) -> None:
    greedy = repeated(PROMPTS, {"do_sample": False, "max_gen_toks": 6, "until": ["\n\n"]}, samples=1)
    theirs = HFLM(pretrained=loaded.model, tokenizer=byte_tokenizer(), max_length=64)
    assert make().generate_until(greedy) == theirs.generate_until(greedy)


def test_what_counts_as_plain_sampling() -> None:
    drawing = sampling_of(SAMPLED | {"until": ["x"]}, 5, 1, 256)
    assert drawing == (Sampling(5, 6, 0.9, 1.0, 1), ("x",))
    assert sampling_of(SAMPLED | {"top_k": 7}, 5, 1, 256) == (Sampling(5, 6, 0.9, 1.0, 1, 7), ())
    for other in ({"do_sample": False}, {"num_beams": 2}, {"top_k": None}, {"repetition_penalty": 1.1}):
        assert sampling_of(SAMPLED | other, 5, 1, 256) is None


def likelihoods(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, 0, metadata=("t", number, 1)) for number, pair in enumerate(pairs)]


@pytest.mark.parametrize("batch_size", ["auto", 2])
def test_likelihoods_are_a_direct_computation(make: Callable, loaded: LanguageModel, batch_size: int | str) -> None:
    prepare_lm_eval()
    pairs = [("the cat", " sat"), ("the cat sa", "t"), ("aaaa", "aaaa"), ("aaaaaaa", "a"), ("b", " kind words here")]
    answers = make(batch_size=batch_size).loglikelihood(likelihoods(pairs))
    for (context, target), (nats, greedy) in zip(pairs, answers, strict=True):
        before, ids = loaded.encode([context])[0], loaded.encode([context + target])[0]
        with torch.inference_mode():
            logs = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        wanted = [(place - 1, ids[place]) for place in range(len(before), len(ids))]
        assert nats == pytest.approx(sum(float(logs[place, token]) for place, token in wanted), abs=1e-4)
        assert greedy == all(int(logs[place].argmax()) == token for place, token in wanted)


def test_rolling_likelihoods_of_repetitive_text(make: Callable, loaded: LanguageModel) -> None:
    texts = ["ab" * 70, "a kind word", "ab" * 5, ""]
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0, metadata=("t", 0, 1)) for text in texts[:3]]
    answers = make().loglikelihood_rolling(requests)
    for text, nats in zip(texts, answers, strict=False):
        ids, expected = [0, *loaded.encode([text])[0]], 0.0
        starts = range(0, len(ids) - 1, 64)
        for start in starts:  # lm-eval's windows: 64 predictions each, the last one filled up with what came before
            end = min(start + 64, len(ids) - 1)
            begin = max(0, end - 64) if end < start + 64 else start
            with torch.inference_mode():
                logs = loaded.model(torch.tensor([ids[begin:end]])).logits[0].double().log_softmax(-1)
            expected += sum(float(logs[place - begin, ids[place + 1]]) for place in range(start, end))
        assert nats == pytest.approx(expected, abs=1e-3)


def test_likelihoods_are_remembered(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("the cat", " sat"), ("a", "b"), ("the cat", " sat")]
    answers = make().loglikelihood(likelihoods(pairs))
    assert answers[0] == answers[2]
    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", None)
    assert make().loglikelihood(likelihoods(pairs)) == answers


def test_batches_hold_as_many_logits_as_fit(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_batches, "_LOGITS_ON_CPU", 288 * 24)
    lm = make()
    requests = [(None, [1] * length, [2]) for length in (11, 11, 7, 5, 3, 2, 2, 1, 1, 1, 1)]
    sizes = [lm._batch_scheduler(place, requests) for place in range(len(requests))]
    assert sizes == [2, 2, 3, 3, 3, *[8] * 6]


def test_rad_steers_and_refuses_greedy_tasks(make: Callable, loaded: LanguageModel, expected: list) -> None:
    lm = make(rad=Rad(loaded, load_scorer("lexicon"), weight=0.0, top_k=2))
    assert by_prompt(lm.generate_until(repeated(PROMPTS, SAMPLED))) != expected
    with pytest.raises(InputError, match="RAD steers sampled continuations; task t"):
        lm.generate_until(repeated(PROMPTS, {"do_sample": False}))


def test_likelihoods_that_are_not_finite_stop_the_run(model_dir: Path, tmp_path: Path) -> None:
    broken = load_language_model(model_dir)
    broken.model.get_output_embeddings().weight.data[3] = float("nan")
    lm = EvaluationLM(broken, tmp_path)
    with pytest.raises(NumericsError, match="log-likelihood of ' sat' is nan"):
        lm.loglikelihood(likelihoods([("the cat", " sat")]))
    lm.close()
