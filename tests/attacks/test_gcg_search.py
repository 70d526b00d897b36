"""Candidates can be typed, and the search takes the best of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.attacks.gcg import search as module
from ifguide.attacks.gcg.candidates import alphabet, lowest, random_suffix, survivors, swaps
from ifguide.attacks.gcg.job import exact_curve
from ifguide.attacks.gcg.loss import SuffixLoss
from ifguide.attacks.gcg.search import attack, best_of
from ifguide.attacks.options import Gcg
from ifguide.models.language_model import LanguageModel
from tests.attacks.conftest import tiny_lm

PROMPT = "a mat"
OPTIONS = Gcg(targets="", suffix_tokens=4, steps=5, width=24, top_k=16, restarts=1)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture(scope="module")
def allowed(lm: LanguageModel) -> torch.Tensor:
    return alphabet(lm)


def named(lm: LanguageModel, token: str) -> int:
    index = lm.reader.tokenizer.token_id(token)
    assert index is not None
    return index


def test_the_alphabet_is_printable_ascii_without_what_ends_a_text(lm: LanguageModel, allowed: torch.Tensor) -> None:
    texts = {lm.reader.token_bytes(index).decode("latin-1") for index in allowed.nonzero()[:, 0].tolist()}
    assert texts == {chr(code) for code in range(0x20, 0x7F)} | {" cat", " mat", "at", " c", " m"}
    assert not allowed[lm.eod]
    assert lm.reader.encode("é")[0] not in alphabet(lm, any_token=True).nonzero()[:, 0].tolist(), "half a character"


def test_a_suffix_that_is_read_otherwise_does_not_survive(lm: LanguageModel) -> None:
    survives = survivors(lm, "a")
    space, c, at, cat = (named(lm, token) for token in ("Ġ", "c", "at", "Ġcat"))
    assert survives([[space, c, at], [cat], [c, at], [at, space]]) == [False, True, True, True]
    # the first token joins the prompt's last one
    assert survivors(lm, "a ")([[c, at], [named(lm, "x")]]) == [False, True]


def test_random_suffixes_and_swaps_survive(lm: LanguageModel, allowed: torch.Tensor) -> None:
    survives = survivors(lm, PROMPT)
    start = random_suffix(allowed, 6, survives, np.random.default_rng(0))
    assert len(start) == 6 and survives([start]) == [True]
    assert start == random_suffix(allowed, 6, survives, np.random.default_rng(0))
    gradient = torch.randn(6, lm.vocab_size, generator=torch.Generator().manual_seed(1))
    found = swaps(gradient, start, allowed, 8, 20, survives, np.random.default_rng(2)).tolist()
    top = lowest(gradient, allowed, 8).tolist()
    assert len(found) == 20 == len(set(map(tuple, found))) and all(survives(found))
    for one in found:
        (place,) = [place for place in range(6) if one[place] != start[place]]
        assert one[place] in top[place]


def test_the_tokens_of_a_position_are_those_of_the_lowest_gradient(allowed: torch.Tensor) -> None:
    gradient = torch.randn(2, len(allowed), generator=torch.Generator().manual_seed(3))
    for row, top in zip(gradient, lowest(gradient, allowed, 5)):
        order = sorted(allowed.nonzero()[:, 0].tolist(), key=lambda token: float(row[token]))
        assert top.tolist() == order[:5]


def test_a_step_over_all_swaps_takes_the_best_of_brute_force(lm: LanguageModel, allowed: torch.Tensor) -> None:
    context, target = lm.reader.prompt(PROMPT), lm.reader.encode("dog")
    survives, loss = survivors(lm, PROMPT), SuffixLoss(lm, context, target)
    start = random_suffix(allowed, 2, survives, np.random.default_rng(4))
    every = [
        [*start[:place], token, *start[place + 1 :]]
        for place in range(2) for token in allowed.nonzero()[:, 0].tolist() if token != start[place]
    ]  # fmt: skip
    every = [one for one, fits in zip(every, survives(every)) if fits]

    def literal(suffix: list[int]) -> float:
        ids = torch.tensor([[*context, *suffix, *target]])
        log_p = lm.model(input_ids=ids).logits[0, :, : lm.drawn_ids].log_softmax(-1)
        first = len(context) + len(suffix)
        return -sum(float(log_p[first + k - 1, token]) for k, token in enumerate(target)) / len(target)

    losses = [literal(one) for one in every]
    found, value, exact = best_of(loss, torch.tensor(every))
    assert value == pytest.approx(min(losses), abs=1e-10) and not exact
    assert losses[every.index(found)] == min(losses)
    options = Gcg(targets="", suffix_tokens=2, steps=1, width=100_000, top_k=1000, restarts=1)
    made = attack(loss, allowed, survives, options, np.random.default_rng(4))
    assert made.start == start and made.suffix == found and made.tried == len(every)


class Scripted:
    """Losses by the script: each call gives the next (loss, exact)."""

    def __init__(self, script: list[tuple[float, bool]], vocabulary: int):
        self.script, self.vocabulary = iter(script), vocabulary

    def gradient(self, suffix: list[int]) -> tuple[torch.Tensor, float]:
        return torch.zeros(len(suffix), self.vocabulary), 0.0

    def losses(self, suffixes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, exact = next(self.script)
        return torch.full((len(suffixes),), value), torch.full((len(suffixes),), exact)


def scripted(script: list[tuple[float, bool]], allowed: torch.Tensor, lm: LanguageModel) -> module.Attempt:
    loss: object = Scripted(script, lm.vocab_size)
    return attack(loss, allowed, survivors(lm, PROMPT), OPTIONS, np.random.default_rng(0))  # type: ignore[arg-type]


def test_it_goes_on_with_a_worse_one_and_keeps_the_best(lm: LanguageModel, allowed: torch.Tensor) -> None:
    made = scripted([(3.0, False), (2.0, False), (5.0, False), (2.5, False), (4.0, False), (3.0, False)], allowed, lm)
    assert made.losses == [3.0, 2.0, 5.0, 2.5, 4.0, 3.0]
    assert (made.loss, made.start_loss, made.steps, made.exact) == (2.0, 3.0, 5, False)


def test_it_ends_with_the_first_exact_one(lm: LanguageModel, allowed: torch.Tensor) -> None:
    made = scripted([(3.0, False), (2.0, False), (2.5, True)], allowed, lm)
    assert (made.loss, made.steps, made.exact) == (2.5, 2, True), "an exact one counts more than a lower loss"
    made = scripted([(3.0, True)], allowed, lm)
    assert made.exact and made.steps == 0 and made.suffix == made.start


def test_of_exact_candidates_the_lowest_is_taken(lm: LanguageModel) -> None:
    class Fixed:
        def losses(self, suffixes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([1.0, 4.0, 3.0]), torch.tensor([False, True, True])

    loss: object = Fixed()
    assert best_of(loss, torch.tensor([[1], [2], [3]])) == ([3], 3.0, True)  # type: ignore[arg-type]


def test_steps_of_restarts_count_one_after_the_other() -> None:
    def tried(*steps: int, exact: bool) -> list[dict]:
        return [{"steps": count, "exact": exact and place == len(steps) - 1} for place, count in enumerate(steps)]

    attempts = [tried(3, exact=True), tried(10, 4, exact=True), tried(10, 10, exact=False), tried(0, exact=True)]
    assert exact_curve(attempts, 20) == [[0, 0.25], [3, 0.5], [14, 0.75], [20, 0.75]]
