"""Every loader refuses what is broken or incomplete, in one line that says whose model it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ifguide.checkpoints.check import _huggingface_logits
from ifguide.errors import InputError
from ifguide.models.language_model import load_language_model
from ifguide.models.loading import load_causal_model
from ifguide.models.tracked import load_model


def of_conversion(folder: Path) -> object:
    return _huggingface_logits(folder, torch.zeros(1, 2, dtype=torch.int64), torch.float32)


LOADERS = pytest.mark.parametrize(
    ("load", "role"),
    [(load_model, "model"), (load_language_model, "language model"), (of_conversion, "converted model")],
)


@LOADERS
def test_a_model_without_some_weights_is_refused(load: Callable[[Path], object], role: str, folder: Path) -> None:
    """transformers would fill them with random numbers."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(name for name in weights if "dense" in name)
    save_file({name: weights[name] for name in weights.keys() - set(names)}, folder / "model.safetensors")
    with pytest.raises(InputError) as error:
        load(folder)
    assert str(error.value) == f"{role} {folder} lacks the weights {', '.join(names[:3])} and {len(names) - 3} others"


@LOADERS
def test_a_damaged_file_is_refused(load: Callable[[Path], object], role: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nothing like weights")
    with pytest.raises(InputError, match=f"^{role} {folder} cannot be loaded: ") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_precision_and_attention_are_as_asked(folder: Path) -> None:
    model = load_causal_model(folder, torch.float64, "model", attention="eager")
    assert model.dtype == torch.float64 and model.config._attn_implementation == "eager"


@pytest.mark.parametrize("has_accelerate", [True, False])
def test_weights_go_straight_to_their_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_accelerate: bool
) -> None:
    """ "cpu:0" is a device that is not the default one, on every machine."""
    import transformers

    asked = []
    original = transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda where, **options: asked.append(options.get("device_map")) or original(where, **options),
    )
    if not has_accelerate:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plain = load_causal_model(folder, torch.float32, "model")
    placed = load_causal_model(folder, torch.float32, "model", device="cpu:0")
    assert asked == [None, {"": "cpu:0"} if has_accelerate else None]
    expected = dict(plain.named_parameters())
    for name, weight in placed.named_parameters():
        assert weight.device.type == "cpu" and torch.equal(weight, expected[name])
    assert not any(hasattr(module, "_hf_hook") for module in placed.modules()), "nothing moves inputs at each call"
