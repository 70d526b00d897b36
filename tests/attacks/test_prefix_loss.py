"""The prefix's loss, term by term, against a literal reference in fp64, and its gradient against differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ifguide.attacks.gcg.mutations import MOVES, least_length, search
from ifguide.attacks.gcg.prefix_loss import Case, PrefixLoss, compared_layers, repetition
from ifguide.attacks.options import Enhanced
from ifguide.errors import InputError, MismatchError
from ifguide.models.language_model import LanguageModel
from tests.attacks.conftest import slope, tiny_lm

PREFIX = [70, 71, 90, 71]
CASES = [Case([40, 41], [100, 101, 30, 31, 50], 2), Case([60], [33, 34], 2)]
OPTIONS = Enhanced(layers=(1, 2), ce_floor=0.5)
OFF = replace(OPTIONS, state_weight=0.0, angle_weight=0.0, fluency_weight=0.0, repetition_weight=0.0)


@pytest.fixture(scope="module", params=["neox", "llama"])
def pair(request: pytest.FixtureRequest) -> tuple[LanguageModel, LanguageModel]:
    """A model of three blocks and a reference that differs."""
    lm, other = (tiny_lm(request.param, num_hidden_layers=3) for _ in range(2))
    with torch.no_grad():
        for weight in other.model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2), dtype=weight.dtype)
    return lm, other


def literal(
    lm: LanguageModel, other: LanguageModel, rows: torch.Tensor, o: Enhanced, skip_repetition: bool = False
) -> float:
    """L of one-hot ``rows[S, V]``, text by text and token by token."""
    own, foreign = (one.model.get_input_embeddings().weight for one in (lm, other))

    def run(model: LanguageModel, table: torch.Tensor, case: Case, prefix: torch.Tensor | None):
        parts = [table[[0]], *([] if prefix is None else [prefix]), table[[*case.prompt, *case.target]]]
        blocks: list[torch.Tensor] = []
        layers = model.model.base_model.layers
        handles = [layer.register_forward_hook(lambda m, i, out: blocks.append(first(out))) for layer in layers]
        logits = model.model(inputs_embeds=torch.cat(parts)[None]).logits[0]
        for handle in handles:
            handle.remove()
        return logits[:, : lm.drawn_ids].log_softmax(-1), blocks

    total = 0.0
    for number, case in enumerate(CASES):
        log_p, blocks = run(lm, own, case, rows @ own[: rows.shape[1]])
        at = len(log_p) - len(case.target)
        forced = [max(-float(log_p[at + k - 1, case.target[k]]), o.ce_floor) for k in range(case.forced)]
        total += sum(forced) / len(forced) / len(CASES)
        _, there = run(other, foreign, case, rows @ foreign[: rows.shape[1]])
        _, bare = run(other, foreign, case, None)
        places = list(range(case.forced, len(case.target))) or list(range(len(case.target)))
        distances, angles = [], []
        for layer in o.layers:
            for k in places:
                h, h0 = blocks[layer - 1][0, at + k], there[layer - 1][0, at + k]
                plain = bare[layer - 1][0, len(case.prompt) + 1 + k]
                distances.append(math.sqrt(float(((h - h0) ** 2).sum())))
                angles.append(1 - float(h @ plain) / math.sqrt(float(h @ h) * float(plain @ plain)))
        total += o.state_weight * sum(distances) / len(distances) / len(CASES)
        total += o.angle_weight * sum(angles) / len(angles) / len(CASES)
        if number == 0:
            said = [-float((rows[j] * log_p[j, : rows.shape[1]]).sum()) for j in range(len(rows))]
            total += o.fluency_weight * sum(said) / len(said)
    if skip_repetition:
        return total
    ids = rows.argmax(1).tolist()
    return total + o.repetition_weight * sum(ids[j] in ids[:j] for j in range(len(ids))) / len(ids)


def first(output):
    return output if isinstance(output, torch.Tensor) else output[0]


def one_hot(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(ids), lm.vocab_size).double()


@pytest.mark.parametrize(
    "options",
    [
        OFF,
        replace(OFF, state_weight=1.3),
        replace(OFF, angle_weight=10.0),
        replace(OFF, fluency_weight=1.5),
        replace(OFF, repetition_weight=3.0),
        OPTIONS,
    ],
    ids=["forced", "states", "angles", "fluency", "repetition", "all"],
)
def test_each_term_is_the_literal_one(pair: tuple[LanguageModel, LanguageModel], options: Enhanced) -> None:
    lm, other = pair
    prefixes = [PREFIX, PREFIX[::-1], [33, 34, 35, 36]]
    found = PrefixLoss(lm, other, CASES, options, 2).losses(torch.tensor(prefixes)).tolist()
    assert found == pytest.approx([literal(lm, other, one_hot(lm, ids), options) for ids in prefixes], abs=1e-10)


def test_the_gradient_is_the_finite_difference(pair: tuple[LanguageModel, LanguageModel]) -> None:
    lm, other = pair
    gradient = PrefixLoss(lm, other, CASES, OPTIONS).gradient(PREFIX)
    for place, token in [(0, 5), (1, 71), (3, 200)]:

        def moved(step: float, place: int = place, token: int = token) -> float:
            rows = one_hot(lm, PREFIX)
            rows[place, token] += step
            return literal(lm, other, rows, OPTIONS, skip_repetition=True)

        assert float(gradient[place, token]) == pytest.approx(slope(moved), abs=5e-10)


def test_a_model_that_is_its_own_reference_has_no_distance() -> None:
    lm = tiny_lm(num_hidden_layers=3)
    options = replace(OFF, state_weight=1.0)
    some = torch.tensor([PREFIX])
    assert PrefixLoss(lm, lm, CASES, options).losses(some) == PrefixLoss(lm, None, CASES, OFF).losses(some)
    assert torch.isfinite(PrefixLoss(lm, lm, CASES, options).gradient(PREFIX)).all()


def test_the_layers() -> None:
    assert (
        compared_layers((), 2) == [1] and compared_layers((), 6) == [2, 3, 4] and compared_layers((3, 1), 4) == [1, 3]
    )
    for asked, layers in (((4,), 4), ((), 1)):
        with pytest.raises(InputError, match="--layers"):
            compared_layers(asked, layers)


def test_another_shape_is_no_reference() -> None:
    with pytest.raises(MismatchError, match="differ in tokenizer, blocks or width"):
        PrefixLoss(tiny_lm(), tiny_lm(num_hidden_layers=3), CASES, Enhanced(layers=(1,)))


def test_repetition() -> None:
    assert repetition(torch.tensor([[1, 2, 1, 1], [1, 2, 3, 4]])).tolist() == [0.5, 0.0]


# ---- the mixture of moves ----

SHORT = replace(OFF, least=2, most=5, ramp=6, iterations=12, children=4, tokens=8, buffer=3, repetition_weight=0.0)


def test_the_least_length_rises_over_the_ramp() -> None:
    assert [least_length(step, SHORT) for step in (1, 2, 4, 6, 12)] == [2, 3, 4, 5, 5]
    assert least_length(1, replace(SHORT, ramp=0)) == 5
    assert sum(MOVES.values()) == pytest.approx(1.0)


def run_search(begun: int, buffer: list, lm: LanguageModel) -> list:
    loss = PrefixLoss(lm, None, CASES, SHORT)
    allowed = torch.zeros(lm.vocab_size, dtype=torch.bool)
    allowed[40:60] = True

    def survives(prefixes: list[list[int]]) -> list[bool]:
        return [prefix[0] != 45 for prefix in prefixes]

    return list(search(loss, buffer, begun, allowed, survives, SHORT, 3))


def test_the_search_keeps_the_best_long_enough_and_goes_on_after_a_kill() -> None:
    lm = tiny_lm()
    start = [(9.0, [40, 41])]
    whole = run_search(0, start, lm)
    assert [step for step, _ in whole] == list(range(1, 13))
    loss = PrefixLoss(lm, None, CASES, SHORT)
    for step, buffer in whole:
        assert len(buffer) <= 3 and buffer == sorted(buffer)
        assert all(len(prefix) >= least_length(step, SHORT) - 1 and prefix[0] != 45 for _, prefix in buffer)
        for value, prefix in buffer:
            if prefix != [40, 41]:
                assert value == pytest.approx(float(loss.losses(torch.tensor([prefix]))[0]), abs=1e-12)
                assert set(prefix) <= set(range(40, 60))
    assert len(whole[-1][1][0][1]) == 5
    assert run_search(7, whole[6][1], lm) == whole[7:]
