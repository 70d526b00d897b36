"""Which tokens end and start a text, after ``hf -> neox -> hf`` and after a NeoX run: generation still stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from ifguide.checkpoints.convert import TokenizerFiles, to_huggingface, to_neox
from ifguide.checkpoints.special_tokens import CARRIED
from ifguide.data.preprocess import PreprocessOptions
from ifguide.errors import IFGuideWarning, InputError

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 300,
}
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_end|>"]
EOS, END_OF_TURN = 2, 3
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def save_tokenizer(folder: Path, special: list[str] = SPECIAL, **settings: Any) -> None:
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))


def chat_model(folder: Path, family: str) -> Path:
    """As chat models are published: a list of EOS ids, one of them unknown to the tokenizer's configuration."""
    ids = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}
    torch.manual_seed(0)
    if family == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**SIZES, **ids, num_key_value_heads=2))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **ids))
    model.generation_config.eos_token_id = [EOS, END_OF_TURN]
    model.save_pretrained(folder)
    save_tokenizer(folder, unk_token="<unk>", add_bos_token=True, model_max_length=77)
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "</s>", "lstrip": false}}')
    (folder / "chat_template.jinja").write_text("{{ messages }}\n")
    return folder


def content(folder: Path, name: str) -> Any:
    text = (folder / name).read_text()
    return json.loads(text) if name.endswith(".json") else text


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("stages", [0, 1])
def test_a_round_trip_keeps_them(tmp_path: Path, family: str, stages: int) -> None:
    folder = chat_model(tmp_path / "chat", family)
    to_neox(folder, tmp_path / "neox", pipeline_parallel=stages)
    result = to_huggingface(tmp_path / "neox", tmp_path / "back")
    before, after = (content(place, "config.json") for place in (folder, tmp_path / "back"))
    assert {key: after[key] for key in IDS} == {key: before[key] for key in IDS}
    assert result["eos_token_id"] == EOS
    for name in ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        assert content(tmp_path / "back", name) == content(folder, name), name
    assert content(folder, "generation_config.json")["eos_token_id"] == [EOS, END_OF_TURN]


def test_generation_stops_after_a_round_trip(tmp_path: Path) -> None:
    from ifguide.generation.draw import generate

    folder = chat_model(tmp_path / "chat", "gpt_neox")
    model = GPTNeoXForCausalLM.from_pretrained(folder)
    with torch.no_grad():  # the next token is always </s>
        model.gpt_neox.final_layer_norm.weight.zero_()
        model.gpt_neox.final_layer_norm.bias.fill_(1.0)
        model.get_output_embeddings().weight.zero_()
        model.get_output_embeddings().weight[EOS] = 1.0
    model.save_pretrained(folder)
    to_neox(folder, tmp_path / "neox")
    to_huggingface(tmp_path / "neox", tmp_path / "back")
    for place in (folder, tmp_path / "back"):
        assert generate(place, ["a"], samples=2, max_new_tokens=5) == [["", ""]]


def test_ids_that_only_the_tokenizer_names(tmp_path: Path) -> None:
    """config.json says nothing; the tokenizer's own eos_token does."""
    folder = chat_model(tmp_path / "chat", "gpt_neox")
    config = content(folder, "config.json")
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in IDS}))
    (folder / "generation_config.json").unlink()
    to_neox(folder, tmp_path / "neox")
    assert to_huggingface(tmp_path / "neox", tmp_path / "back")["eos_token_id"] == EOS


def trained_from(base: Path, folder: Path, **keys: Any) -> Path:
    """What a NeoX run leaves that began at ``base``: its own save folder, with its configuration."""
    tag = (base / "latest").read_text()
    target = folder / tag
    (target / "configs").mkdir(parents=True)
    for path in (base / tag).glob("*.pt"):
        (target / path.name).write_bytes(path.read_bytes())
    (folder / "latest").write_text(tag)
    settings = yaml.safe_load((base / "neox.yml").read_text()) | keys
    (target / "configs" / "run.yml").write_text(yaml.safe_dump(settings))
    return folder


def test_a_run_that_began_at_a_converted_model(tmp_path: Path) -> None:
    """Found by the run's ``load`` key; without it the run's own separator ends a text."""
    folder = chat_model(tmp_path / "chat", "gpt_neox")
    to_neox(folder, tmp_path / "neox")
    run = trained_from(tmp_path / "neox", tmp_path / "run")
    result = to_huggingface(run, tmp_path / "back")
    assert (result["eos_token_id"], result["bos_token_id"]) == (EOS, 1)
    assert content(tmp_path / "back", "tokenizer_config.json") == content(folder, "tokenizer_config.json")
    lost = trained_from(tmp_path / "neox", tmp_path / "lost", load=str(tmp_path / "nowhere"))
    with pytest.warns(IFGuideWarning, match="will not stop before its limit; name the token by --eod-token"):
        assert to_huggingface(lost, tmp_path / "without")["eos_token_id"] is None
    assert to_huggingface(lost, tmp_path / "named", eod_token="</s>")["eos_token_id"] == EOS
    assert content(tmp_path / "named", "config.json")["eos_token_id"] == EOS
    assert content(tmp_path / "named", "tokenizer_config.json")["eos_token"] == "</s>"
    with pytest.raises(InputError, match="--eod-token '</S>' is not in the tokenizer's vocabulary"):
        to_huggingface(lost, tmp_path / "unknown", eod_token="</S>")
    assert not (tmp_path / "unknown").exists()


def test_a_run_on_documents_that_end_otherwise_stops_at_both(tmp_path: Path) -> None:
    """A run on documents that `<|im_end|>` separates has learned to end a text with it, beside what its base knew."""
    from ifguide.data.preprocess import preprocess

    folder = chat_model(tmp_path / "chat", "gpt_neox")
    to_neox(folder, tmp_path / "neox")
    (tmp_path / "c.jsonl").write_text('{"text": "a text"}\n')
    files = ("HFTokenizer", str(tmp_path / "neox" / "tokenizer.json"))
    made = preprocess(
        [tmp_path / "c.jsonl"],
        tmp_path / "c",
        *files,
        options=PreprocessOptions(append_eod=True, eod_token="<|im_end|>"),
        progress=False,
    )
    run = trained_from(tmp_path / "neox", tmp_path / "run", data_path=made["output"])
    assert to_huggingface(run, tmp_path / "back")["eos_token_id"] == [EOS, END_OF_TURN]
    assert content(tmp_path / "back", "generation_config.json")["eos_token_id"] == [EOS, END_OF_TURN]


def test_another_tokenizer_takes_nothing_over(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "chat", "gpt_neox")
    to_neox(folder, tmp_path / "neox")
    save_tokenizer(tmp_path / "other", ["<|endoftext|>", "<s>", "</s>", "<|im_end|>"])
    other = TokenizerFiles("HFTokenizer", str(tmp_path / "other" / "tokenizer.json"))
    result = to_huggingface(tmp_path / "neox", tmp_path / "back", tokenizer=other)
    assert (result["eos_token_id"], result["bos_token_id"]) == (0, 0)
    assert content(tmp_path / "back", "tokenizer_config.json")["eos_token"] == "<|endoftext|>"


def test_without_a_tokenizer_the_ids_are_carried_alone(tmp_path: Path) -> None:
    to_neox(chat_model(tmp_path / "chat", "gpt_neox"), tmp_path / "neox")
    to_huggingface(tmp_path / "neox", tmp_path / "back", carry_tokenizer=False)
    assert content(tmp_path / "back", "config.json")["eos_token_id"] == EOS
    assert not [*(tmp_path / "back").glob("*token*.json"), *(tmp_path / "back").glob("*.jinja")]


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    to_neox(chat_model(tmp_path / "chat", "gpt_neox"), tmp_path / "neox")
    (record,) = (tmp_path / "neox").glob(f"*/{CARRIED}")
    for damage in ("{", "[]", '{"config": 3}'):
        record.write_text(damage)
        with pytest.raises(InputError, match=f"special tokens {record}"):
            to_huggingface(tmp_path / "neox", tmp_path / "back")
        assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("token", ["<|im_end|>", 299])
def test_what_stood_for_hidden_tokens_is_never_generated(tmp_path: Path, token: str | int) -> None:
    """A run with ``penalty_action: hide`` that began at a chat model: its generation settings stay beside that."""
    hidden = END_OF_TURN if isinstance(token, str) else token
    base = to_neox(chat_model(tmp_path / "chat", "gpt_neox"), tmp_path / "neox")
    run = trained_from(tmp_path / "neox", tmp_path / "run", penalty_action="Hide", penalty_hidden_token=token)
    to_huggingface(run, tmp_path / "back")
    found = content(tmp_path / "back", "generation_config.json")
    assert found == content(tmp_path / "chat", "generation_config.json") | {"suppress_tokens": [hidden]}
    # and back once more, and without a tokenizer
    to_neox(tmp_path / "back", tmp_path / "again")
    to_huggingface(tmp_path / "again", tmp_path / "last")
    assert content(tmp_path / "last", "generation_config.json") == found and base["padding"] >= 0
    to_huggingface(run, tmp_path / "bare", carry_tokenizer=False)
    assert content(tmp_path / "bare", "generation_config.json")["suppress_tokens"] == [hidden]


def test_a_folder_made_of_nothing_but_a_run_names_it_too(tmp_path: Path) -> None:
    to_neox(chat_model(tmp_path / "chat", "gpt_neox"), tmp_path / "neox")
    run = trained_from(tmp_path / "neox", tmp_path / "run", penalty_action="hide", penalty_hidden_token=299)
    (tmp_path / "neox" / (tmp_path / "neox" / "latest").read_text() / CARRIED).unlink()
    result = to_huggingface(run, tmp_path / "back", eod_token="</s>")
    found = content(tmp_path / "back", "generation_config.json")
    assert found == {"bos_token_id": EOS, "eos_token_id": EOS, "suppress_tokens": [299]}
    assert result["eos_token_id"] == EOS
    plain = trained_from(tmp_path / "neox", tmp_path / "plain", penalty_action="drop")
    to_huggingface(plain, tmp_path / "heard", eod_token="</s>")
    assert not (tmp_path / "heard" / "generation_config.json").exists()
