"""Models with weights that no linear layer holds: every command that scores refuses them, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ifguide.cli import main
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.errors import InputError
from ifguide.models.tracked import check_coverage, describe_model, load_model
from tests.influence.conftest import ARCHITECTURES, EOD, VOCAB, WINDOW

_SHARED: dict[str, Any] = {
    "vocab_size": VOCAB, "max_position_embeddings": WINDOW, "eos_token_id": EOD, "bos_token_id": EOD,
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 32, "pad_token_id": EOD,
}  # fmt: skip
# name of the configuration -> what it has beside a dense model's
MIXTURES: dict[str, dict[str, Any]] = {
    "Mixtral": {"num_local_experts": 4},
    "Qwen2Moe": {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    "Olmoe": {"num_experts": 4},
    "DeepseekV3": {
        "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 8,
        "num_experts_per_tok": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    },
}  # fmt: skip


def save_mixture(folder: Path, name: str) -> Path:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**_SHARED, **MIXTURES[name])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    build_tokenizer("CharLevelTokenizer", None).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mixture(tmp_path_factory.mktemp("mixtral"), "Mixtral")


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_are_named(tmp_path: Path, name: str) -> None:
    folder = save_mixture(tmp_path / "m", name)
    for load in (load_model, describe_model):
        with pytest.raises(InputError, match=r"mlp\.experts\.gate_up_proj \[4, \d+, 16\] and \d+ others"):
            load(folder)


def test_the_share_is_that_of_the_weights(mixtral: Path) -> None:
    """Counted by hand: a block has 4 experts, a router, attention, and two norms."""
    experts, router = 4 * (64 * 16 + 16 * 32), 4 * 16
    attention, norms = 16 * 16 + 2 * 8 * 16 + 16 * 16, 2 * 16
    share = (experts + router) / (experts + router + attention + norms)
    with pytest.raises(InputError, match=f"keeps {share:.0%} of the weights of its blocks"):
        load_model(mixtral)


@pytest.mark.parametrize("attribution", ["loss-term", "position"])
@pytest.mark.parametrize("method", ["jvp", "difference", "auto"])
def test_no_way_of_scoring_takes_them(
    mixtral: Path, dataset, fitted: Path, query_files, tmp_path: Path, capsys, attribution: str, method: str
) -> None:
    # factors that were fitted before they were refused
    factors = tmp_path / "factors"
    factors.mkdir()
    record = json.loads((fitted / "factors.json").read_text())
    record["model"]["identity"] = "of the mixture"
    (factors / "factors.json").write_text(json.dumps(record))
    (factors / "factors.safetensors").write_bytes((fitted / "factors.safetensors").read_bytes())
    command = ["score", "--model", str(mixtral), "--data", dataset.prefix, "--factors", str(factors)]
    command += ["--toxic-queries", str(query_files[0]), "--safe-queries", str(query_files[1])]
    command += ["--output", str(tmp_path / "s"), "--attribution", attribution]
    _refused([*command, *(["--method", method] if attribution == "loss-term" else [])], capsys)
    assert not list(tmp_path.glob("s.*"))


@pytest.mark.parametrize(
    "options",
    [
        ["fit-factors", "--output", "f"],
        ["fit-factors", "--output", "f", "--strategy", "identity"],
        ["fit-factors", "--output", "f", "--modules", "self_attn"],
        ["plan"],
        ["plan", "--no-timing"],
    ],
)
def test_nor_does_fitting_or_planning(mixtral: Path, dataset, tmp_path: Path, capsys, options: list[str]) -> None:
    options = [str(tmp_path / option) if option == "f" else option for option in options]
    _refused([*options, "--model", str(mixtral), "--data", dataset.prefix], capsys)
    assert not (tmp_path / "f").exists()


def _refused(command: list[str], capsys) -> None:
    capsys.readouterr()
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ifguide {command[0]}: ") and "model.layers.0.mlp.experts.gate_up_proj" in line


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dense_models_are_covered(model_folders, architecture: str) -> None:
    assert load_model(model_folders[architecture], device="cpu").tracked


def test_any_matrix_counts_whatever_its_name(model_folders) -> None:
    """A weight that a later architecture brings; vectors are none, in whatever shape."""
    model = describe_model(model_folders["llama"]).model
    block = model.model.layers[1]
    block.gain = nn.Parameter(torch.zeros(1, 1, 16, device="meta"))
    check_coverage(model, "m")
    block.mixer = nn.Parameter(torch.zeros(16, 3, device="meta"))
    with pytest.raises(InputError, match=r"model\.layers\.1\.mixer \[16, 3\] \("):
        check_coverage(model, "m")


def test_an_architecture_without_attention_is_refused(dataset, tmp_path: Path, capsys) -> None:
    from transformers import RwkvConfig

    config = RwkvConfig(vocab_size=VOCAB, hidden_size=16, attention_hidden_size=16, num_hidden_layers=2)
    config.architectures = ["RwkvForCausalLM"]
    config.save_pretrained(tmp_path / "m")
    assert main(["plan", "--no-timing", "--model", str(tmp_path / "m"), "--data", dataset.prefix]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model_type rwkv" in line and "its attention cannot be exchanged" in line
