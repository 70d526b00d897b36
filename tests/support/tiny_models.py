"""Tiny language models and classifiers with tokenizers that need no download."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from ifguide.data.text.reader import TextReader
from ifguide.models.language_model import LanguageModel

EOD = "<|endoftext|>"


def byte_tokenizer(with_eod: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte, so any text and any token sequence is possible; EOD is id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ([EOD] if with_eod else []) + alphabet
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **({"eos_token": EOD} if with_eod else {}))


def tiny_neox(**changes) -> GPTNeoXForCausalLM:
    """Two layers, weights large enough that the next token depends on what came before; vocabulary padded to 288."""
    torch.manual_seed(7)
    settings = {
        "vocab_size": 288,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return GPTNeoXForCausalLM(GPTNeoXConfig(**(settings | changes))).eval()


def as_loaded(
    model: Any, tokenizer: PreTrainedTokenizerFast, stops: Iterable[int] | None = None, max_length: int = 64
) -> LanguageModel:
    """As `load_language_model` makes it, of objects; it stops at EOD unless ``stops`` are named."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        reader = TextReader.of_model(folder)
    ending = [reader.eod] if reader.eod is not None else []
    return LanguageModel(model, reader, frozenset(ending if stops is None else stops), max_length)


def favour(model: GPTNeoXForCausalLM, token: int, nats: float) -> None:
    """Raise the logit of ``token`` by about ``nats`` wherever it is predicted."""
    shift = torch.ones(model.config.hidden_size)
    model.gpt_neox.final_layer_norm.bias.data += shift
    model.get_output_embeddings().weight.data -= model.get_output_embeddings().weight.data.mean(dim=1, keepdim=True)
    model.get_output_embeddings().weight.data[token] += nats * shift / shift.numel()


WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "you", "are", "kind", "awful", "the", "tree", "and", "cat"]


def save_classifier(folder: Path, *, labels: list[str], problem_type: str | None, spoil: bool = False) -> Path:
    """A random BERT classifier over a dozen words with positions for 16 tokens."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        problem_type=problem_type,
    )
    model = BertForSequenceClassification(config)
    if spoil:
        model.bert.embeddings.word_embeddings.weight.data[WORDS.index("awful")] = float("nan")
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def word_tokenizer() -> PreTrainedTokenizerFast:
    """White-space words between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def exact_norms(model: torch.nn.Module) -> None:
    """Replace the stock RMS norms, which round to fp32 whatever the model's precision, by torch's."""
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            norm = torch.nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon, dtype=module.weight.dtype)
            norm.weight = module.weight
            model.set_submodule(name, norm)


def write_llama_config(folder: Path, **sizes: int) -> Path:
    """``config.json`` of a Llama of these ``sizes``, without weights."""
    LlamaConfig(**sizes, max_position_embeddings=2048, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    return folder
