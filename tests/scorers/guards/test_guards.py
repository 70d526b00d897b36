"""Guard models as judges, against one prompt at a time, written out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ifguide.errors import InputError
from ifguide.models.folder import same_fingerprint
from ifguide.scorers.guards.families import FAMILIES
from ifguide.scorers.guards.scorer import GuardScorer, _Chat, _verdicts
from ifguide.scorers.registry import load_scorer
from tests.support.guards import HARM, LEADS, PROMPTS, TEMPLATES, WORDS, save_guard
from tests.support.language_models import no_network

__all__ = ["no_network"]
TEXTS = ["you are awful", "", "the tree", "日本 and a cat", "{{ 7 * 7 }}", "a longer text, " * 6, "the tree"]


@pytest.fixture(scope="module", params=PROMPTS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp(family), family)


@torch.no_grad()
def literal(folder: Path, family: str, text: str, risk: str) -> float:
    """One prompt alone, without padding: the softmax over the first bytes of the two answers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = PROMPTS[family].replace("RISK", risk).replace("TEXT", text.strip()) + LEADS[family]
    logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
    unsafe, safe = (float(logits[tokenizer(word)["input_ids"][0]]) for word in WORDS[family])
    return 1 / (1 + np.exp(safe - unsafe))


def risks(family: str) -> dict[str, str]:
    if family == "shieldgemma":
        (found,) = (one for one in FAMILIES if one.name == family)
        return {label: arguments["guideline"] for label, arguments in found.questions.items()}
    return {"toxicity": HARM}


def test_equals_one_prompt_at_a_time(folder: Path, family: str, no_network: None) -> None:
    scorer = load_scorer(f"guard:{folder}")
    assert scorer.name == f"guard:{folder}" and scorer.main == "toxicity"
    scores = scorer.score(TEXTS)
    asked = risks(family)
    assert set(scores) == {"toxicity", *asked}
    for label, risk in asked.items():
        expected = [literal(folder, family, text, risk) for text in TEXTS]
        assert scores[label] == pytest.approx(expected, abs=2e-5)
        assert np.ptp(expected) > 1e-3
    if family == "shieldgemma":
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


def test_told_by_configuration_and_template_or_stated(folder: Path, family: str) -> None:
    told, stated = load_scorer(f"guard:{folder}"), load_scorer(f"guard:{folder}#{family}")
    assert isinstance(told, GuardScorer) and isinstance(stated, GuardScorer)
    assert told.family is stated.family and told.family.name == family
    assert told.describe()["family"] == family and told.describe()["dtype"] == "float32"
    assert stated.name == f"guard:{folder}#{family}" and stated.fingerprint() == told.fingerprint()


def test_long_texts_are_cut_and_the_question_is_not(tmp_path: Path, family: str) -> None:
    around = len(PROMPTS[family].encode()) + 300
    scorer = GuardScorer(save_guard(tmp_path, family, positions=around))
    long = "x" * (scorer.max_tokens - 1) + "ab" * 400
    kept = long[: scorer.max_tokens]
    assert scorer.cut([long, kept, "x"]).tolist() == [True, False, False] and scorer.truncated == 0
    scores = scorer.score([long, kept, "x"])["toxicity"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6) and scorer.truncated == 1


def test_another_template_is_another_judge(tmp_path: Path, family: str) -> None:
    first = GuardScorer(save_guard(tmp_path / "a", family)).fingerprint()
    template = TEMPLATES[family].replace("afety", "afety ")
    second = GuardScorer(save_guard(tmp_path / "b", family, template=template), family).fingerprint()
    assert first != second and not same_fingerprint(first, second)


def test_templates_that_take_parts(tmp_path: Path, family: str) -> None:
    """As those of Llama Guard 3-1B: the content is a list."""
    told = "{{ messages[-1]['content'] | trim }}"
    parts = "{% for part in messages[-1]['content'] if part is mapping %}{{ part['text'] | trim }}{% endfor %}"
    parts += "{{ '' }}"  # Jinja drops a line break behind a statement
    template = TEMPLATES[family].replace(told, parts)
    scores = GuardScorer(save_guard(tmp_path / "a", family, template=template)).score(TEXTS)["toxicity"]
    assert scores == pytest.approx(GuardScorer(save_guard(tmp_path / "b", family)).score(TEXTS)["toxicity"], abs=1e-6)


@pytest.mark.parametrize(
    ("template", "stated", "fault"),
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
def test_models_that_cannot_be_asked(tmp_path: Path, template: str | None, stated: str | None, fault: str) -> None:
    folder = save_guard(tmp_path, "llama-guard", template=template)
    with pytest.raises(InputError) as raised:
        load_scorer(f"guard:{folder}" + (f"#{stated}" if stated else ""))
    assert fault in str(raised.value) and "\n" not in str(raised.value)


def test_answers_that_no_token_tells_apart(folder: Path, family: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (found,) = (one for one in FAMILIES if one.name == family)
    same = dataclasses.replace(found, safe=found.unsafe)
    with pytest.raises(InputError, match="cannot be told apart by a token"):
        _verdicts(_Chat(tokenizer, same, "here"), same, "here")
    # a shared beginning belongs to what the model writes before its verdict
    close = dataclasses.replace(found, unsafe="not safe", safe="not bad")
    unsafe, safe, lead = _verdicts(_Chat(tokenizer, close, "here"), close, "here")
    assert tokenizer.decode([unsafe, safe]) == "sb" and tokenizer.decode(lead) == LEADS[family] + "not "


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
