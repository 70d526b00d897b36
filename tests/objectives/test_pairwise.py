"""DPO, NPO and RMU against their equations in fp64, written out text by text, and at θ = r exactly."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ifguide.objectives.base import Batch
from ifguide.objectives.dpo import DPO
from ifguide.objectives.npo import NPO
from ifguide.objectives.pairwise import ForwardKL
from ifguide.objectives.rmu import RMU, steering_vector
from tests.objectives.tiny import VOCAB, Copy, close, gradients, literal_log_probs, model, pairs, run, step, text

THETA, REFERENCE = model(0), Copy(model(5))
BATCH = Batch(text(), pairs())


def with_log_probs(objective, reference=REFERENCE, batch=BATCH, **facts):
    with torch.no_grad():
        objective.start(run(log_probs=literal_log_probs(reference.model, batch.pairs), **facts))
    return objective


def test_dpo_is_its_equation() -> None:
    loss, report = step(with_log_probs(DPO(0.3)), THETA, BATCH)
    ours, theirs = literal_log_probs(THETA, BATCH.pairs), literal_log_probs(REFERENCE.model, BATCH.pairs).detach()
    ratios = ours - theirs
    literal = [-torch.log(1 / (1 + torch.exp(-0.3 * (c - j)))) for c, j in ratios]
    expected = sum(literal) / 3
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    close(gradients(THETA, loss), gradients(THETA, expected))
    margins = [0.3 * (c - j).item() for c, j in ratios]
    assert report == pytest.approx(
        {
            "objective": loss.item(),
            "reward_margin": sum(margins) / 3,
            "reward_accuracy": sum(m > 0 for m in margins) / 3,
        },
        rel=1e-9,
    )


def test_dpo_at_the_reference() -> None:
    """log 2, and -β/2 ∇(l(c) - l(j))."""
    loss, _ = step(with_log_probs(DPO(0.3), Copy(THETA)), THETA, BATCH)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-12)
    ours = literal_log_probs(THETA, BATCH.pairs)
    close(gradients(THETA, loss), gradients(THETA, -0.15 * (ours[:, 0] - ours[:, 1]).mean()))


def literal_ce(of, kind: str, batch: Batch = BATCH):
    """Mean cross-entropy of retain tokens."""
    if kind == "text":
        chances = of(input_ids=batch.text.tokens).logits.log_softmax(-1)
        return -chances.gather(-1, batch.text.labels[..., None]).mean()
    chosen = literal_log_probs(of, batch.pairs)[:, 0].sum()
    return -chosen / batch.pairs.counts[: len(batch.pairs.numbers)].sum()


@pytest.mark.parametrize("kind", ["chosen", "text"])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_npo_is_its_equation(kind: str, weight: float) -> None:
    loss, report = step(with_log_probs(NPO(0.2, weight, kind)), THETA, BATCH)
    ours, theirs = literal_log_probs(THETA, BATCH.pairs), literal_log_probs(REFERENCE.model, BATCH.pairs).detach()
    literal = [-2 / 0.2 * torch.log(1 / (1 + torch.exp(0.2 * (j - r)))) for j, r in zip(ours[:, 1], theirs[:, 1])]
    expected = sum(literal) / 3 + weight * literal_ce(THETA, kind)
    # the cross-entropy of packed text is fp32, whatever the model computes in
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6 if kind == "text" else 1e-12)
    assert report["objective"] == pytest.approx(loss.item(), rel=1e-7)
    assert report.get("retain", 0.0) == pytest.approx(bool(weight) * literal_ce(THETA, kind).item(), rel=1e-6)


def test_npo_at_the_reference() -> None:
    """(2/β) log 2, and ∇l(j)."""
    loss, _ = step(with_log_probs(NPO(0.2, 0.0, "chosen"), Copy(THETA)), THETA, BATCH)
    assert loss.item() == pytest.approx(10 * math.log(2), rel=1e-12)
    close(gradients(THETA, loss), gradients(THETA, literal_log_probs(THETA, BATCH.pairs)[:, 1].mean()))


@pytest.mark.parametrize("kind", ["chosen", "text"])
def test_rmu_is_its_equation(kind: str) -> None:
    objective = RMU(2, 1.5, 3.0, kind, "all")
    objective.start(run(reference=REFERENCE, seed=11))
    loss, report = step(objective, THETA, BATCH)
    target = 1.5 * steering_vector(8, 11).double()

    def hidden(of, tokens):
        return of(input_ids=tokens, output_hidden_states=True).hidden_states[2]

    def over(rows, of_one):
        terms = []
        for row in rows:
            places = BATCH.pairs.counts[row].nonzero()[:, 0]
            tokens = BATCH.pairs.tokens[row][None, : places[-1] + 1]
            terms += [of_one(tokens, place) for place in places]
        return sum(terms) / len(terms)

    forget = over(range(3, 6), lambda tokens, place: (hidden(THETA, tokens)[0, place] - target).square().mean())
    if kind == "chosen":
        retain = over(
            range(3),
            lambda tokens, place: (hidden(THETA, tokens) - hidden(REFERENCE.model, tokens))[0, place].square().mean(),
        )
    else:
        tokens = BATCH.text.tokens
        retain = (hidden(THETA, tokens) - hidden(REFERENCE.model, tokens)).square().mean()
    assert report["forget"] == pytest.approx(forget.item(), rel=1e-7)
    assert report["retain"] == pytest.approx(retain.item(), rel=1e-9)
    assert loss.item() == pytest.approx((forget + 3.0 * retain).item(), rel=1e-7)
    close_enough = gradients(THETA, loss)
    for name, gradient in gradients(THETA, forget + 3.0 * retain).items():
        torch.testing.assert_close(close_enough[name], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["chosen", "text"])
def test_rmu_at_the_reference_retains_exactly(kind: str) -> None:
    objective = RMU(2, None, 3.0, kind, "down")
    objective.start(run(reference=Copy(THETA)))
    _, report = step(objective, THETA, BATCH)
    assert report["retain"] == 0.0
    rejected = THETA(input_ids=BATCH.pairs.tokens[3:], output_hidden_states=True).hidden_states[2]
    norms = rejected[BATCH.pairs.counts[3:]].norm(dim=-1)
    assert objective.state()["coefficient"] == pytest.approx(norms.mean().item(), rel=1e-12)


def test_rmu_steers_into_the_positive_orthant_and_trains_what_it_says() -> None:
    vector = steering_vector(64, 3)
    assert (vector >= 0).all() and vector.norm().item() == pytest.approx(1.0)
    assert not torch.equal(vector, steering_vector(64, 4))
    names = [name for name, _ in THETA.named_parameters()]
    down = [name for name in names if RMU(3, None, 1.0, "chosen", "down").trains(name, 3)]
    assert down == [f"gpt_neox.layers.{layer}.mlp.dense_4h_to_h.weight" for layer in range(3)]
    assert [name for name in names if RMU(1, None, 1.0, "chosen", "down").trains(name, 3)] == down[:1]
    assert RMU(9, None, 1.0, "chosen", "down").trains("model.layers.6.mlp.down_proj.weight", 12)
    assert not RMU(9, None, 1.0, "chosen", "down").trains("model.layers.5.mlp.down_proj.weight", 12)
    assert all(RMU(2, None, 1.0, "chosen", "all").trains(name, 3) for name in names)


@pytest.mark.parametrize("objective", [NPO(0.2, 0.7, "chosen"), RMU(2, 1.5, 3.0, "chosen", "all"), DPO(0.3)])
def test_micro_batches_add_up_to_the_step(objective) -> None:
    """Pairs of uneven lengths: the mean of the parts' losses is the loss of the whole."""
    whole = pairs(((2, 3, 4), (4, 1, 2), (1, 5, 2), (3, 9, 1)))
    parts = [Batch(BATCH.text, type(whole)(*(field[[a, b, 4 + a, 4 + b]] if len(field) == 8 else field[[a, b]]
                                             for field in whole))) for a, b in ((0, 1), (2, 3))]  # fmt: skip
    log_probs = literal_log_probs(REFERENCE.model, whole).detach()
    objective.start(run(reference=REFERENCE, log_probs=log_probs))
    loss, report = step(objective, THETA, Batch(BATCH.text, whole))
    objective.start(run(reference=REFERENCE, log_probs=log_probs, micro_batches=2))
    objective.begin(parts, 1)
    both = [objective.loss(THETA, part, 1) for part in parts]
    assert sum(part for part, _ in both).item() / 2 == pytest.approx(loss.item(), rel=1e-12)
    assert objective.report(sum(sums for _, sums in both)) == pytest.approx(report, rel=1e-9)


def test_the_written_gradient_of_kl_is_that_of_its_sum() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, VOCAB, generator=draw, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(5, VOCAB, generator=draw, dtype=torch.float64)
    literal = (reference.softmax(-1) * (reference.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
    ours = ForwardKL.apply(logits, reference)
    torch.testing.assert_close(ours, literal, rtol=1e-12, atol=0)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad((v * weights).sum(), logits)[0] for v in (ours, literal)))
    for dtype in (torch.float32, torch.bfloat16):
        same = torch.randn(5, VOCAB, generator=draw).to(dtype).requires_grad_()
        value = ForwardKL.apply(same, same.detach())
        assert value.sum().item() == 0 and not torch.autograd.grad(value.sum(), same)[0].any()


def test_no_pad_and_no_prompt_token_matters() -> None:
    """What stands behind a text changes nothing, and the prompt's own log-probability is not summed."""
    padded = Batch(BATCH.text, BATCH.pairs._replace(tokens=BATCH.pairs.tokens.clone()))
    for row, counts in zip(padded.pairs.tokens, padded.pairs.counts):
        row[int(counts.nonzero().max()) + 1 :] = 7
    assert not torch.equal(padded.pairs.tokens, BATCH.pairs.tokens)
    for objective in (with_log_probs(DPO(0.3)), with_log_probs(NPO(0.2, 0.7, "chosen"))):
        first, second = (step(objective, THETA, batch)[0].item() for batch in (BATCH, padded))
        assert first == pytest.approx(second, rel=1e-12)


def test_dpo_is_trls(tmp_path: Path) -> None:
    """The loss of trl's own trainer on the same tokens and the same two models."""
    from tests.objectives.oracles import trl_dpo_loss

    theirs = trl_dpo_loss(THETA, REFERENCE.model, BATCH.pairs, 0.3, tmp_path)
    assert step(with_log_probs(DPO(0.3)), THETA, BATCH)[0].item() == pytest.approx(theirs, rel=1e-6)
