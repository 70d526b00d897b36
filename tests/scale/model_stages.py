"""What surrounds influence, on the pretended GPU: generation, classifiers, the objectives, the patch's loss."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ifguide.generation.draw import prompt_contexts, sample_continuations
from ifguide.generation.options import Sampling
from ifguide.models.language_model import load_language_model
from ifguide.objectives.base import ONCE, Batch, Objective
from ifguide.objectives.keys import ObjectiveKeys
from ifguide.objectives.pairwise import outputs_of, sequence_log_probs
from ifguide.objectives.registry import OBJECTIVES
from ifguide.penalties import coding
from ifguide.penalties.keys import PenaltyKeys
from ifguide.scorers.base import Scorer
from ifguide.scorers.detoxify import DetoxifyScorer
from ifguide.scorers.huggingface import HuggingFaceScorer, ToxigenScorer
from ifguide_patch.training import loss as patch_loss
from tests.objectives import tiny
from tests.scale.stage import Stage
from tests.support.tiny_models import byte_tokenizer, tiny_neox
from tests.support.tiny_scorers import TEXT, save_causal, save_detoxify, save_toxigen

NEW_TOKENS, SAMPLES = 8, 5
PROMPTS = ["you are", "hello there my", "a", "the tree and"]
MICRO_BATCHES = 2


def stages(root: Path) -> list[Stage]:
    patch = Stage("patch's loss", lambda device: partial(_patch, device), 3 * 4)
    return [*_generation(root / "lm"), *_scorers(root), *_objectives(), patch]


def _generation(folder: Path) -> list[Stage]:
    tiny_neox().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)

    def stage(name: str, **options: Any) -> Stage:
        def make(device: str) -> Callable[[], Tensor]:
            lm = load_language_model(folder, device=device)
            contexts = prompt_contexts(lm, PROMPTS, NEW_TOKENS)
            sampling = Sampling(SAMPLES, NEW_TOKENS, **options)

            def work() -> Tensor:
                drawn = sample_continuations(lm, contexts, sampling)
                return torch.tensor([[float(sum(ids)) for ids in rows] for rows in drawn])

            return work

        return Stage(f"generation, {name}", make, NEW_TOKENS)

    return [stage("nucleus", top_p=0.9), stage("whole distribution", top_p=1.0), stage("cold", temperature=0.5)]


def _scorers(root: Path) -> list[Stage]:
    save_detoxify(root / "detoxify", "original")
    save_toxigen(root / "toxigen")
    save_causal(root / "causal")

    def stage(name: str, make: Callable[[str], Scorer]) -> Stage:
        def work(scorer: Scorer) -> Tensor:
            return torch.from_numpy(np.stack(list(scorer.score(TEXT * 2).values())))

        return Stage(f"classifier, {name}", lambda device: partial(work, make(device)))

    return [
        stage("detoxify", lambda device: DetoxifyScorer("original", root / "detoxify", device=device)),
        stage("toxigen", lambda device: ToxigenScorer(str(root / "toxigen"), device=device)),
        stage("causal", lambda device: HuggingFaceScorer(root / "causal", "toxic", device=device)),
    ]


def _objectives() -> list[Stage]:
    return [
        _objective("lm"),
        _objective("lm", penalty_form="clipped", penalty_clip=3.0),
        _objective("lm", penalty_form="unlikelihood"),
        _objective("dpo"),
        _objective("npo"),
        _objective("rmu"),
        _objective("repo", repo_schedule="constant", repo_warmup_iters=1),
        _objective("repo", repo_labels="mask", repo_warmup_iters=0, repo_discriminator="mlp"),
    ]


def _objective(kind: str, **keys: Any) -> Stage:
    """Two iterations of an objective as the trainer calls it: losses, sums and the gradient of the last."""
    config = SimpleNamespace(
        **{**vars(ObjectiveKeys()), **vars(PenaltyKeys()), "objective": kind, "num_layers": tiny.LAYERS, **keys}
    )

    def make(device: str) -> Callable[[], Tensor]:
        model = tiny.model().to(device)
        reference = tiny.Copy(tiny.model(5))
        reference.model.to(device)
        objective = OBJECTIVES[kind](config, kind == "lm" or config.repo_labels == "mask")
        pairs = tiny.pairs()
        objective.start(
            tiny.run(
                device=device, micro_batches=MICRO_BATCHES, reference=reference, eod=0,
                log_probs=_log_probs(pairs) if objective.reference_use == ONCE else None,
                log_frequency=torch.linspace(0, 3, tiny.VOCAB) if objective.reads_frequency else None,
            )
        )  # fmt: skip

        def work() -> Tensor:
            found: list[Tensor] = []
            for iteration in (1, 2):
                batches = [Batch(tiny.text(seed, selected=0.3), pairs) for seed in range(MICRO_BATCHES)]
                found += _iteration(objective, model, batches, iteration, device)
            whole = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
            return torch.cat([*found, whole.to("cpu")])

        return work

    changed = "".join(f", {key} {value}" for key, value in keys.items())
    return Stage(f"objective {kind}{changed}", make, 2 * MICRO_BATCHES)


def _iteration(objective: Objective, model: Any, batches: list[Batch], iteration: int, device: str) -> Iterator[Tensor]:
    moved = [Batch(batch.text.to(device), batch.pairs and batch.pairs.to(device)) for batch in batches]
    objective.begin(moved, iteration)
    moves = iteration > objective.warmup_iters
    for batch in moved:
        with contextlib.nullcontext() if moves else torch.no_grad():
            loss, sums = objective.loss(model, batch, iteration)
        if moves:
            loss.backward()
        yield torch.cat([loss.detach().to("cpu", torch.float64)[None], sums.to("cpu")])
    objective.finish(iteration)


@torch.no_grad()
def _log_probs(pairs: Any) -> Tensor:
    """As the engine's reference makes them, on the CPU."""
    logits = outputs_of(tiny.model(5), pairs.tokens).logits
    return torch.stack(sequence_log_probs(logits, pairs.tokens, pairs.counts).chunk(2), dim=1).double()


def _patch(device: str) -> Tensor:
    """The patched cross-entropy inside a training step of each form, and its gradient."""

    def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view_as(targets)

    megatron = types.ModuleType("megatron")
    megatron.mpu = SimpleNamespace(vocab_parallel_cross_entropy=cross_entropy)  # type: ignore[attr-defined]
    draw = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    with mock.patch.dict(sys.modules, {"megatron": megatron}):
        for form, clip in (("ascent", None), ("clipped", 5.0), ("unlikelihood", None)):
            keys = {**vars(PenaltyKeys()), "penalty_form": form, "penalty_clip": clip, "penalty_lambda": 0.5}
            with patch_loss.training_step(SimpleNamespace(**keys, iteration=3)) as step:
                for _ in range(4):
                    logits = torch.randn(2, 8, 50, generator=draw).to(device).requires_grad_()
                    targets = torch.randint(50, (2, 8), generator=draw).to(device)
                    codes = (torch.rand(2, 8, generator=draw) < 0.3).to(torch.uint8) * 255
                    signed = coding.sign(torch.ones(2, 8), codes).to(device)
                    loss = patch_loss.cross_entropy(lambda *_, **__: None)(logits, (targets, signed))  # type: ignore[arg-type, return-value]
                    loss.backward()
                    found.append(_numbers(logits.grad))
                found.append(_numbers(step.sums))
    return torch.cat(found)


def _numbers(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.detach().to("cpu", torch.float64).flatten()
