"""The rule that says what can be scored, against what happens: a tiny model of each type is made and scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

from ifguide import cli, launch
from ifguide.architectures import support
from ifguide.errors import InputError
from ifguide.influence.planning.shape import read_shape
from ifguide.models import tracked as modules
from tests.engine.tiny import MODEL, ROOT
from tests.support.datasets import write_tokens

_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_GROUPED = {**_SIZES, "num_key_value_heads": 1, "head_dim": 8}
_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}

# model_type -> what makes it tiny; the first six are those that the product names
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt_neox": _SIZES,
    "llama": _GROUPED,
    "gpt2": _GPT2,
    "qwen2": _GROUPED,
    "qwen3": _GROUPED,
    "mistral": _GROUPED,
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "gptj": {**_GPT2, "rotary_dim": 4},
    "gpt_neo": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]},
    "gemma2": {**_GROUPED, "attn_logit_softcapping": 0.05, "final_logit_softcapping": 0.05},  # caps that show
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "falcon alibi": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": True},
    "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 2},
    "stablelm": {**_SIZES, "num_key_value_heads": 1},
    "cohere": {**_SIZES, "num_key_value_heads": 1},
    "granite": {**_GROUPED, "logits_scaling": 1.0},
    "granite scaled": {**_GROUPED, "logits_scaling": 8.0},
    "olmo2": {**_SIZES, "num_key_value_heads": 1},
}
REFUSED = ("bloom", "gpt_neo", "gemma2", "falcon", "falcon alibi", "mpt", "cohere", "granite scaled")


def tiny(name: str) -> Any:
    from transformers import AutoConfig

    kind, *_ = name.split()
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return AutoConfig.for_model(kind, vocab_size=64, **ids, **CONFIGS[name])


def scores_right(folder: Path) -> bool:
    """Whether the model gives its own logits and, for a change of its weights, the derivative of its hidden states."""
    tokens = torch.arange(3, 15)[None]
    try:
        model = modules.load_model(folder, torch.float64, device="cpu")
        model.check_architecture(tokens)
        weights = model.tracked_parameters()
        generator = torch.Generator().manual_seed(1)
        change = {name: 0.02 * torch.randn(w.shape, generator=generator, dtype=w.dtype) for name, w in weights.items()}
        with torch.no_grad(), forward_ad.dual_level():
            dual = {name: forward_ad.make_dual(w.clone(), change[name]) for name, w in weights.items()}
            tangent = forward_ad.unpack_dual(model.hidden(tokens, dual)).tangent
        with torch.no_grad():
            step = 1e-3  # norms are taken in float32
            above, below = (
                model.hidden(tokens, {name: w + sign * step * change[name] for name, w in weights.items()})
                for sign in (1, -1)
            )
    except Exception:  # whatever an architecture that does not fit runs into
        return False
    if tangent is None:
        return False
    difference = (above - below) / (2 * step)
    return float((tangent - difference).norm()) < 0.01 * float(difference.norm())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_rule_is_what_happens(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = tiny(name)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    obstacle = support.scoring_obstacle(json.loads((tmp_path / "config.json").read_text()))
    monkeypatch.setattr(modules, "require_scorable", lambda *_: None)
    assert (obstacle == "") == scores_right(tmp_path), obstacle
    if name in support.SCORED:
        assert obstacle == ""
    if name in REFUSED:
        assert obstacle


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line_from_the_configuration_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = tmp_path / "model", tmp_path / "data"
    tiny(name).save_pretrained(model)  # no weights: they are not looked for
    write_tokens(data, [range(1, 9)])
    commands = {
        "plan": [],
        "fit-factors": ["--output", tmp_path / "factors"],
    }
    for verb, options in commands.items():
        capsys.readouterr()
        assert cli.main([verb, "--model", str(model), "--data", str(data), *map(str, options)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"(model_type {name.split()[0]}) cannot be scored: " in line
        assert line.endswith("; GPT-NeoX, Llama, GPT-2, Qwen2, Qwen3 and Mistral models can")
    with pytest.raises(InputError, match="cannot be scored"):
        modules.load_model(model)


@pytest.mark.parametrize("content", ['{"model_type": "bert_of_mine"}', "{}", "[]"])
def test_configurations_of_nothing_known(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"no causal language model of that type|is not a JSON object"):
        read_shape(tmp_path)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_what_the_embedded_engine_fine_tunes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    tiny(name).save_pretrained(model)
    write_tokens(tmp_path / "data", [range(1, 9)])
    values = {**MODEL, "data_path": str(tmp_path / "data"), "load": str(model), "finetune": True, "train_iters": 0}
    (tmp_path / "run.yml").write_text(json.dumps(values))
    assert launch.main([str(ROOT / "train.py"), str(tmp_path / "run.yml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("deepy.py: train_iters")  # the fault that every one of them has here
    if name != "gpt2":
        assert len(lines) == 1
        return
    assert (
        f"load: {model} holds a model of type {name}; the embedded engine trains gpt_neox and llama models" in lines[1]
    )
