"""The attacker's fine-tuning against AdamW written out, and what it is given to read."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from ifguide.attacks.options import Relearn
from ifguide.attacks.training import chosen, document_loss, rate_at, token_rows, tune
from ifguide.errors import InputError, NumericsError
from tests.attacks.conftest import tiny_lm

TEXTS = ["a cat", "the dog sat", "on a mat", "and", "no more"]


def test_the_loss_is_the_mean_over_all_tokens_of_a_step() -> None:
    lm = tiny_lm()
    rows = token_rows(lm, TEXTS[:3], 6)
    assert [row[0] for row in rows] == [0, 0, 0] and rows[0][-1] == 0, "EOD before, and after what is not cut"
    assert rows[1] == [0, *lm.reader.encode(TEXTS[1])[:6]]
    total, count = 0.0, 0
    for row in rows:
        log_p = lm.model(input_ids=torch.tensor([row[:-1]])).logits[0].log_softmax(-1)
        total -= sum(float(log_p[place, token]) for place, token in enumerate(row[1:]))
        count += len(row) - 1
    assert float(document_loss(lm.model, rows, lm.device)) == pytest.approx(total / count, abs=1e-12)


def test_the_rate_rises_and_falls_on_lines() -> None:
    assert [rate_at(step, 10, 0.2) for step in range(1, 11)] == pytest.approx(
        [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert rate_at(1, 4, 0.0) == 1.0
    assert rate_at(1, 1, 0.05) == 1.0, "all of one step is warm-up"


def literal_adamw(lm, rows: list[list[int]], recipe: Relearn) -> None:
    """Every row in the order given, one a step."""
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in lm.model.named_parameters()}
    for step, row in enumerate(rows, start=1):
        lm.model.requires_grad_(True)
        loss = document_loss(lm.model, [row], lm.device)
        names, weights = zip(*lm.model.named_parameters())
        gradients = torch.autograd.grad(loss, weights)
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
        scale = min(1.0, recipe.max_norm / (norm + 1e-6))
        rate = recipe.learning_rate * rate_at(step, recipe.at[-1], recipe.warmup)
        with torch.no_grad():
            for name, weight, gradient in zip(names, weights, gradients):
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * scale * gradient)
                second.mul_(0.999).add_(0.001 * (scale * gradient) ** 2)
                decay = recipe.weight_decay if weight.ndim > 1 else 0.0
                weight -= rate * decay * weight
                unbiased = (second / (1 - 0.999**step)).sqrt() + 1e-8
                weight -= rate * (first / (1 - 0.9**step)) / unbiased
        lm.model.requires_grad_(False)


def test_it_is_adamw_written_out() -> None:
    recipe = Relearn(toxic="t", at=(0, 3), warmup=0.4, weight_decay=0.1, learning_rate=1e-3)
    # biases of keys have no gradient but rounding, which Adam makes steps of
    tuned, literal = (tiny_lm(attention_bias=False) for _ in range(2))
    row = token_rows(tuned, TEXTS[:1], 9)
    losses = list(tune(tuned, row, recipe, seed=0))
    literal_adamw(literal, row * 3, recipe)
    assert len(losses) == 3 and losses[2] < losses[0]
    for one, other in zip(tuned.model.parameters(), literal.model.parameters()):
        assert torch.allclose(one, other, atol=1e-12, rtol=0)


def test_all_models_read_the_same_documents_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from ifguide.attacks import training

    seen: list[list[list[int]]] = []

    def spy(model, rows, device):
        seen.append(rows)
        return document_loss(model, rows, device)

    monkeypatch.setattr(training, "document_loss", spy)
    recipe = Relearn(toxic="t", at=(0, 6), documents_a_step=2)
    orders = []
    for family in ("neox", "llama"):
        lm = tiny_lm(family)
        list(tune(lm, token_rows(lm, TEXTS, 9), recipe, seed=4))
        orders.append(seen[:])
        seen.clear()
    assert orders[0] == orders[1]
    flat = [tuple(row) for step in orders[0] for row in step]
    assert len(flat) == 12 and all(len(set(flat[start : start + 5])) == 5 for start in (0, 5)), "pass after pass"
    assert flat[:5] != flat[5:10]


def test_a_smaller_set_is_part_of_a_larger_one() -> None:
    few, many = chosen(TEXTS, 2, 7), chosen(TEXTS, 4, 7)
    assert many[:2] == few and len(set(many)) == 4
    assert chosen(TEXTS, 4, 8) != many


def test_bad_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    with pytest.raises(InputError, match="document 1 has no tokens"):
        token_rows(lm, ["a", ""], 3)
    lm.model.get_output_embeddings().weight.data[3] = float("nan")
    with pytest.raises(NumericsError, match="step 1 is not finite"):
        next(tune(lm, [[0, 5, 6]], Relearn(toxic="t"), 0))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match="needs the package peft"):
        next(tune(tiny_lm(), [[0, 5, 6]], Relearn(toxic="t", lora=4), 0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"toxic": "t", "documents": (10, 5)}, "--documents"),
        ({"toxic": "t", "at": (0,)}, "after 0"),
        ({"toxic": "t", "learning_rate": 0.0}, "--learning-rate"),
        ({"toxic": "t", "warmup": 1.0}, "--warmup"),
        ({"toxic": "t", "lora": 0}, "--lora"),
    ],
)
def test_options_that_cannot_be_meant(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Relearn(**options)


def test_a_lora_trains_itself_alone_and_is_generated_with() -> None:
    pytest.importorskip("peft", reason="--lora needs peft, an optional extra")
    lm, untouched = tiny_lm(), tiny_lm()
    recipe = Relearn(toxic="t", at=(0, 4), lora=4, learning_rate=5e-2)
    ids = torch.tensor([[0, 40, 41, 42]])
    before = lm.model(input_ids=ids).logits
    losses = list(tune(lm, token_rows(lm, TEXTS[:1], 9), recipe, seed=0))
    assert losses[-1] < losses[0]
    assert not torch.equal(lm.model(input_ids=ids).logits, before), "what was trained is in the model"
    kept = dict(lm.model.named_parameters())
    for name, weight in untouched.model.named_parameters():
        inner = (
            name if name in kept else name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
        )
        assert torch.equal(kept[inner], weight), name
    assert not any("embed_out" in name and "lora" in name for name in kept), "the head is not one of the layers"
