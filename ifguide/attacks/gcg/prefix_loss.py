"""The loss of one prefix for several prompts, with terms on hidden states.

    L(s) = 1/N Σ_i [ CE_i + w_s D_i + w_a A_i ] + w_f F + w_r R
    CE_i = mean over the forced tokens of max(-log p(t_k | ...), floor)
    D_i  = mean over layers l and matched tokens t of |h_lt - h°_lt|         h° the reference's, after the same text
    A_i  = mean over the same of 1 - cos(h_lt, h⁻_lt)                        h⁻ the reference's, without the prefix
    F    = mean over the prefix's tokens of -log p(s_j | EOD, s_<j)
    R    = share of the prefix's tokens that stood in it before

h_l is what block l gives, before the final norm, at the token itself. A completion of no more than the forced tokens
has its states matched there too. The gradient is that of L without R with respect to the one-hot rows of s, of both
models and of F's labels; R counts where candidates are compared.

Shapes: N prompts, S tokens of the prefix, V of the tokenizer, B candidates, M matched tokens, Y layers, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ifguide.attacks.gcg.loss import finite, log_probabilities, token_embeddings
from ifguide.attacks.options import Enhanced
from ifguide.errors import InputError, MismatchError
from ifguide.models.language_model import LanguageModel


@dataclass(frozen=True)
class Case:
    """A prompt and what the model is to say after it.

    Attributes:
        prompt: its ids, without what a text starts with; never empty.
        target: forced and matched ids.
        forced: how many of them are forced.
    """

    prompt: list[int]
    target: list[int]
    forced: int

    @property
    def matched(self) -> slice:
        """Which of the target's tokens have their states matched."""
        return slice(self.forced if len(self.target) > self.forced else 0, len(self.target))


def compared_layers(asked: Sequence[int], layers: int) -> list[int]:
    """The blocks whose states are compared, from 1.

    Raises:
        InputError: a block that the model does not have, or its last one, whose state is only seen behind the norm.
    """
    chosen = sorted(set(asked)) or list(range(max(1, layers // 3), min(2 * layers // 3, layers - 1) + 1))
    if not chosen or chosen[-1] >= layers:
        raise InputError(
            f"--layers {' '.join(map(str, chosen))}: the model has {layers} blocks; take 1 to {layers - 1}"
        )
    return chosen


class PrefixLoss:
    """L of any prefix.

    Args:
        lm: the model under attack.
        reference: whose states are imitated; None leaves out D and A.
        cases: N of them.
        options: floor, weights and layers.
        batch_size: candidates at once.

    Raises:
        MismatchError: the reference has another tokenizer, number of blocks or width.
    """

    def __init__(
        self,
        lm: LanguageModel,
        reference: LanguageModel | None,
        cases: Sequence[Case],
        options: Enhanced,
        batch_size: int | None = None,
    ):
        self._lm, self._cases, self._options, self._rows = lm, cases, options, batch_size or options.children
        self._reference = reference if options.state_weight or options.angle_weight else None
        self._start = lm.reader.prompt("")
        self._table = token_embeddings(lm)
        config = lm.model.config
        if self._reference is not None:
            other = self._reference.model.config
            same = (config.num_hidden_layers, config.hidden_size) == (other.num_hidden_layers, other.hidden_size)
            if not same or lm.reader.fingerprint != self._reference.reader.fingerprint:
                raise MismatchError(
                    f"model {lm.name} and the reference {self._reference.name} differ in tokenizer, blocks or width; "
                    "give a --reference that the model was made from, or set --state-weight 0 and --angle-weight 0"
                )
            self._layers = compared_layers(options.layers, config.num_hidden_layers)
            self._reference_table = token_embeddings(self._reference)
            with torch.no_grad():
                empty = self._table.new_empty(1, 0, self._reference_table.shape[1])
                self._bare = [self._run(self._reference, empty, case)[1] for case in cases]

    def gradient(self, prefix: Sequence[int]) -> Tensor:
        """∂(L - w_r R)/∂(one-hot rows) ``[S, V]``.

        Raises:
            NumericsError: it is not finite.
        """
        with torch.enable_grad():
            ids = torch.tensor(list(prefix), device=self._lm.device)
            rows = torch.nn.functional.one_hot(ids, len(self._table)).to(self._table.dtype).requires_grad_(True)
            loss = self._smooth(rows[None], None)[0]
            (slope,) = torch.autograd.grad(loss, rows)
        return finite(slope, self._lm)

    @torch.no_grad()
    def losses(self, prefixes: Tensor) -> Tensor:
        """L ``[B]`` of ``prefixes[B, S]``.

        Raises:
            NumericsError: one is not finite.
        """
        prefixes = prefixes.to(self._lm.device)
        smooth = torch.cat([self._smooth(None, part) for part in prefixes.split(self._rows)])
        return finite(smooth + self._options.repetition_weight * repetition(prefixes).to(smooth), self._lm)

    @torch.no_grad()
    def next_tokens(self, prefix: Sequence[int]) -> Tensor:
        """log p ``[S + 1, V]`` of the token at each place of ``prefix``, and behind it; uniform at the first where
        nothing stands before."""
        start = [*self._start, *prefix]
        vocabulary = len(self._table)
        if not start:
            return self._table.new_zeros(1, vocabulary)
        logits = self._lm.model(input_ids=torch.tensor([start], device=self._lm.device), use_cache=False).logits
        log_p = log_probabilities(self._lm, logits)[0, :, :vocabulary]
        first = log_p[len(self._start) - 1 :] if self._start else torch.cat([torch.zeros_like(log_p[:1]), log_p])
        return first

    def _smooth(self, rows: Tensor | None, ids: Tensor | None) -> Tensor:
        """L - w_r R ``[B]`` of one-hot ``rows[B, S, V]`` or of ``ids[B, S]``."""
        o = self._options
        own = self._embedded(self._table, rows, ids)
        total = own.new_zeros(len(own), dtype=torch.float64 if own.dtype == torch.float64 else torch.float32)
        fluency = total
        for number, case in enumerate(self._cases):
            log_p, states = self._run(self._lm, own, case)
            target = torch.tensor(case.target, device=self._lm.device)
            at = len(log_p[0]) - len(target)
            forced = log_p[:, at - 1 : at - 1 + case.forced]
            said = forced.gather(2, target[: case.forced].expand(len(own), -1)[..., None])[..., 0]
            total = total + (-said).clamp(min=o.ce_floor).mean(dim=1)
            if number == 0 and o.fluency_weight:
                fluency = self._fluency(log_p, rows, ids)
            if self._reference is not None:
                total = total + self._state_terms(states, rows, ids, number, case)
        return total / len(self._cases) + o.fluency_weight * fluency

    def _state_terms(self, states: Tensor, rows: Tensor | None, ids: Tensor | None, number: int, case: Case) -> Tensor:
        """w_s D_i + w_a A_i ``[B]`` of ``states[B, Y, M, D]``."""
        o = self._options
        found = states.new_zeros(len(states))
        if o.state_weight:
            assert self._reference is not None
            other = self._embedded(self._reference_table, rows, ids)
            imitated = self._run(self._reference, other, case)[1]
            found = found + o.state_weight * (states - imitated).norm(dim=-1).mean(dim=(1, 2))
        if o.angle_weight:
            cosine = torch.nn.functional.cosine_similarity(states, self._bare[number], dim=-1)
            found = found + o.angle_weight * (1 - cosine).mean(dim=(1, 2))
        return found

    def _fluency(self, log_p: Tensor, rows: Tensor | None, ids: Tensor | None) -> Tensor:
        """F ``[B]``; of a text that nothing stands before, without its first token."""
        length = (rows if rows is not None else ids).shape[1]  # type: ignore[union-attr]
        skipped = 0 if self._start else 1
        before = log_p[:, len(self._start) - 1 + skipped : len(self._start) + length - 1]
        if rows is not None:
            return -(rows[:, skipped:] * before[..., : rows.shape[2]]).sum(dim=2).mean(dim=1)
        assert ids is not None
        return -before.gather(2, ids[:, skipped:, None])[..., 0].mean(dim=1)

    def _run(self, lm: LanguageModel, prefix: Tensor, case: Case) -> tuple[Tensor, Tensor]:
        """log p ``[B, places, drawn_ids]`` of one text for each of ``prefix[B, S, D]``, and the matched states
        ``[B, Y, M, D]`` (empty where they are not compared)."""
        embedding = lm.model.get_input_embeddings()

        def fixed(ids: Sequence[int]) -> Tensor:
            made = embedding(torch.tensor([list(ids)], dtype=torch.int64, device=lm.device)).detach()
            return made.expand(len(prefix), -1, -1)

        embedded = torch.cat([fixed(self._start), prefix, fixed([*case.prompt, *case.target])], dim=1)
        compares = self._reference is not None
        output: Any = lm.model(inputs_embeds=embedded, use_cache=False, output_hidden_states=compares)
        log_p = log_probabilities(lm, output.logits)
        if not compares:
            return log_p, log_p.new_empty(0)
        behind = embedded.shape[1] - len(case.target)
        places = slice(behind + case.matched.start, behind + case.matched.stop)
        return log_p, torch.stack([output.hidden_states[layer][:, places] for layer in self._layers], dim=1)

    @staticmethod
    def _embedded(table: Tensor, rows: Tensor | None, ids: Tensor | None) -> Tensor:
        """``[B, S, D]``."""
        if rows is not None:
            return rows.to(table) @ table
        assert ids is not None
        return table[ids]


def repetition(prefixes: Tensor) -> Tensor:
    """R ``[B]`` of ``prefixes[B, S]``."""
    same = prefixes[:, :, None] == prefixes[:, None, :]
    return same.tril(-1).any(dim=2).double().mean(dim=1)
