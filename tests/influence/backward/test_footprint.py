"""What a backward pass is said to hold, against the bytes that live while the project's own passes run on shapes."""

from __future__ import annotations

import pytest

from benchmarks.device_memory import ATTENTION, attention, count, count_inverse, write_config
from ifguide.compat.transformers import register_attention
from ifguide.influence.backward.footprint import backward_bytes
from ifguide.influence.planning.shape import shape_of
from ifguide.models.tracked import describe_model
from tests.support.tiny_models import write_llama_config


@pytest.fixture(autouse=True)
def _counted_attention():
    register_attention(ATTENTION, attention)


def _llama(folder):
    return write_llama_config(
        folder, hidden_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=768, vocab_size=2048,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["again", "tracked", "frozen"])
@pytest.mark.parametrize("make", [lambda folder: write_config(folder, "160m"), _llama], ids=["neox", "llama"])
def test_the_peak_is_as_counted(make, mode, tmp_path):
    """Within 15 %, of short queries and of full windows."""
    model = describe_model(make(tmp_path))
    for rows, columns in ((64, 64), (2, 2048)):
        counted = count(model, rows, columns, mode)
        options = {"tracked": mode != "frozen", "run_again": mode == "again"}
        assert backward_bytes(shape_of(model), rows * columns, "cpu", **options) == pytest.approx(counted, rel=0.15)


def test_a_direction_of_one_billion_parameters_takes_half_of_its_weights_beside_them(tmp_path):
    """Beside S: at most S / 2 and one layer's gradient, for a full batch of queries and for H~^-1."""
    model = describe_model(write_config(tmp_path, "1b"))
    shape = shape_of(model)
    layer = 4 * max(o * i for o, i in shape.tracked.values())
    weights = 4 * shape.parameters
    assert count(model, 64, 64, "again") <= weights / 2 + layer
    assert count_inverse(model) <= weights / 2 + layer
