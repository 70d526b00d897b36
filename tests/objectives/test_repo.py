"""REPO against its equations in fp64, its invariants, and its bit-exact limits."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from ifguide.objectives.base import Batch, PairBatch
from ifguide.objectives.discriminator import (
    dann_weight,
)
from ifguide.objectives.matching import GAP
from ifguide.objectives.penalised import Penalised
from ifguide.objectives.repo import REPO, REPOOptions
from ifguide.penalties.keys import PenaltyKeys
from tests.objectives.tiny import LAYERS, VOCAB, WIDTH, Copy, close, gradients, model, pairs, run, step, text

THETA, REFERENCE = model(0), Copy(model(5))
BATCH = Batch(text(), pairs())
FREQUENCY = torch.linspace(0, 3, VOCAB)


def repo(penalty: Penalised | None = None, reference=REFERENCE, random: bool = True, **changes) -> REPO:
    """An objective after its warm-up, at constant λ, with random fp64 parameters of its discriminator."""
    options = {
        "weight": 0.3, "schedule": "constant", "layer": 2, "retain": "none", "labels": "pairs",
        "detach_benign": False, "confusion": False, "discriminator": "linear", "discriminator_lr": 1e-2,
        "discriminator_clip": 0.0, "warmup_iters": 0,
    }  # fmt: skip
    facts = changes.pop("run", {})
    objective = REPO(REPOOptions(**{**options, **changes}), penalty)
    objective.start(run(reference=reference, log_frequency=FREQUENCY, **facts))
    module = objective.training.module.double()
    if random:
        draw = torch.Generator().manual_seed(9)
        for parameter in module.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return objective


def literal_adversarial(of, objective: REPO, batch: PairBatch, layer: int = 2):
    """L_adv, token by token without padding; the raw output of a block that is not the last."""
    module = objective.training.module

    def logits(row):
        places = batch.counts[row].nonzero()[:, 0]
        tokens = batch.tokens[row][None, : places[-1] + 1]
        hidden = of(input_ids=tokens, output_hidden_states=True).hidden_states[layer][0, places]
        mean = hidden.mean(-1, keepdim=True)
        normed = (hidden - mean) / ((hidden - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
        if module.inner is not None:
            inner = normed @ module.inner.weight.T + module.inner.bias
            normed = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
        return normed @ module.outer.weight[0] + module.outer.bias

    half = len(batch.numbers)
    benign = torch.cat([logits(row) for row in range(half)])
    toxic = torch.cat([logits(row) for row in range(half, 2 * half)])
    sigmoid = lambda z: 1 / (1 + torch.exp(-z))  # noqa: E731
    return -0.5 * (torch.log(sigmoid(toxic)).mean() + torch.log(1 - sigmoid(benign)).mean())


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_theta_and_phi_descend_what_they_should(kind: str) -> None:
    objective = repo(discriminator=kind)
    loss, report = step(objective, THETA, BATCH)
    literal = literal_adversarial(THETA, objective, BATCH.pairs)
    assert report["adversarial"] == pytest.approx(literal.item(), rel=1e-12)
    assert report["objective"] == pytest.approx(-0.3 * literal.item(), rel=1e-12)
    close(gradients(THETA, loss), {name: -0.3 * g for name, g in gradients(THETA, literal).items()})
    close({name: p.grad for name, p in objective.training.module.named_parameters()},
          gradients(objective.training.module, literal))  # fmt: skip


def test_phis_gradient_knows_no_lambda() -> None:
    found = []
    for weight in (0.1, 5.0):
        objective = repo(weight=weight)
        step(objective, THETA, BATCH)
        found.append([p.grad.clone() for p in objective.training.module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_a_new_discriminator_knows_nothing_and_moves_nothing() -> None:
    for kind in ("linear", "mlp"):
        objective = repo(random=False, discriminator=kind)
        loss, report = step(objective, THETA, BATCH)
        assert report["adversarial"] == pytest.approx(math.log(2), rel=1e-12)
        assert not any(g.any() for g in gradients(THETA, loss).values())


def test_only_labelled_tokens_and_blocks_up_to_m_feel_it() -> None:
    objective = repo()
    hidden = {}
    handle = THETA.gpt_neox.layers[1].register_forward_hook(
        lambda module, inputs, output: hidden.setdefault(len(hidden), output).retain_grad()
    )
    try:
        loss, _ = step(objective, THETA, BATCH)
    finally:
        handle.remove()
    loss.backward()
    felt = torch.cat([hidden[0].grad, hidden[1].grad]).abs().sum(-1) > 0  # chosen and rejected
    assert torch.equal(felt, BATCH.pairs.counts)
    above = [name for name, p in THETA.named_parameters() if p.grad is None or not p.grad.any()]
    THETA.zero_grad(set_to_none=True)
    expected = ("gpt_neox.layers.2.", "gpt_neox.final_layer_norm.", "embed_out.")
    untouched = [name for name, _ in THETA.named_parameters() if name.startswith(expected)]
    assert untouched and set(untouched) <= set(above)
    # attention's keys have a bias whose gradient vanishes in exact arithmetic, so no more can be said of the others
    assert len(above) < len(list(THETA.parameters())) - 10


def test_the_last_block_is_taken_before_the_final_norm() -> None:
    objective, theta = repo(layer=LAYERS), copy.deepcopy(THETA)
    theta.gpt_neox.final_layer_norm.weight.data = torch.linspace(0.2, 2, WIDTH, dtype=torch.float64)
    _, report = step(objective, theta, BATCH)
    normed = literal_adversarial(theta, objective, BATCH.pairs, LAYERS).item()  # of transformers' hidden_states
    raw = copy.deepcopy(theta)
    raw.gpt_neox.final_layer_norm = torch.nn.Identity()
    assert report["adversarial"] == pytest.approx(literal_adversarial(raw, objective, BATCH.pairs, LAYERS).item())
    assert abs(report["adversarial"] - normed) > 1e-3


@pytest.mark.parametrize("retain", ["kl", "ce"])
def test_the_retain_terms(retain: str) -> None:
    objective = repo(retain=retain, weight=0.0)
    loss, report = step(objective, THETA, BATCH)
    chosen, counts = BATCH.pairs.tokens[:3], BATCH.pairs.counts[:3]
    terms = []
    for tokens, where in zip(chosen, counts):
        ours = THETA(input_ids=tokens[None]).logits[0].log_softmax(-1)
        theirs = REFERENCE.model(input_ids=tokens[None]).logits[0].log_softmax(-1)
        for place in where.nonzero()[:, 0]:
            kl = sum(theirs[place - 1, v].exp() * (theirs[place - 1, v] - ours[place - 1, v]) for v in range(VOCAB))
            terms.append(kl if retain == "kl" else -ours[place - 1, tokens[place]])
    expected = sum(terms) / len(terms)
    for value in (loss.item(), report["retain"], report["objective"]):
        assert value == pytest.approx(expected.item(), rel=1e-12)
    close(gradients(THETA, loss), gradients(THETA, expected))


def test_kl_at_the_reference_is_exactly_nothing() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        theta = copy.deepcopy(THETA).to(dtype)
        objective = repo(retain="kl", weight=0.0, reference=Copy(theta))
        loss, _ = step(objective, theta, BATCH)
        assert loss.item() == 0.0
        assert not any(g.any() for g in gradients(theta, loss).values())


def keys(**changes) -> PenaltyKeys:
    return PenaltyKeys(penalty_form="clipped", penalty_clip=5.0, penalty_lambda=0.7, **changes)


@pytest.mark.parametrize("labels", ["pairs", "mask"])
def test_without_lambda_and_retain_it_is_m4_to_the_bit(labels: str) -> None:
    batch = Batch(text(selected=0.15), pairs())
    objective = repo(Penalised(keys()), weight=0.0, labels=labels)
    theta = copy.deepcopy(THETA).float()
    objective.training.module.float()
    loss, report = step(objective, theta, batch)
    plain = Penalised(keys())
    expected, sums = plain.loss(theta, batch, 1)
    assert torch.equal(loss, expected)
    theirs = gradients(theta, expected)
    assert all(torch.equal(g, theirs[name]) for name, g in gradients(theta, loss).items())
    told = plain.report(sums)
    assert {name: report[name] for name in told} == pytest.approx(told, rel=1e-6)


def test_stacked_it_is_the_sum() -> None:
    batch = Batch(text(selected=0.15), pairs())
    loss, _ = step(repo(Penalised(keys()), retain="ce"), THETA, batch)
    parts = [
        Penalised(keys()).loss(THETA, batch, 1)[0],
        step(repo(retain="ce", weight=0.0), THETA, batch)[0],
        step(repo(), THETA, batch)[0],
    ]
    sums = [gradients(THETA, part) for part in parts]
    for name, gradient in gradients(THETA, loss).items():
        torch.testing.assert_close(gradient, sum(part[name] for part in sums), rtol=1e-9, atol=1e-12)


def test_lambda_zero_is_the_retain_only_trainer_to_the_bit() -> None:
    """CE on the chosen texts: plain fine-tuning."""
    theta = copy.deepcopy(THETA).float()
    objective = repo(retain="ce", weight=0.0)
    objective.training.module.float()
    loss, _ = step(objective, theta, BATCH)
    chosen, counts = BATCH.pairs.tokens[:3], BATCH.pairs.counts[:3]
    logits = theta(input_ids=chosen, use_cache=False).logits[:, :-1][counts[:, 1:]]
    plain = F.cross_entropy(logits, chosen[:, 1:][counts[:, 1:]], reduction="sum") / counts.sum()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-7)
    theirs = gradients(theta, F.cross_entropy(logits, chosen[:, 1:][counts[:, 1:]], reduction="none").sum() * (
        1 / counts.sum().item()))  # fmt: skip
    assert all(torch.equal(g, theirs[name]) for name, g in gradients(theta, loss).items())


def test_only_toxic_tokens_move_where_benign_ones_are_detached() -> None:
    loss, _ = step(repo(detach_benign=True), THETA, BATCH)
    objective = repo()
    literal = literal_adversarial(THETA, objective, BATCH.pairs)
    frozen = copy.deepcopy(THETA)
    rows = BATCH.pairs._replace(tokens=BATCH.pairs.tokens)
    half = len(rows.numbers)
    # L_adv is a sum of two means, one a class: the benign one's gradient is what is missing
    swapped = literal_adversarial(frozen, objective, rows)
    assert swapped.item() == literal.item()
    toxic_only = _toxic_mean(THETA, objective, BATCH.pairs, half)
    close(gradients(THETA, loss), {name: -0.3 * g for name, g in gradients(THETA, toxic_only).items()})


def _toxic_mean(of, objective: REPO, batch: PairBatch, half: int):
    hidden = of(input_ids=batch.tokens[half:], output_hidden_states=True).hidden_states[2][batch.counts[half:]]
    return -0.5 * F.logsigmoid(objective.training.module(hidden)).mean()


def test_confusion_pulls_towards_one_half() -> None:
    """Value λ BCE(z, 1/2); its gradient vanishes at z = 0 and points back from both sides."""
    objective = repo(confusion=True)
    loss, report = step(objective, THETA, BATCH)
    half = len(BATCH.pairs.numbers)
    means = []
    for rows in (slice(half, None), slice(0, half)):
        tokens, counts = BATCH.pairs.tokens[rows], BATCH.pairs.counts[rows]
        hidden = THETA(input_ids=tokens, output_hidden_states=True).hidden_states[2][counts]
        z = objective.training.module(hidden)
        means.append(-(0.5 * torch.log(torch.sigmoid(z)) + 0.5 * torch.log(1 - torch.sigmoid(z))).mean())
    expected = 0.3 * 0.5 * sum(means)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert report["objective"] == pytest.approx(expected.item(), rel=1e-12)
    close(gradients(THETA, loss), gradients(THETA, expected))


def test_the_warmup_belongs_to_the_discriminator() -> None:
    objective = repo(random=False, warmup_iters=30, run={"train_iters": 40})
    before = copy.deepcopy(THETA.state_dict())
    values = []
    for iteration in range(1, 31):
        assert objective.weight_at(iteration) == 0.0
        with torch.no_grad():
            values.append(step(objective, THETA, BATCH, iteration)[1]["adversarial"])
        objective.finish(iteration)
    assert values[0] == pytest.approx(math.log(2)) and values[-1] < values[0] - 0.05
    assert all(torch.equal(value, THETA.state_dict()[name]) for name, value in before.items())
    assert objective.weight_at(31) == 0.3


def test_danns_schedule() -> None:
    objective = repo(schedule="dann", warmup_iters=10, run={"train_iters": 30})
    assert objective.weight_at(10) == 0.0
    for iteration, q in ((11, 0.05), (20, 0.5), (30, 1.0)):
        assert objective.weight_at(iteration) == pytest.approx(0.3 * (2 / (1 + math.exp(-10 * q)) - 1), rel=1e-12)
    assert dann_weight(0.0) == 0.0


def test_its_state_is_all_that_continuing_needs() -> None:
    whole, first, second = (repo(random=False, discriminator="mlp") for _ in range(3))
    for iteration in range(1, 5):
        step(whole, THETA, BATCH, iteration)
        whole.finish(iteration)
        part = first if iteration < 3 else second
        if iteration == 3:
            second.restore(copy.deepcopy(first.state()))
        step(part, THETA, BATCH, iteration)
        part.finish(iteration)
    for ours, theirs in zip(second.training.module.parameters(), whole.training.module.parameters()):
        assert torch.equal(ours, theirs)


def test_the_reference_stays_what_it_was() -> None:
    reference = Copy(THETA)
    before = copy.deepcopy(reference.model.state_dict())
    theta = copy.deepcopy(THETA)
    objective = repo(retain="kl", reference=reference)
    optimizer = torch.optim.SGD(theta.parameters(), lr=0.1)
    for iteration in range(1, 4):
        loss, _ = step(objective, theta, BATCH, iteration)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.finish(iteration)
    assert all(torch.equal(value, reference.model.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in reference.model.parameters())


def test_micro_batches_add_up_to_the_step() -> None:
    whole = pairs(((2, 3, 4), (4, 1, 2), (1, 5, 2), (3, 9, 1)))
    rows = [[0, 1, 4, 5], [2, 3, 6, 7]]
    parts = [
        Batch(BATCH.text, PairBatch(whole.tokens[r], whole.counts[r], whole.toxic[r], whole.numbers[r[:2]]))
        for r in rows
    ]
    one, two = repo(retain="kl"), repo(retain="kl", run={"micro_batches": 2})
    loss, report = step(one, THETA, Batch(BATCH.text, whole))
    two.begin(parts, 1)
    both = [two.loss(THETA, part, 1) for part in parts]
    assert sum(part for part, _ in both).item() / 2 == pytest.approx(loss.item(), rel=1e-12)
    assert two.report(sum(sums for _, sums in both)) == pytest.approx(report, rel=1e-12)
    for ours, theirs in zip(two.training.module.parameters(), one.training.module.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


# ---- masks in place of pairs ----


def test_labels_of_a_mask_stand_at_the_tokens_themselves() -> None:
    batch = text(selected=0.15, rows=3)
    objective = repo(labels="mask", retain="ce")
    objective.begin([Batch(batch)], 1)
    (labels,) = objective._labels
    stream = torch.cat([batch.tokens, batch.labels[:, -1:]], dim=1)
    for row in range(3):
        selected = {place + 1 for place in batch.codes[row].nonzero()[:, 0].tolist()}  # in the stream
        assert set(labels.toxic[row].nonzero()[:, 0].tolist()) == {p for p in selected if p < batch.tokens.shape[1]}
        benign = labels.benign[row].nonzero()[:, 0].tolist()
        assert len(benign) <= len(selected)
        assert all(abs(place - other) >= GAP for place in benign for other in selected if other < len(stream[row]) - 1)
        assert labels.retain[row].tolist() == [code == 0 for code in batch.codes[row].tolist()]
    loss, report = step(objective, THETA, Batch(batch))
    clean = batch.codes == 0
    chances = THETA(input_ids=batch.tokens).logits.log_softmax(-1)
    ce = -chances.gather(-1, batch.labels[..., None])[..., 0]
    assert report["retain"] == pytest.approx(ce[clean].mean().item(), rel=1e-12)
    assert torch.isfinite(loss)


def test_a_mask_without_a_selected_token_adds_nothing() -> None:
    loss, report = step(repo(Penalised(keys()), labels="mask"), THETA, Batch(text(selected=0.0)))
    plain, _ = Penalised(keys()).loss(THETA, Batch(text(selected=0.0)), 1)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    assert report["adversarial"] == 0 and math.isfinite(report["discriminator_accuracy"])
