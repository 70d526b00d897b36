"""Small fp64 models, batches of pairs and text, and a reference, for the objectives' equations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from ifguide.objectives.base import Batch, Objective, Outputs, PairBatch, Run, TokenBatch
from ifguide.objectives.pairwise import outputs_of

VOCAB, WIDTH, LAYERS = 23, 8, 3


def model(seed: int = 0) -> Any:
    """fp64, three layers, no dropout, weights large enough for uneven predictions."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, initializer_range=0.4,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config).double().train()


class Copy:
    """A reference: a frozen copy of a model."""

    def __init__(self, of: Any):
        self.model = copy.deepcopy(of).eval()

    @torch.no_grad()
    def outputs(self, tokens: Tensor, layer: int | None = None) -> Outputs:
        return outputs_of(self.model, tokens, layer)


def text(seed: int = 1, rows: int = 2, length: int = 24, selected: float = 0.0) -> TokenBatch:
    draw = torch.Generator().manual_seed(seed)
    stream = torch.randint(1, VOCAB, (rows, length + 1), generator=draw)
    codes = (torch.rand(rows, length, generator=draw) < selected).to(torch.uint8) * 255
    return TokenBatch(stream[:, :-1], stream[:, 1:], torch.ones(rows, length), codes)


def pairs(lengths: Sequence[tuple[int, int, int]] = ((2, 3, 4), (4, 1, 2), (1, 5, 2)), seed: int = 2) -> PairBatch:
    """A pair for each (tokens of the prompt, of chosen, of rejected)."""
    draw = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(1, VOCAB, (prompt,), generator=draw) for prompt, _, _ in lengths]
    longest = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in lengths)
    tokens = torch.zeros(2 * len(lengths), longest, dtype=torch.int64)
    counts = torch.zeros(tokens.shape, dtype=torch.bool)
    for kind in (1, 2):
        for number, sizes in enumerate(lengths):
            row, begin, size = (kind - 1) * len(lengths) + number, sizes[0], sizes[kind]
            tokens[row, :begin] = prompts[number]
            tokens[row, begin : begin + size] = torch.randint(1, VOCAB, (size,), generator=draw)
            counts[row, begin : begin + size] = True
    toxic = counts.clone()
    toxic[: len(lengths)] = False
    return PairBatch(tokens, counts, toxic, torch.arange(len(lengths)))


def literal_log_probs(of: Any, batch: PairBatch) -> Tensor:
    """[B, 2]: Σ_t log p(y_t | before), one text and one token at a time, without padding."""
    rows = []
    for tokens, counts in zip(batch.tokens, batch.counts):
        places = counts.nonzero()[:, 0].tolist()
        whole = tokens[None, : places[-1] + 1]
        chances = of(input_ids=whole).logits[0].log_softmax(-1)
        rows.append(sum(chances[place - 1, whole[0, place]] for place in places))
    return torch.stack(rows).view(2, -1).T


def run(**changes: Any) -> Run:
    facts = {"train_iters": 20, "micro_batches": 1, "num_layers": LAYERS, "hidden_size": WIDTH, "device": "cpu"}
    return Run(**{**facts, **changes})


def gradients(of: Any, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter; zeros where none arrives."""
    parameters = dict(of.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found)}


def step(objective: Objective, of: Any, batch: Batch, iteration: int = 1) -> tuple[Tensor, dict[str, float]]:
    """The loss of one micro-batch that is a whole step, and what is reported of it."""
    objective.begin([batch], iteration)
    loss, sums = objective.loss(of, batch, iteration)
    return loss, objective.report(sums)


def close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], rtol=1e-9, atol=1e-12, msg=name)
