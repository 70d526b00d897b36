"""``ifguide convert`` as it is typed: exit codes, one line a fault, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from ifguide import cli
from ifguide.checkpoints import check
from tests.checkpoints.tiny import checkpoint

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 512,
}


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> list[str]:
    """The lines after `ifguide convert: ` of a command that must exit with 2."""
    capsys.readouterr()
    assert cli.main(["convert", *map(str, argv)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("ifguide convert: ") for line in lines)
    return [line.removeprefix("ifguide convert: ") for line in lines]


def from_neox(folder: Path, output: Path) -> list[str | Path]:
    return ["--from", "neox", "--to", "hf", "--input", folder, "--output", output]


def from_hf(folder: Path, output: Path) -> list[str | Path]:
    options = ["--from", "hf", "--to", "neox", "--input", folder, "--output", output]
    return [*options, "--tokenizer-type", "CharLevelTokenizer"]


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = checkpoint(tmp_path / "neox", "llama grouped", ranks=2)
    text = tmp_path / "text.txt"
    text.write_text("Some text of one's own, long enough for a window or two. " * 3)
    command = [*from_neox(folder, tmp_path / "hf"), "--check", "--text", text]
    assert cli.main(["convert", *map(str, command)]) == 0
    said = capsys.readouterr().out
    assert "same function: logits differ by at most" in said and "llama (pipeline layers, tensor parallel 2)" in said
    command = [*from_hf(tmp_path / "hf", tmp_path / "back"), "--tensor-parallel", "2", "--json"]
    assert cli.main(["convert", *map(str, command)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["layout"], result["tensor_parallel"], result["check"]) == ("sequential", 2, None)
    record = json.loads((tmp_path / "back" / "run.json").read_text())
    assert record["command"][:2] == ["ifguide", "convert"] and record["architecture"] == "llama"


def test_a_difference_is_exit_1_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = checkpoint(tmp_path / "neox", "pythia")
    monkeypatch.setattr(check, "TOLERANCE", -1.0)
    assert cli.main(["convert", *map(str, from_neox(folder, tmp_path / "hf")), "--check"]) == 1
    said = capsys.readouterr().out
    assert "NOT the same function" in said and "(float64)" in said and "of the largest logit (" in said
    assert not (tmp_path / "hf").exists()


def test_options_that_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*from_neox(tmp_path, tmp_path / "hf"), "--tensor-parallel", "0", "--text", "t", "--merge-file", "m"]
    assert refused(capsys, *command) == [
        "--tensor-parallel has no meaning with --from neox",
        "--merge-file needs --tokenizer-type and --vocab-file",
        "--text needs --check",
        "--tensor-parallel 0: must be at least 1",
    ]
    lines = refused(capsys, "--from", "hf", "--to", "hf", "--input", "a", "--output", "b", "--no-tokenizer")
    assert lines == [
        "--from and --to are both hf; one is neox, the other hf",
        "--no-tokenizer has no meaning with --from hf",
    ]


def test_faults_of_a_checkpoint_come_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"pos_emb": "alibi", "num_kv_heads": 2, "tokenizer_type": "HFTokenizer", "vocab_file": "/none.json"}
    folder, _, _ = checkpoint(tmp_path / "neox", "pythia", **changes)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "mine.txt").touch()
    lines = refused(capsys, *from_neox(folder, tmp_path / "hf"))
    assert lines == [
        f"{tmp_path / 'hf'} already exists; remove it, or choose another --output",
        "pos_emb: 'alibi': only rotary position embeddings can be represented (NeoX's default is learned)",
        "vocab file /none.json does not exist or is not a file",
    ]
    folder, _, _ = checkpoint(tmp_path / "gated", "pythia", activation="swiglu", num_kv_heads=2)
    assert refused(capsys, *from_neox(folder, tmp_path / "out")) == [
        "activation: 'swiglu': with layernorm a gated MLP cannot be represented",
        "num_kv_heads: 2: with layernorm grouped attention cannot be represented",
    ]
    folder, _, _ = checkpoint(tmp_path / "rms", "llama plain", activation="gelu", gpt_j_residual=True, rotary_pct=0.5)
    assert refused(capsys, *from_neox(folder, tmp_path / "out")) == [
        "activation: 'gelu': with rmsnorm only gated MLPs can be represented",
        "gpt_j_residual: true: with rmsnorm a parallel residual cannot be represented",
        "rotary_pct: 0.5: with rmsnorm only 1.0 can be represented",
    ]
    folder, _, _ = checkpoint(tmp_path / "scale", "pythia", norm="scalenorm")
    assert refused(capsys, *from_neox(folder, tmp_path / "out")) == [
        "norm: 'scalenorm': only layernorm and rmsnorm can be represented"
    ]
    assert not (tmp_path / "out").exists()


def test_the_configuration_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = checkpoint(tmp_path / "neox", "pythia")
    configs = (folder / "global_step7" / "configs").rename(tmp_path / "elsewhere")
    lines = refused(capsys, *from_neox(folder, tmp_path / "hf"))
    assert lines == [f"{folder / 'global_step7'} has no configs folder; name the run's YAML files by --config"]
    files = [configs / "model.yml", configs / "parallel.yml"]
    assert cli.main(["convert", *map(str, from_neox(folder, tmp_path / "hf")), "--config", *map(str, files)]) == 0


def test_a_tokenizer_of_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    GPTNeoXForCausalLM(GPTNeoXConfig(**{**SIZES, "vocab_size": 100})).save_pretrained(tmp_path / "hf")
    assert refused(capsys, *from_hf(tmp_path / "hf", tmp_path / "out")) == [
        "the tokenizer has 512 tokens, the model only 100 rows; is it the tokenizer of this model?"
    ]
    lines = refused(capsys, *from_hf(tmp_path / "hf", tmp_path / "out")[:-2])
    assert lines == [
        f"{tmp_path / 'hf'} has no tokenizer.json; name its tokenizer by --tokenizer-type and --vocab-file"
    ]


def test_faults_of_a_huggingface_model_come_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaled = {
        "rope_type": "llama3", "rope_theta": 500000.5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=1, head_dim=16, rope_parameters=scaled))
    model.save_pretrained(tmp_path / "hf")
    lines = refused(capsys, *from_hf(tmp_path / "hf", tmp_path / "out"), "--tensor-parallel", "2")
    assert [line.split(":")[0] for line in lines] == [
        "rope_type 'llama3'",
        "head_dim 16",
        "rotary base 500000.5",
        "--tensor-parallel 2 does not divide the key/value heads (1)",
    ]
    (tmp_path / "hf" / "config.json").write_text("[]")
    lines = refused(capsys, *from_hf(tmp_path / "hf", tmp_path / "out"))
    assert lines == [f"{tmp_path / 'hf' / 'config.json'} is not a JSON object"]
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "bert"}')
    assert refused(capsys, *from_hf(tmp_path / "hf", tmp_path / "out")) == [
        "model_type 'bert' is not supported; NeoX checkpoints can be made of gpt_neox and llama models"
    ]


def test_tensors_that_the_architecture_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    state = {name: tensor for name, tensor in model.state_dict().items() if "norm" not in name}
    state["model.layers.0.self_attn.q_norm.weight"] = torch.ones(8)
    model.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    lines = refused(capsys, *from_hf(tmp_path, tmp_path / "out"))
    assert lines == [
        f"{tmp_path} does not hold the model that its config.json describes:",
        "model.layers.0.input_layernorm.weight is missing",
        "model.layers.0.post_attention_layernorm.weight is missing",
        "model.norm.weight is missing",
        "model.layers.0.self_attn.q_norm.weight (8,) is not part of a llama model",
    ]
    (tmp_path / "pytorch_model.bin").unlink()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    assert refused(capsys, *from_hf(tmp_path, tmp_path / "out")) == [
        f"{index} has no weight_map; it must say which file holds each tensor"
    ]
    index.write_text('{"weight_map": {"lm_head.weight": "gone.safetensors"}}')
    assert refused(capsys, *from_hf(tmp_path, tmp_path / "out")) == [
        f"{tmp_path} lacks gone.safetensors, which model.safetensors.index.json names"
    ]
    index.unlink()
    assert refused(capsys, *from_hf(tmp_path, tmp_path / "out")) == [
        f"{tmp_path} holds no weights (model.safetensors or pytorch_model.bin)"
    ]


def test_a_full_disk_is_one_line(tmp_path: Path, tiny_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = checkpoint(tmp_path / "neox", "pythia")
    assert cli.main(["convert", *map(str, from_neox(folder, tiny_disk / "hf"))]) == 2
    assert "no space left on the disk of" in capsys.readouterr().err.splitlines()[-1]
    assert list(tiny_disk.iterdir()) == []
