"""Both conversions: Hugging Face's own models against NeoX's forward pass over the checkpoint as it was made."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from ifguide.architectures import gpt_neox, layout, llama
from ifguide.checkpoints import check
from ifguide.checkpoints.convert import TokenizerFiles, to_huggingface, to_neox
from ifguide.checkpoints.huggingface import HuggingFaceWeights, ShardWriter
from ifguide.checkpoints.neox_forward import forward
from ifguide.checkpoints.reader import NeoxCheckpoint
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError
from tests.checkpoints.tiny import (
    HEADS,
    HIDDEN,
    STYLES,
    VOCABULARY,
    Ranks,
    architecture_of,
    checkpoint,
    keys_of,
    random_ranks,
    save,
    tokens,
)
from tests.support.tokenizer_kinds import build

BYTES = TokenizerFiles("CharLevelTokenizer")


def huggingface_logits(folder: Path, ids: Tensor) -> Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits


def neox_logits(keys: dict[str, Any], ranks: Ranks, ids: Tensor) -> Tensor:
    return forward(lambda layer: [rank[layer] for rank in ranks], architecture_of(keys), ids)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("ranks", "sequential"), [(1, True), (2, True), (2, False)])
def test_huggingface_computes_what_neox_computes(tmp_path: Path, style: str, ranks: int, sequential: bool) -> None:
    folder, keys, model = checkpoint(tmp_path / "neox", style, ranks, sequential)
    result = to_huggingface(folder, tmp_path / "hf", check_text=check.TEXT)
    expected = neox_logits(keys, model, tokens())
    found = huggingface_logits(tmp_path / "hf", tokens())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert result["check"]["passed"] and result["check"]["relative_difference"] < 1e-5
    assert result["tensor_parallel"] == ranks and result["vocabulary"] == VOCABULARY
    assert expected.abs().max() > 3


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("ranks", "stages"), [(1, 0), (2, 0), (1, 1), (2, 2)])
def test_there_and_back_changes_no_bit(tmp_path: Path, style: str, ranks: int, stages: int) -> None:
    folder, keys, model = checkpoint(tmp_path / "neox", style)
    to_huggingface(folder, tmp_path / "hf")
    result = to_neox(tmp_path / "hf", tmp_path / "again", ranks, stages, tokenizer=BYTES, check_text=check.TEXT)
    assert result["check"]["passed"]
    again = NeoxCheckpoint.open(tmp_path / "again")
    assert (again.ranks, again.sequential) == (ranks, stages == 0)
    torch.testing.assert_close(
        forward(again.shards, architecture_of(keys), tokens()), neox_logits(keys, model, tokens()), rtol=0, atol=1e-4
    )
    to_huggingface(tmp_path / "again", tmp_path / "back")
    first, last = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "back"))
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)


def merge_as_blocks(patch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values of plain attention taken for three blocks, as if attention were grouped."""
    patch.setattr(llama, "_split_heads", lambda whole, _: whole.chunk(3))


def merge_ranks_in_turn(patch: pytest.MonkeyPatch) -> None:
    """[queries; keys; values] of one rank after those of the other."""
    sections = layout._sections
    patch.setattr(layout, "_sections", lambda name, a: [sum(rows)] if (rows := sections(name, a)) else [])


def exchange_gate_and_up(patch: pytest.MonkeyPatch) -> None:
    export = llama.Llama.export

    def exchanged(self: Any, layer: int, tensors: Any, architecture: Any) -> dict[str, Tensor]:
        other = {"gate_proj": "up_proj", "up_proj": "gate_proj"}
        found = export(self, layer, tensors, architecture)
        return {re.sub("gate_proj|up_proj", lambda m: other[m[0]], name): tensor for name, tensor in found.items()}

    patch.setattr(llama.Llama, "export", exchanged)


def add_copied_biases(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layout, "_is_summed", lambda name, _: name in layout._ROW_PARALLEL_BIAS)


def average_partial_biases(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layout, "_is_summed", lambda *_: False)


def forget_tied_norms(patch: pytest.MonkeyPatch) -> None:
    export = gpt_neox.GPTNeoX.export
    patch.setattr(
        gpt_neox.GPTNeoX,
        "export",
        lambda self, layer, tensors, a: export(self, layer, tensors, replace(a, tied_norms=False)),
    )


def configure(family: type, **entries: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """config.json with other entries."""
    config = family.config
    return lambda patch: patch.setattr(family, "config", lambda self, a: {**config(self, a), **entries})


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
# what made converted models speak gibberish: name -> style that shows it, the mistake
MISTAKES: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "plain attention as blocks": ("llama plain", merge_as_blocks),
    "ranks in turn": ("llama grouped", merge_ranks_in_turn),
    "gate and up": ("llama grouped", exchange_gate_and_up),
    "biases multiplied by the ranks": ("sequential residual", add_copied_biases),
    "biases of one rank": ("pythia", average_partial_biases),
    "norms not tied": ("tied", forget_tied_norms),
    "another gelu": ("pythia", configure(gpt_neox.GPTNeoX, hidden_act="gelu")),
    "rotary_pct": ("sequential residual", configure(gpt_neox.GPTNeoX, rope_parameters={**ROPE, "rope_theta": 500.0})),
    "rotary_emb_base": ("llama grouped", configure(llama.Llama, rope_parameters=ROPE)),
    "residual": ("sequential residual", configure(gpt_neox.GPTNeoX, use_parallel_residual=True)),
    "epsilon": ("sequential residual", configure(gpt_neox.GPTNeoX, layer_norm_eps=1e-5)),
    "gate function": ("llama plain", configure(llama.Llama, hidden_act="silu")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_sees_every_known_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    style, make = MISTAKES[mistake]
    folder, _, _ = checkpoint(tmp_path / "neox", style, ranks=2)
    make(monkeypatch)
    result = to_huggingface(folder, tmp_path / "hf", check_text=check.TEXT)
    assert result["check"]["passed"] is False
    assert result["check"]["relative_difference"] > check.TOLERANCE
    assert result["check"]["precision"] == "float64"
    assert [path.name for path in tmp_path.iterdir()] == ["neox"], "a wrong conversion was kept"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scale", [1.0, 40.0, 4000.0])
def test_large_logits_are_no_other_function(tmp_path: Path, style: str, scale: float) -> None:
    """Rounding grows with the logits; what is allowed grows with them."""
    keys = keys_of(style, no_weight_tying=True)
    model = random_ranks(keys, 2)
    for rank in model:
        rank[layout.output_layer(architecture_of(keys))]["final_linear.weight"] *= scale
    save(tmp_path / "neox", keys, model, sequential=False)
    found = to_huggingface(tmp_path / "neox", tmp_path / "hf", check_text=check.TEXT)["check"]
    assert found["passed"] and found["max_logit"] > 3 * scale
    assert found["relative_difference"] == pytest.approx(found["max_difference"] / found["max_logit"])


def test_doubt_in_single_precision_is_settled_in_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep model's rounding, put on top of the fp32 logits."""
    folder, _, _ = checkpoint(tmp_path / "neox", "llama grouped")
    exact = check._huggingface_logits

    def rounded(folder: Path, ids: Tensor, precision: torch.dtype) -> Tensor:
        logits = exact(folder, ids, precision)
        return logits * (1 + 3e-5) if precision == torch.float32 else logits

    monkeypatch.setattr(check, "_huggingface_logits", rounded)
    found = to_huggingface(folder, tmp_path / "hf", check_text=check.TEXT)["check"]
    assert found["passed"] and found["precision"] == "float64" and found["relative_difference"] < 2e-6


def exchange_two_heads(matrix: Tensor) -> Tensor:
    """The first two heads of a matrix [heads x size, inputs]."""
    size = HIDDEN // HEADS
    return torch.cat([matrix[size : 2 * size], matrix[:size], matrix[2 * size :]])


@pytest.mark.parametrize("scale", [1.0, 4000.0])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.layers.1.self_attn.q_proj.weight", exchange_two_heads),
        ("model.layers.1.self_attn.v_proj.weight", exchange_two_heads),
        ("model.layers.1.self_attn.o_proj.weight", Tensor.t),
        ("model.layers.0.self_attn.q_proj.weight", Tensor.t),
    ],
)
def test_one_wrong_matrix_is_another_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Tensor], Tensor], scale: float
) -> None:
    """However large the logits are; the same change of nothing passes."""
    keys = keys_of("llama plain")
    model = random_ranks(keys, 1)
    model[0][layout.output_layer(architecture_of(keys))]["final_linear.weight"] *= scale
    save(tmp_path / "neox", keys, model, sequential=True)
    export = llama.Llama.export
    seen = []

    def changed(self: Any, layer: int, tensors: Any, architecture: Any) -> dict[str, Tensor]:
        found = export(self, layer, tensors, architecture)
        if name in found:
            seen.append(found[name].shape)
            found[name] = change(found[name]).contiguous()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(llama.Llama, "export", changed)
        wrong = to_huggingface(tmp_path / "neox", tmp_path / "wrong", check_text=check.TEXT)["check"]
    assert seen == [(HIDDEN, HIDDEN)]
    assert wrong["passed"] is False and wrong["relative_difference"] > 100 * check.TOLERANCE
    assert to_huggingface(tmp_path / "neox", tmp_path / "hf", check_text=check.TEXT)["check"]["passed"]


def test_config_serves_transformers_4_and_5(tmp_path: Path) -> None:
    """Version 4 ignores rope_parameters and has 0.25 and 10000 for what it does not find."""
    folder, _, _ = checkpoint(tmp_path / "neox", "sequential residual")
    to_huggingface(folder, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["rotary_pct"], config["rotary_emb_base"]) == (0.5, 500)
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 500, "partial_rotary_factor": 0.5}
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 0)
    assert "embed_out.weight" in load_file(tmp_path / "hf" / "model.safetensors")  # version 4 knows no lm_head there
    folder, _, _ = checkpoint(tmp_path / "llama", "llama grouped")
    to_huggingface(folder, tmp_path / "llama-hf", carry_tokenizer=False)
    config = json.loads((tmp_path / "llama-hf" / "config.json").read_text())
    assert config["rope_theta"] == 500000 and config["eos_token_id"] is None
    assert not (tmp_path / "llama-hf" / "tokenizer.json").exists()


def test_the_tokenizer_is_carried_both_ways(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder, _, _ = checkpoint(tmp_path / "neox", "pythia")
    to_huggingface(folder, tmp_path / "hf")
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("ab é").input_ids == list("ab é".encode())
    # without a choice, the folder's tokenizer.json: its 256 tokens would be padded to 256 rows, the model has 512
    result = to_neox(tmp_path / "hf", tmp_path / "again")
    assert (result["tokenizer"], result["vocabulary"], result["padding"]) == (256, VOCABULARY, 0)
    keys = yaml.safe_load((tmp_path / "again" / "neox.yml").read_text())
    assert keys["make_vocab_size_divisible_by"] == VOCABULARY
    assert keys["tokenizer_type"] == "HFTokenizer"
    carried = tmp_path / "again" / "tokenizer.json"
    assert keys["vocab_file"] == str(carried) and carried.read_bytes() == (tmp_path / "hf/tokenizer.json").read_bytes()


def test_a_tokenizer_that_the_data_was_not_made_with_is_refused(tmp_path: Path) -> None:
    """Or --check would compare both sides on the same wrong tokens, and ship them."""
    kinds = [build(name, tmp_path / name) for name in ("byte-level", "byte-level-lowercase")]
    source = tmp_path / "c.jsonl"
    source.write_text('{"text": "The man said"}\n')
    data = preprocess(
        [source],
        tmp_path / "c",
        *kinds[0].files,
        options=PreprocessOptions(append_eod=True, eod_token="</s>"),
        progress=False,
    )
    for kind in kinds:
        folder, _, _ = checkpoint(
            tmp_path / f"neox-{kind.name}", "pythia", tokenizer_type="HFTokenizer", vocab_file=str(kind.vocab_file),
            train_data_paths=[data["output"]],
        )  # fmt: skip
        output = tmp_path / f"hf-{kind.name}"
        if kind is kinds[0]:
            to_huggingface(folder, output, check_text=check.TEXT)
            assert TextReader.of_model(output, data["output"]).eod_token == "</s>"
            continue
        with pytest.raises(ConfigError, match=r"is another tokenizer than the one that .* was made with"):
            to_huggingface(folder, output, check_text=check.TEXT)
        with pytest.raises(ConfigError, match="was made with HFTokenizer, not with CharLevelTokenizer"):
            to_huggingface(folder, output, tokenizer=BYTES)
        assert not output.exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_padding_leaves_the_model_as_it_is(tmp_path: Path, ranks: int) -> None:
    """300 rows become 384 or 512; the first 300 logits stay, and the others stay small."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "hf")
    write_tokenizer(tmp_path / "hf" / "tokenizer.json", 290)
    result = to_neox(tmp_path / "hf", tmp_path / "neox", ranks, check_text="a b c d e f")
    rows = {1: 384, 2: 512}[ranks]
    assert (result["vocabulary"], result["padding"]) == (rows, rows - 300)
    assert result["check"]["passed"]
    to_huggingface(tmp_path / "neox", tmp_path / "back")
    ids = tokens() % 300
    before, after = (huggingface_logits(tmp_path / name, ids) for name in ("hf", "back"))
    torch.testing.assert_close(after[..., :300], before, rtol=0, atol=1e-4)
    gain = after.logsumexp(-1) - before.logsumexp(-1)
    assert gain.min() > 0 and gain.max() <= math.log(rows / 300) + 1e-5


def write_tokenizer(path: Path, size: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<|endoftext|>", *"abcdef", *(f"word{number}" for number in range(size - 7))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_keep_their_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    keys = keys_of("pythia")
    half = [
        {layer: {name: tensor.to(dtype) for name, tensor in state.items()} for layer, state in rank.items()}
        for rank in random_ranks(keys, 2)
    ]
    save(tmp_path / "neox", keys, half, sequential=False)
    result = to_huggingface(tmp_path / "neox", tmp_path / "hf", check_text=check.TEXT)
    assert result["check"]["passed"] and result["dtype"] == str(dtype).removeprefix("torch.")
    for name, tensor in load_file(tmp_path / "hf" / "model.safetensors").items():
        # the sum of two ranks' 16-bit biases may have more bits
        assert tensor.dtype == dtype or name.endswith(("attention.dense.bias", "dense_4h_to_h.bias"))
    to_neox(tmp_path / "hf", tmp_path / "again", 2, 1, tokenizer=BYTES)
    again = NeoxCheckpoint.open(tmp_path / "again")
    for layer in again.layers:
        for rank, shard in enumerate(again.shards(layer)):
            for name, tensor in shard.items():
                if name not in ("attention.dense.bias", "mlp.linear2.bias"):
                    assert tensor.dtype == dtype and torch.equal(tensor, half[rank][layer][name])


def test_weights_in_several_files_and_old_formats(tmp_path: Path) -> None:
    folder, keys, model = checkpoint(tmp_path / "neox", "llama plain")
    to_huggingface(folder, tmp_path / "hf", carry_tokenizer=False)
    whole = load_file(tmp_path / "hf" / "model.safetensors")
    writer = ShardWriter(tmp_path / "hf", shard_bytes=40_000)
    (tmp_path / "hf" / "model.safetensors").unlink()
    for name, tensor in whole.items():
        writer.add(name, tensor)
    writer.close()
    assert len(list((tmp_path / "hf").glob("model-*-of-00004.safetensors"))) == 4
    torch.testing.assert_close(
        huggingface_logits(tmp_path / "hf", tokens()), neox_logits(keys, model, tokens()), rtol=0, atol=1e-4
    )
    read = HuggingFaceWeights(tmp_path / "hf")
    assert all(torch.equal(read[name], tensor) for name, tensor in whole.items())

    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text((tmp_path / "hf" / "config.json").read_text())
    torch.save(whole | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, old / "pytorch_model.bin")
    assert to_neox(old, tmp_path / "again", tokenizer=BYTES, check_text=check.TEXT)["check"]["passed"]


def test_memory_is_a_layer_not_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two layers nothing is held but what waits for its file."""
    folder, _, _ = checkpoint(tmp_path / "neox", "pythia")
    pending = []
    add = ShardWriter.add

    def spy(self: ShardWriter, name: str, tensor: Tensor) -> None:
        add(self, name, tensor)
        pending.append(sum(held.nbytes for held in self._pending.values()))

    monkeypatch.setattr(ShardWriter, "add", spy)
    monkeypatch.setattr(ShardWriter.__init__, "__defaults__", (70_000,))
    to_huggingface(folder, tmp_path / "hf", check_text=check.TEXT)
    assert max(pending) <= 70_000 < 150_000 < sum(tensor.nbytes for tensor in all_tensors(tmp_path / "hf"))


def all_tensors(folder: Path) -> list[Tensor]:
    return [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).values()]
