"""Stages at realistic widths on the pretended GPU, for their peaks alone: two layers and four, nothing run on the CPU.

An eigendecomposition takes minutes of a processor at the width of a real model, so the fits are narrower than the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifguide.data.indexed import TokenDataset
from ifguide.influence.batches import collate
from ifguide.influence.curvature.job import fit_factors
from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import compute_directions
from ifguide.influence.options import Damping, FitOptions, Method
from ifguide.influence.passes.method import DTYPES, make_pass
from ifguide.influence.planning.live import BatchSize
from ifguide.influence.planning.memory import WASTED, Peak, direction_peak, fitting_peaks, pass_peak
from ifguide.influence.planning.shape import read_shape
from ifguide.influence.queries import make_query
from ifguide.models.tracked import ScoredModel, load_model
from tests.scale.stage import Stage
from tests.support.datasets import random_documents, write_tokens

VOCAB, ROWS, COLUMNS = 16384, 4, 128
WIDTH, HEADS = 768, 12
FITTED_WIDTH, FITTED_HEADS = 256, 4
LAYERS = (2, 4)


def stages(root: Path) -> list[Stage]:
    found = []
    for architecture in ("neox", "llama", "gpt2"):
        for layers in LAYERS if architecture == "neox" else LAYERS[:1]:
            folder = _save(root / f"{architecture}-{layers}", architecture, layers, WIDTH, HEADS)
            name = f"peak, {architecture}, {layers} layers"
            for way, method, directions in _ways(layers):
                found.append(_pass(f"{name}, {way}", folder, method, directions))
            found.append(_direction(f"{name}, direction", folder))
    dataset = write_tokens(root / "peaks_text_document", random_documents([COLUMNS] * ROWS))
    for layers in LAYERS:
        folder = _save(root / f"fitted-{layers}", "neox", layers, FITTED_WIDTH, FITTED_HEADS)
        for strategy, phase in (("ekfac", "second moments"), ("kfac", "covariances"), ("diagonal", "second moments")):
            name = f"peak, neox, {layers} layers, fit-factors {strategy}"
            found.append(_fit(name, root / f"{strategy}-{layers}", folder, dataset, strategy, phase))
    return found


def _ways(layers: int) -> Sequence[tuple[str, Method, int]]:
    few = [
        ("jvp", Method(method="jvp"), 1),
        ("difference", Method(method="difference", step=1e-3), 1),
        ("position", Method(attribution="position"), 1),
    ]
    more = [
        ("jvp, 2 directions", Method(method="jvp"), 2),
        ("jvp, bfloat16", Method(method="jvp", dtype="bfloat16"), 1),
        ("difference, 2 directions", Method(method="difference", step=1e-3), 2),
        ("position, 2 directions", Method(attribution="position"), 2),
    ]
    return few if layers > LAYERS[0] else few + more


def _save(folder: Path, architecture: str, layers: int, hidden: int, heads: int) -> Path:
    from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig

    from ifguide.data.text.tokenizers import build_tokenizer

    shared = {"vocab_size": VOCAB, "max_position_embeddings": COLUMNS, "bos_token_id": 0, "eos_token_id": 0}
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = {
        "neox": lambda: GPTNeoXConfig(**sizes, **shared, intermediate_size=4 * hidden, rotary_pct=0.25),
        "llama": lambda: LlamaConfig(**sizes, **shared, intermediate_size=4 * hidden, num_key_value_heads=heads // 4),
        "gpt2": lambda: GPT2Config(
            vocab_size=VOCAB, n_positions=COLUMNS, n_embd=hidden, n_layer=layers, n_head=heads, bos_token_id=0,
            eos_token_id=0, tie_word_embeddings=False,  # a parameter that moves to the pretended device is a new one
        ),
    }[architecture]()  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    build_tokenizer("CharLevelTokenizer", None).save_pretrained(folder)
    return folder


def _planned(peak: Peak) -> int:
    """Bytes of tensors: neither a context nor what an allocator wastes is there."""
    return peak.device_bytes - peak.device["CUDA context"] - peak.device.get(WASTED, 0)


def _batch() -> BatchSize:
    return BatchSize(ROWS, COLUMNS, "cuda")


def _pass(name: str, folder: Path, method: Method, directions: int) -> Stage:
    def make(device: str) -> Callable[[], torch.Tensor]:
        model = load_model(folder, DTYPES[method.dtype], device=device)
        scoring = make_pass(model, [_random(model) for _ in range(directions)], method)
        tokens = np.random.default_rng(0).integers(1, VOCAB, (ROWS, COLUMNS))
        batch = collate(list(tokens), list(tokens)).to(model.device)
        return lambda: scoring.scores(batch).to("cpu")

    return Stage(name, make, planned=lambda: _planned(pass_peak(read_shape(folder), method, directions, _batch())))


def _direction(name: str, folder: Path) -> Stage:
    queries = [make_query([1, 2], list(range(3, 3 + COLUMNS - 3)), 0)] * (ROWS // 2)

    def make(device: str) -> Callable[[], torch.Tensor]:
        model = load_model(folder, device=device)
        factors = Factors("identity", {name: {} for name in model.tracked}, {}, "")

        def work() -> torch.Tensor:
            (found,) = compute_directions(model, factors, [(queries, queries[:1])], Damping(), ROWS * COLUMNS)
            return next(iter(found.values()))

        return work

    def planned() -> int:
        positions = (len(queries) + 1) * COLUMNS
        return _planned(direction_peak(read_shape(folder), 1, "identity", _batch(), positions))

    return Stage(name, make, planned=planned)


def _fit(name: str, output: Path, folder: Path, dataset: TokenDataset, strategy: str, phase: str) -> Stage:
    def make(device: str) -> Callable[[], torch.Tensor]:
        options = FitOptions(strategy=strategy, batch_size=ROWS, seq_length=COLUMNS)
        return lambda: fit_factors(folder, dataset.prefix, output, options, quiet=True) and torch.ones(1)

    def planned() -> int:
        peaks = fitting_peaks(read_shape(folder), strategy, _batch(), 80 << 30)
        return max(_planned(peak) for peak in peaks)

    return Stage(name, make, planned=planned)


def _random(model: ScoredModel) -> dict[str, Any]:
    return {name: torch.randn(model.matrix_shape(name)) for name in model.tracked}
