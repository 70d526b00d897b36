"""REPO (arXiv 2602.23391): benign behaviour kept, toxic representations made those of benign text.

    theta descends  grad L_ret - λ grad L_adv        (and grad (M4) where masks are a penalty too)
    phi descends    grad L_adv                        its own Adam, never scaled by λ

L_adv is the discriminator's loss on the raw output of block M at the labelled tokens themselves; theta gets its
gradient through the reversal. L_ret is KL(r || model) or the cross-entropy, a mean over benign tokens. Labels come
from pairs (rejected 1, chosen 0) or from a penalty mask (selected 1, matched unselected 0).

Shapes: R rows, P tokens, n labelled tokens, H width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifguide.objectives.base import EACH_STEP, NEVER, Batch, Objective, Outputs, Run, TokenBatch
from ifguide.objectives.cross_entropy import label_losses
from ifguide.objectives.discriminator import (
    Discriminator,
    DiscriminatorTraining,
    GradientReversal,
    adversarial_loss,
    confusion_loss,
    dann_weight,
)
from ifguide.objectives.matching import matched
from ifguide.objectives.pairwise import kl_at, losses_at, outputs_of, pairs_of, whole_counts
from ifguide.objectives.penalised import NUM_SUMS, Penalised, reported

KL, CE, NONE = "kl", "ce", "none"
MASK, DANN = "mask", "dann"
_OWN_SUMS = 10


class REPOOptions(NamedTuple):
    """The settled keys of REPO; each is documented at its YAML key ``repo_*``."""

    weight: float
    schedule: str
    layer: int
    retain: str
    labels: str
    detach_benign: bool
    confusion: bool
    discriminator: str
    discriminator_lr: float
    discriminator_clip: float
    warmup_iters: int


class Labels(NamedTuple):
    """Which tokens of the rows of a micro-batch have a class, and which predictions are retained.

    Attributes:
        toxic, benign: bool[R, P], of the tokens themselves.
        retain: bool[K, P], of the predictions of the first K rows: the chosen texts, or all of a packed text.
        following: int64[K, P], what is predicted there.
    """

    toxic: Tensor
    benign: Tensor
    retain: Tensor
    following: Tensor


class REPO(Objective):
    """Logs ``objective``, ``adversarial`` (L_adv), ``discriminator_accuracy`` (mean of both classes), ``retain``, and
    with a penalty what (M4) logs."""

    name = "repo"

    def __init__(self, options: REPOOptions, penalty: Penalised | None):
        """
        Args:
            penalty: (M4), where it is part of the objective.
        """
        self._options, self._penalty = options, penalty
        self._on_mask = options.labels == MASK
        self.num_sums = _OWN_SUMS + NUM_SUMS
        self.reads_pairs = not self._on_mask
        self.reads_frequency = self._on_mask
        self.reference_use = EACH_STEP if options.retain == KL else NEVER
        self.warmup_iters = options.warmup_iters
        self._counts, self._retained = (1.0, 1.0), 1.0
        self._labels: deque[Labels] = deque()

    def start(self, run: Run) -> None:
        options = self._options
        self._run = run
        module = Discriminator(run.hidden_size, options.discriminator, run.seed).to(run.device)
        self.training = DiscriminatorTraining(module, options.discriminator_lr, options.discriminator_clip)

    def state(self) -> dict[str, Any]:
        return self.training.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.training.restore(state)

    def weight_at(self, iteration: int) -> float:
        """λ of an iteration; 0 in the warm-up."""
        options, warmup = self._options, self.warmup_iters
        if iteration <= warmup:
            return 0.0
        if options.schedule != DANN:
            return options.weight
        return options.weight * dann_weight(min(1.0, (iteration - warmup) / max(self._run.train_iters - warmup, 1)))

    def begin(self, batches: Sequence[Batch], iteration: int) -> None:
        """Label the step's tokens and count each class over all of it: the losses are sums over these counts."""
        self._labels = deque(self._label(batch) for batch in batches)
        own = [
            torch.stack([labels.toxic.sum(), labels.benign.sum(), labels.retain.sum()]).double()
            for labels in self._labels
        ]
        toxic, benign, retained = whole_counts(list(torch.stack(own).sum(0)), self._run.device)
        self._counts, self._retained = (toxic, benign), max(retained, 1.0)

    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        """Called in the order of the batches of `begin`."""
        options, run = self._options, self._run
        labels = self._labels.popleft()
        if self._on_mask:
            tokens = batch.text.tokens
            outputs = outputs_of(model, tokens, options.layer)
            hidden = _hidden(outputs)
        else:
            # chosen and rejected apart, so that the reference's pass over the chosen ones has the model's shapes: at
            # θ = r the two are then equal to the bit, and Adam has no rounding noise to blow up to full steps
            tokens, rejected = pairs_of(batch).tokens.chunk(2)
            outputs = outputs_of(model, tokens, options.layer)
            hidden = torch.cat([_hidden(outputs), _hidden(outputs_of(model, rejected, options.layer))])
        terms: list[Tensor] = []
        sums = torch.zeros(self.num_sums, dtype=torch.float64, device=tokens.device)
        if self._penalty is not None:
            logits = outputs.logits if self._on_mask else outputs_of(model, batch.text.tokens).logits
            step = iteration - self.warmup_iters
            loss, sums[_OWN_SUMS:] = self._penalty.text_loss(label_losses(logits, batch.text), batch.text, step)
            terms.append(loss)
        if options.retain != NONE:
            retain = self._retain(outputs.logits, tokens, labels).sum()
            sums[6:8] = torch.stack([retain.detach(), labels.retain.sum()])
            terms.append(retain * (run.micro_batches / self._retained))
        adversarial, value = self._adversarial(hidden, labels, self.weight_at(iteration), sums)
        whole = torch.stack([value, *(term.detach().double() for term in terms)]).sum()
        sums[8:10] = torch.stack([whole / run.micro_batches, torch.full_like(whole, 1 / run.micro_batches)])
        terms += [] if adversarial is None else [adversarial]
        return sum(terms[1:], terms[0]) if terms else whole, sums

    def finish(self, iteration: int) -> None:
        """A step of the discriminator, as the model takes its own: both on the parameters of before."""
        self.training.step()

    def report(self, sums: Tensor) -> dict[str, float]:
        toxic, toxic_count, benign, benign_count, right_toxic, right_benign = sums[:6].tolist()
        retain, retained, objective, steps = sums[6:10].tolist()
        toxic_count, benign_count = max(toxic_count, 1.0), max(benign_count, 1.0)
        report = {} if self._penalty is None else reported(sums[_OWN_SUMS:])
        report["objective"] = objective / max(steps, 1e-9)
        report["adversarial"] = -0.5 * (toxic / toxic_count + benign / benign_count)
        report["discriminator_accuracy"] = 0.5 * (right_toxic / toxic_count + right_benign / benign_count)
        return report | ({"retain": retain / max(retained, 1.0)} if self._options.retain != NONE else {})

    def _label(self, batch: Batch) -> Labels:
        if self._on_mask:
            return _labels_of_text(batch.text, self._run)
        pairs = pairs_of(batch)
        half = len(pairs.numbers)
        benign = pairs.counts.clone()
        benign[half:] = False
        chosen, counts = pairs.tokens[:half], pairs.counts[:half]
        return Labels(pairs.toxic, benign, _shifted(counts), _shifted(chosen))

    def _retain(self, logits: Tensor, tokens: Tensor, labels: Labels) -> Tensor:
        if self._options.retain == CE:
            return losses_at(logits, labels.following, labels.retain)
        assert self._run.reference is not None
        return kl_at(logits, self._run.reference.outputs(tokens).logits, labels.retain)

    def _adversarial(self, hidden: Tensor, labels: Labels, weight: float, sums: Tensor) -> tuple[Tensor | None, Tensor]:
        """Add phi's gradient and the sums; return theta's term (None at λ = 0), and what it adds to the objective."""
        options, module = self._options, self.training.module
        chosen = labels.toxic | labels.benign
        states, toxic = hidden[chosen], labels.toxic[chosen]
        with torch.enable_grad():  # the model has no gradient in the warm-up, the discriminator has
            z = module(states.detach())
            loss = adversarial_loss(z, toxic, self._counts)
            self.training.add(loss)
        z = z.detach()
        _note(sums, z, toxic)
        if not weight:
            return None, torch.zeros((), dtype=torch.float64, device=hidden.device)
        moving = torch.where(toxic[:, None], states, states.detach()) if options.detach_benign else states
        frozen = {name: parameter.detach() for name, parameter in module.named_parameters()}
        if options.confusion:
            term = weight * confusion_loss(torch.func.functional_call(module, frozen, (moving,)), toxic, self._counts)
            value = term.detach()
        else:
            reversed_ = GradientReversal.apply(moving, weight)
            term = adversarial_loss(torch.func.functional_call(module, frozen, (reversed_,)), toxic, self._counts)
            value = -weight * term.detach()
        return term * self._run.micro_batches, value.double() * self._run.micro_batches


def _hidden(outputs: Outputs) -> Tensor:
    assert outputs.hidden is not None
    return outputs.hidden


def _labels_of_text(text: TokenBatch, run: Run) -> Labels:
    """Of packed text with penalty codes; a code stands where its token is a label, one place before the token."""
    counts = text.loss_mask > 0
    selected = counts & (text.codes > 0)
    toxic, allowed = _unshifted(selected), _unshifted(counts & ~selected)
    assert run.log_frequency is not None
    frequency = run.log_frequency.numpy()
    rows = zip(text.tokens.cpu().numpy(), toxic.cpu().numpy(), allowed.cpu().numpy())
    benign = torch.stack([torch.from_numpy(matched(*row, frequency, run.eod)) for row in rows])
    return Labels(toxic, benign.to(toxic.device), counts & ~selected, text.labels)


def _note(sums: Tensor, z: Tensor, toxic: Tensor) -> None:
    """Into ``sums``: for each class the sum of its log-probabilities, its tokens, and those on the right side."""
    log_toxic = torch.nn.functional.logsigmoid(z).double()
    log_benign = torch.nn.functional.logsigmoid(-z).double()
    right_toxic, right_benign = ((z > 0) & toxic).sum(), ((z <= 0) & ~toxic).sum()
    values = [(log_toxic * toxic).sum(), toxic.sum(), (log_benign * ~toxic).sum(), (~toxic).sum()]
    sums[:6] = torch.stack([value.double() for value in (*values, right_toxic, right_benign)])


def _shifted(values: Tensor) -> Tensor:
    """values[R, P] of tokens -> of the predictions of them; the last position predicts nothing."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)


def _unshifted(values: Tensor) -> Tensor:
    """values[R, P] of predictions -> of the tokens that they predict; what the last one predicts is no input."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)
