"""Guard models as judges, against one prompt at a time, written out."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ifguide.errors import InputError
from ifguide.models.folder import same_fingerprint
from ifguide.models.loading import load_causal_model
from ifguide.scorers.guards.families import FAMILIES
from ifguide.scorers.guards.scorer import GuardScorer, _Chat, _verdicts
from ifguide.scorers.registry import load_scorer
from tests.support.guards import FAMILY_OF, GUIDELINES, HARM, LEADS, PROMPTS, STRIPPED, WORDS, save_guard, template
from tests.support.language_models import no_network

__all__ = ["no_network"]
TEXTS = ["you are awful", "", "the tree", "日本 and a cat", "{{ 7 * 7 }}", "a longer text, " * 6, "the tree"]


@pytest.fixture(scope="module", params=PROMPTS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp(kind), kind)


def written(kind: str, text: str, risk: str) -> str:
    """The prompt of the kind around a text."""
    return PROMPTS[kind].replace("RISK", risk).replace("TEXT", text.strip() if kind in STRIPPED else text)


@torch.no_grad()
def literal(folder: Path, kind: str, text: str, risk: str) -> float:
    """One prompt alone, without padding: the softmax over the first bytes of the two answers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = model(torch.tensor([tokenizer(written(kind, text, risk) + LEADS[kind])["input_ids"]])).logits[0, -1]
    unsafe, safe = (float(logits[tokenizer(word)["input_ids"][0]]) for word in WORDS[FAMILY_OF[kind]])
    return 1 / (1 + np.exp(safe - unsafe))


def risks(kind: str) -> dict[str, str]:
    return GUIDELINES if kind == "shieldgemma" else {"toxicity": HARM}


def test_the_prompt_is_the_published_one(folder: Path, kind: str) -> None:
    """Word for word, for each question of the family."""
    scorer = load_scorer(f"guard:{folder}")
    assert isinstance(scorer, GuardScorer) and list(scorer.family.questions) == list(risks(kind))
    for label, risk in risks(kind).items():
        for text in [*TEXTS, " with space around it\n"]:
            assert scorer._chat.prompt(text, scorer.family.questions[label]) == written(kind, text, risk)


def test_equals_one_prompt_at_a_time(folder: Path, kind: str, no_network: None) -> None:
    scorer = load_scorer(f"guard:{folder}")
    assert scorer.name == f"guard:{folder}" and scorer.main == "toxicity"
    scores = scorer.score(TEXTS)
    asked = risks(kind)
    assert set(scores) == {"toxicity", *asked}
    for label, risk in asked.items():
        expected = [literal(folder, kind, text, risk) for text in TEXTS]
        assert scores[label] == pytest.approx(expected, abs=2e-5)
        assert np.ptp(expected) > 1e-3
    if kind == "shieldgemma":
        assert len(asked) == 4
        assert scores["toxicity"].tolist() == np.max([scores[label] for label in asked], axis=0).tolist()


def test_batches_padding_and_order_change_nothing(folder: Path) -> None:
    alone = GuardScorer(folder, batch_tokens=1).score(TEXTS)
    together = GuardScorer(folder, batch_tokens=100_000).score(TEXTS)
    backwards = GuardScorer(folder, batch_tokens=100_000).score(TEXTS[::-1])
    for label, scores in alone.items():
        assert together[label] == pytest.approx(scores, abs=1e-5)
        assert backwards[label][::-1] == pytest.approx(scores, abs=1e-5)
        assert scores[2] == scores[6], "equal texts"
    assert GuardScorer(folder).score([])["toxicity"].shape == (0,)


def test_told_by_configuration_and_template_or_stated(folder: Path, kind: str) -> None:
    family = FAMILY_OF[kind]
    told, stated = load_scorer(f"guard:{folder}"), load_scorer(f"guard:{folder}#{family}")
    assert isinstance(told, GuardScorer) and isinstance(stated, GuardScorer)
    assert told.family is stated.family and told.family.name == family
    assert told.describe()["family"] == family and told.describe()["dtype"] == "float32"
    assert stated.name == f"guard:{folder}#{family}" and stated.fingerprint() == told.fingerprint()


def test_long_texts_are_cut_and_the_question_is_not(tmp_path: Path, kind: str) -> None:
    around = len(PROMPTS[kind].encode()) + 800
    scorer = GuardScorer(save_guard(tmp_path, kind, positions=around))
    long = "x" * (scorer.max_tokens - 1) + "ab" * 400
    kept = long[: scorer.max_tokens]
    assert scorer.cut([long, kept, "x"]).tolist() == [True, False, False] and scorer.truncated == 0
    scores = scorer.score([long, kept, "x"])["toxicity"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6) and scorer.truncated == 1


def test_another_template_is_another_judge(tmp_path: Path, kind: str) -> None:
    first = GuardScorer(save_guard(tmp_path / "a", kind)).fingerprint()
    other = template(kind).replace("afety", "afety ")
    second = GuardScorer(save_guard(tmp_path / "b", kind, chat=other), FAMILY_OF[kind]).fingerprint()
    assert first != second and not same_fingerprint(first, second)


def test_templates_that_take_parts(tmp_path: Path, kind: str) -> None:
    """As those of Llama Guard 3-1B: the content is a list."""
    parts, plain = (
        GuardScorer(save_guard(tmp_path / str(in_parts), kind, chat=template(kind, in_parts=in_parts)))
        for in_parts in (True, False)
    )
    assert parts.score(TEXTS)["toxicity"] == pytest.approx(plain.score(TEXTS)["toxicity"], abs=1e-6)


def test_a_score_does_not_depend_on_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates may write today's date into the prompt."""
    chat = template("granite-guardian-dated")
    assert "strftime_now" in chat

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2031, 7, 5)

    folder = save_guard(tmp_path, "granite-guardian-dated", chat=chat)
    scorer = GuardScorer(folder)
    before, fingerprint = scorer.score(TEXTS)["toxicity"], scorer.fingerprint()
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later)
    question = scorer.family.questions["toxicity"]
    assert "2031" in scorer.tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, **question
    )
    later = GuardScorer(folder)
    assert later.score(TEXTS)["toxicity"].tolist() == before.tolist() and later.fingerprint() == fingerprint


@pytest.mark.parametrize(
    ("chat", "stated", "fault"),
    [
        ("", None, "has no chat template"),
        ("{{ messages[-1]['content'] }}", None, "is of no family that is known; state it"),
        ("You are asked. ", "llama-guard", "does not put a user's message into the prompt"),
        ("{{ messages[-1]['content'] * 2 }}", "llama-guard", "does not put a user's message into the prompt, once"),
        ("{{ raise_exception('only pairs') }}", "llama-guard", "its chat template fails: only pairs"),
        (None, "llama", "there is no family 'llama'; give one of llama-guard, granite-guardian, qwen3guard, shield"),
        ("guardian_config criteria_id {{ messages[-1]['content'] }}", "granite-guardian", "from 3.3 on reasons before"),
    ],
)
def test_models_that_cannot_be_asked(tmp_path: Path, chat: str | None, stated: str | None, fault: str) -> None:
    folder = save_guard(tmp_path, "llama-guard", chat=chat)
    with pytest.raises(InputError) as raised:
        load_scorer(f"guard:{folder}" + (f"#{stated}" if stated else ""))
    assert fault in str(raised.value) and "\n" not in str(raised.value)


def test_answers_that_no_token_tells_apart(folder: Path, kind: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (found,) = (one for one in FAMILIES if one.name == FAMILY_OF[kind])
    same = dataclasses.replace(found, safe=found.unsafe)
    with pytest.raises(InputError, match="cannot be told apart by a token"):
        _verdicts(_Chat(tokenizer, tokenizer.chat_template, same, "here"), same, "here")
    # a shared beginning belongs to what the model writes before its verdict
    close = dataclasses.replace(found, unsafe="not safe", safe="not bad")
    unsafe, safe, lead = _verdicts(_Chat(tokenizer, tokenizer.chat_template, close, "here"), close, "here")
    assert tokenizer.decode([unsafe, safe]) == "sb" and tokenizer.decode(lead) == LEADS[kind] + "not "


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_scorer(f"guard:{tmp_path / 'none'}")
    with pytest.raises(InputError, match="is not known"):
        load_scorer("guard:")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match=r"guard model .* cannot be loaded|has no chat template"):
        load_scorer(f"guard:{tmp_path}")
    small = save_guard(tmp_path / "small", "llama-guard", positions=64)
    with pytest.raises(InputError, match="its prompt alone takes"):
        load_scorer(f"guard:{small}")


def test_the_weights_go_straight_to_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in the processor's memory first would be a whole model more, in each process."""
    asked: list[str] = []

    def loading(*arguments: Any, device: str = "cpu", **options: Any) -> Any:
        asked.append(device)
        return load_causal_model(*arguments, **options)

    monkeypatch.setattr("ifguide.scorers.guards.scorer.load_causal_model", loading)
    GuardScorer(folder, device="cuda:7")
    assert asked == ["cuda:7"]
