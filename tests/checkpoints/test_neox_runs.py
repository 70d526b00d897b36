"""A GPT-NeoX checkout trains and saves; the converted model must have the loss that NeoX itself computes, and NeoX must
load what is converted back. Needs GPT_NEOX_PATH."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from ifguide.checkpoints.check import TEXT
from ifguide.checkpoints.convert import TokenizerFiles, to_huggingface, to_neox
from tests.neox.corpora import write_corpus
from tests.neox.harness import Outcome, Scenario, run_scenarios, scenario

LOSS_TOLERANCE = 1e-4  # of the printed loss; what was seen is 5e-7

_LLAMA = {
    "norm": "rmsnorm", "rms_norm_epsilon": 1e-5, "activation": "swiglu", "intermediate_size": 144, "rotary_pct": 1.0,
    "gpt_j_residual": False,
}  # fmt: skip
STYLES: dict[str, dict[str, Any]] = {
    "pythia": {"bias_gelu_fusion": True},
    "sequential": {"gpt_j_residual": False, "rotary_emb_base": 500},
    "tied": {"gpt_j_tied": True, "no_weight_tying": False},
    "grouped": {
        **_LLAMA, "num_kv_heads": 2, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False, "mlp_multiple_of": 8,
        "no_weight_tying": False,
    },
    "llama": {**_LLAMA, "rotary_emb_base": 500000},
}  # fmt: skip
# of two processes; with one stage and one rank, they share the batch
LAYOUTS = {"t1p0": (1, 0), "t2p0": (2, 0), "t1p1": (1, 1), "t1p2": (1, 2), "t2p1": (2, 1)}
CASES = [(style, name) for style in STYLES for name in LAYOUTS]
# a large rate and little data: weights far from their start, biases far from zero
_TRAIN = {"optimizer": {"type": "Adam", "params": {"lr": 0.02, "betas": [0.9, 0.95]}}, "train_iters": 6}
_MEASURE = {
    "optimizer": {"type": "Adam", "params": {"lr": 0.0}}, "min_lr": 0.0, "weight_decay": 0.0, "train_iters": 1,
    "finetune": True, "extra_save_iters": None,
}  # fmt: skip


def parallel(layout: str) -> dict[str, int]:
    tensor, pipe = LAYOUTS[layout]
    return {"model_parallel_size": tensor, "pipe_parallel_size": pipe}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("neox-runs")


@pytest.fixture(scope="module")
def data(neox: Path, folder: Path) -> dict[str, Any]:
    corpus = [str(write_corpus(folder, "corpus"))]
    return {f"{split}_data_paths": corpus for split in ("train", "valid", "test")}


@pytest.fixture(scope="module")
def trained(neox: Path, folder: Path, data: dict[str, Any]) -> dict[tuple[str, str], Path]:
    """(style, layout) -> save folder of a short stock NeoX run."""
    saves = {(style, layout): folder / f"{style}-{layout}" for style, layout in CASES}
    runs = [
        scenario(save.name, data, STYLES[style], _TRAIN, parallel(layout), {"save": str(save), "checkpoint_factor": 6})
        for (style, layout), save in saves.items()
    ]
    run_scenarios(neox, folder / "train", runs, patched=False)
    return saves


@pytest.fixture(scope="module")
def exported(trained: dict[tuple[str, str], Path]) -> dict[tuple[str, str], Path]:
    """(style, layout) -> its conversion to Hugging Face, checked."""
    for save in trained.values():
        result = to_huggingface(save, save.with_suffix(".hf"), check_text=TEXT)
        assert result["check"]["passed"], save.name
    return {case: save.with_suffix(".hf") for case, save in trained.items()}


@pytest.fixture(scope="module")
def measured(
    neox: Path, folder: Path, data: dict[str, Any], trained: dict[tuple[str, str], Path],
    exported: dict[tuple[str, str], Path],
) -> dict[str, Outcome]:  # fmt: skip
    """One step of NeoX at rate 0: on every checkpoint as it was saved ("own-..."), and on every style's conversion in
    every layout, loaded by the YAML that comes with it ("back-...")."""
    runs = [
        scenario(f"own-{save.name}", data, STYLES[style], _MEASURE, parallel(layout), {"load": str(save)})
        for (style, layout), save in trained.items()
    ]
    for style, layout in CASES:
        back = folder / f"back-{style}-{layout}"
        tensor, pipe = LAYOUTS[layout]
        to_neox(exported[style, "t2p1"], back, tensor, pipe, 8, TokenizerFiles("CharLevelTokenizer"))
        shipped = yaml.safe_load((back / "neox.yml").read_text())
        zero = {"zero_optimization": {"stage": 1}} if layout == "t1p0" else {}
        runs.append(Scenario(back.name, scenario("", data, _MEASURE, shipped, zero).config))
    return run_scenarios(neox, folder / "measure", runs, patched=False)


def huggingface_loss(model: Path, outcome: Outcome) -> float:
    """Mean cross-entropy of the very tokens that NeoX was given."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    config = outcome.config
    shared = config["model_parallel_size"] * max(config["pipe_parallel_size"], 1)
    # ranks that share a model get the same batch, or none; two models share the step's batch
    batches = [rank["batches"][0] for rank in (outcome.ranks[:1] if shared == 2 else outcome.ranks)]
    tokens = torch.cat([batch for batch in batches if batch is not None]).long()
    with torch.no_grad():
        logits = loaded(tokens[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()


@pytest.mark.parametrize(("style", "layout"), CASES)
def test_the_converted_model_has_the_loss_that_neox_prints(
    measured: dict[str, Outcome], exported: dict[tuple[str, str], Path], style: str, layout: str
) -> None:
    outcome = measured[f"own-{style}-{layout}"]
    expected = outcome.series("lm_loss")[0]
    assert huggingface_loss(exported[style, layout], outcome) == pytest.approx(expected, abs=LOSS_TOLERANCE)


@pytest.mark.parametrize(("style", "layout"), CASES)
def test_neox_fine_tunes_from_a_converted_model_with_its_loss(
    measured: dict[str, Outcome], exported: dict[tuple[str, str], Path], style: str, layout: str
) -> None:
    outcome = measured[f"back-{style}-{layout}"]
    expected = huggingface_loss(exported[style, "t2p1"], outcome)
    assert outcome.series("lm_loss")[0] == pytest.approx(expected, abs=LOSS_TOLERANCE)
