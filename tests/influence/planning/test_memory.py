"""What a plan says that a scoring pass holds, against the bytes that live while it runs on shapes of true width."""

from __future__ import annotations

import pytest

from benchmarks.device_memory import ATTENTION, attention, count_pass, pieces_as_on_a_gpu, write_config
from ifguide.compat.transformers import register_attention
from ifguide.influence.options import Method
from ifguide.influence.planning.live import BatchSize
from ifguide.influence.planning.memory import WASTED, pass_peak
from ifguide.influence.planning.shape import shape_of
from ifguide.models import attention as tangents
from ifguide.models.tracked import describe_model
from tests.support.tiny_models import write_llama_config

# within so much of what is counted beside the weights
AGREEMENT = 0.15
WAYS = {
    "jvp": (Method(method="jvp"), 1),
    "jvp, 2": (Method(method="jvp"), 2),
    "jvp, rank": (Method(method="jvp", rank=32), 1),
    "jvp, bfloat16": (Method(method="jvp", dtype="bfloat16"), 1),
    "difference": (Method(method="difference", step=1e-3), 1),
    "difference, 2": (Method(method="difference", step=1e-3), 2),
    "one-sided, 2": (Method(method="difference", step=1e-3, one_sided=True), 2),
    "position": (Method(attribution="position"), 1),
    "position, 2": (Method(attribution="position"), 2),
    "position, rank": (Method(attribution="position", rank=32), 1),
    "position, bfloat16": (Method(attribution="position", dtype="bfloat16"), 1),
}


@pytest.fixture(autouse=True)
def _counted():
    register_attention(ATTENTION, attention)
    tangents.register()
    with pieces_as_on_a_gpu():
        yield


def _neox(folder):
    return write_config(folder, "1b", layers=2)


def _llama(folder):
    return write_llama_config(
        folder, hidden_size=2048, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=8192, vocab_size=32000,
    )  # fmt: skip


def _gpt2(folder, hidden=768, heads=12):
    from transformers import GPT2Config

    GPT2Config(
        vocab_size=50257, n_positions=2048, n_embd=hidden, n_layer=2, n_head=heads, architectures=["GPT2LMHeadModel"]
    ).save_pretrained(folder)
    return folder


def _narrow(folder):
    return _gpt2(folder, 128, 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [_neox, _llama, _gpt2, _narrow])
def test_a_pass_holds_what_is_planned(make, way, tmp_path):
    """Of full windows and of many short ones, each tensor counted as a plan for a GPU counts it."""
    method, directions = WAYS[way]
    model = describe_model(make(tmp_path))
    shape = shape_of(model)
    for rows, columns in ((16, 2048), (64, 64)):
        planned = pass_peak(shape, method, directions, BatchSize(rows, columns, "cuda")).device
        tensors = sum(planned.values()) - planned["weights"] - planned["CUDA context"] - planned.get(WASTED, 0)
        counted = count_pass(model, method, directions, rows, columns)
        assert tensors == pytest.approx(counted, rel=AGREEMENT), (rows, columns)
