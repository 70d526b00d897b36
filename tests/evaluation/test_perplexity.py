from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ifguide.errors import InputError, NumericsError
from ifguide.evaluation import perplexity as module
from ifguide.evaluation.perplexity import language_model_perplexity, perplexity
from ifguide.models.language_model import LanguageModel, load_language_model
from tests.support.tiny_models import byte_tokenizer, tiny_neox

TEXTS = ["The cat sat on the mat.", "", "a", "héllo wörld", "The cat sat on the mat.", "x" * 40]
LONG = "it was the best of times, it was the worst of times, it was the age of wisdom " * 3


@pytest.fixture(scope="module")
def lm(model_dir: Path) -> LanguageModel:
    return load_language_model(model_dir, torch.float64)


def log_p(lm: LanguageModel, before: list[int], token: int) -> float:
    """One prediction, by itself."""
    with torch.no_grad():
        return float(lm.model(torch.tensor([before])).logits[0, -1].double().log_softmax(-1)[token])


def direct_nll(lm: LanguageModel, ids: list[int]) -> float:
    """Every token of ``ids`` but the first, from all that precedes it."""
    return -math.fsum(log_p(lm, ids[:end], ids[end]) for end in range(1, len(ids)))


@pytest.mark.parametrize("append_eod", [False, True])
def test_equals_every_token_by_itself(lm: LanguageModel, append_eod: bool) -> None:
    documents = [[0, *ids, *([0] if append_eod else [])] for ids in lm.encode(TEXTS)]
    result = language_model_perplexity(lm, TEXTS, append_eod=append_eod)
    assert result.tokens == sum(len(ids) - 1 for ids in documents)
    assert result.nll == pytest.approx(math.fsum(direct_nll(lm, ids) for ids in documents), rel=1e-10)
    assert float(result) == result.ppl == pytest.approx(math.exp(result.nll / result.tokens), rel=1e-12)


def test_single_precision_from_a_folder(lm: LanguageModel, model_dir: Path) -> None:
    assert perplexity(model_dir, TEXTS).nll == pytest.approx(language_model_perplexity(lm, TEXTS).nll, rel=1e-6)


@pytest.mark.parametrize(("length", "context"), [(16, 8), (16, 1), (16, 16), (64, 32), (2, 1)])
def test_windows_count_each_token_once_with_their_context(lm: LanguageModel, length: int, context: int) -> None:
    ids = [0, *lm.encode([LONG])[0]]
    expected, begin, stop = 0.0, 0, length + 1
    for end in range(1, len(ids)):
        if end == stop:  # the window is full: the next reads `context` tokens again
            begin, stop = end - context, end - context + length + 1
        expected -= log_p(lm, ids[begin:end], ids[end])
    result = language_model_perplexity(lm, [LONG], max_length=length, context=context)
    assert result.tokens == len(ids) - 1
    assert result.nll == pytest.approx(expected, rel=1e-10)


def test_batches_change_nothing(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = language_model_perplexity(lm, [*TEXTS, LONG])
    monkeypatch.setattr(module, "_BATCH_TOKENS", 1)
    assert language_model_perplexity(lm, [*TEXTS, LONG]).nll == pytest.approx(expected.nll, rel=1e-12)
    assert language_model_perplexity(lm, [LONG, *TEXTS[::-1]]).nll == pytest.approx(expected.nll, rel=1e-12)


def test_without_eod_the_first_token_is_not_counted(no_eod_dir: Path) -> None:
    lm = load_language_model(no_eod_dir, torch.float64)
    result = language_model_perplexity(lm, ["The cat", "a", ""])
    assert result.tokens == 6
    assert result.nll == pytest.approx(direct_nll(lm, lm.encode(["The cat"])[0]), rel=1e-10)
    with pytest.raises(InputError, match="append_eod"):
        language_model_perplexity(lm, ["a b"], append_eod=True)


def test_the_interval_resamples_texts(lm: LanguageModel) -> None:
    texts = ["the cat sat on the mat", "a dog", "it rained for forty days", "who came in?"]
    found = language_model_perplexity(lm, texts, max_length=4, context=2)
    alone = [language_model_perplexity(lm, [text], max_length=4, context=2) for text in texts]
    assert [tokens for _, tokens in found.by_text] == [one.tokens for one in alone], "windows of a text are added up"
    assert [nll for nll, _ in found.by_text] == pytest.approx([one.nll for one in alone], rel=1e-9)
    drawn = np.random.default_rng(3).integers(0, len(texts), size=(10_000, len(texts)))
    nll, tokens = np.array(found.by_text).T
    expected = np.quantile(np.exp(nll[drawn].sum(1) / tokens[drawn].sum(1)), [0.025, 0.975])
    assert found.interval(3) == pytest.approx(expected, rel=1e-9)
    assert alone[0].interval() is None, "one text says nothing of others"


def test_nothing_to_count(lm: LanguageModel) -> None:
    for texts in ([], ["", ""]):
        with pytest.raises(InputError, match="no tokens"):
            language_model_perplexity(lm, texts)


@pytest.mark.parametrize("options", [{"max_length": 1}, {"max_length": 65}, {"context": 0}, {"context": 65}])
def test_options_out_of_range(lm: LanguageModel, options: dict) -> None:
    with pytest.raises(InputError, match="must be"):
        language_model_perplexity(lm, TEXTS, **options)


def test_broken_weights_name_the_text(tmp_path: Path) -> None:
    model, tokenizer = tiny_neox(), byte_tokenizer()
    model.gpt_neox.embed_in.weight.data[tokenizer.encode("z")[0]] = float("nan")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(NumericsError, match="text 1 "):
        perplexity(tmp_path, ["aaaa", "azb", "bbb"])
