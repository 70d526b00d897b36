"""The loss of a suffix, its gradient, and candidates, each against a literal reference in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ifguide.attacks.gcg.loss import SuffixLoss, token_embeddings
from ifguide.errors import NumericsError
from ifguide.models.language_model import LanguageModel
from tests.attacks.conftest import FAMILIES, slope, tiny_lm

CONTEXT, SUFFIX, TARGET = [0, 40, 41, 60], [70, 71, 90], [100, 101, 30, 31]


def literal_loss(lm: LanguageModel, embedded: Tensor, target: list[int]) -> float:
    """Of one text given by its embeddings ``[T, D]``: no cache, a softmax by hand over what may be generated."""
    table = lm.model.get_input_embeddings().weight
    total = 0.0
    for place, token in enumerate(target):
        before = torch.cat([embedded, table[target[:place]]])
        logits = lm.model(inputs_embeds=before[None]).logits[0, -1, : lm.drawn_ids]
        weights = torch.exp(logits - logits.max())
        total -= float(torch.log(weights[token] / weights.sum()))
    return total / len(target)


def of_ids(lm: LanguageModel, suffix: list[int]) -> float:
    return literal_loss(lm, lm.model.get_input_embeddings().weight[[*CONTEXT, *suffix]], TARGET)


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return tiny_lm(request.param)


def test_the_loss_is_the_literal_one(lm: LanguageModel) -> None:
    _, loss = SuffixLoss(lm, CONTEXT, TARGET).gradient(SUFFIX)
    assert loss == pytest.approx(of_ids(lm, SUFFIX), abs=1e-12)


def test_the_gradient_is_the_finite_difference(lm: LanguageModel) -> None:
    """A step h of e_i along E_v, by a stencil whose error is h^8."""
    gradient, _ = SuffixLoss(lm, CONTEXT, TARGET).gradient(SUFFIX)
    assert gradient.shape == (3, lm.vocab_size)
    table = lm.model.get_input_embeddings().weight
    for place, token in [(0, 5), (0, 200), (1, 70), (2, 33), (2, 250)]:

        def moved(step: float, place: int = place, token: int = token) -> float:
            embedded = table[[*CONTEXT, *SUFFIX]].clone()
            embedded[len(CONTEXT) + place] += step * table[token]
            return literal_loss(lm, embedded, TARGET)

        assert float(gradient[place, token]) == pytest.approx(slope(moved), abs=1e-10)


@pytest.mark.parametrize("rows", [None, 1, 7])
def test_all_single_swaps_are_those_of_brute_force(rows: int | None) -> None:
    lm = tiny_lm()
    tokens = [5, 33, 70, 111, 250, 257]
    swapped = [[*SUFFIX[:place], token, *SUFFIX[place + 1 :]] for place in range(len(SUFFIX)) for token in tokens]
    losses, exact = SuffixLoss(lm, CONTEXT, TARGET, rows).losses(torch.tensor(swapped))
    assert losses.tolist() == pytest.approx([of_ids(lm, one) for one in swapped], abs=1e-10)
    assert not exact.any()


def test_the_same_candidates_again_give_the_same_loss(lm: LanguageModel) -> None:
    """The context's cache is copied: it would grow by the first batch."""
    loss = SuffixLoss(lm, CONTEXT, TARGET, 2)
    some = torch.tensor([SUFFIX, SUFFIX[::-1], SUFFIX])
    first, again = loss.losses(some)[0], loss.losses(some)[0]
    assert first.tolist() == again.tolist()
    assert float(first[0]) == pytest.approx(of_ids(lm, SUFFIX), abs=1e-10)


def test_exact_is_what_the_model_says_greedily(lm: LanguageModel) -> None:
    said: list[int] = []
    for _ in range(4):
        ids = torch.tensor([[*CONTEXT, *SUFFIX, *said]])
        said.append(int(lm.model(input_ids=ids).logits[0, -1, : lm.drawn_ids].argmax()))
    other = [*said[:3], (said[3] + 1) % lm.vocab_size]
    assert SuffixLoss(lm, CONTEXT, said).losses(torch.tensor([SUFFIX]))[1].tolist() == [True]
    assert SuffixLoss(lm, CONTEXT, other).losses(torch.tensor([SUFFIX]))[1].tolist() == [False]


def test_rows_that_pad_the_embedding_are_no_tokens(lm: LanguageModel) -> None:
    assert len(token_embeddings(lm)) == lm.vocab_size < lm.model.get_input_embeddings().weight.shape[0]


def test_a_scaled_embedding_is_read_as_it_runs() -> None:
    lm = tiny_lm()
    embedding = lm.model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda module, inputs, output: 3.0 * output)
    gradient, loss = SuffixLoss(lm, CONTEXT, TARGET).gradient(SUFFIX)
    handle.remove()
    embedding.weight.data *= 3.0
    scaled, same = SuffixLoss(lm, CONTEXT, TARGET).gradient(SUFFIX)
    assert loss == pytest.approx(same, abs=1e-12) and torch.allclose(gradient, scaled, atol=1e-12, rtol=0)


def test_a_model_with_a_nan_is_named() -> None:
    lm = tiny_lm()
    lm.model.get_output_embeddings().weight.data[5] = float("nan")
    with pytest.raises(NumericsError, match="not finite"):
        SuffixLoss(lm, CONTEXT, TARGET).losses(torch.tensor([SUFFIX]))
