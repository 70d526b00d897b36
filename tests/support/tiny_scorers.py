"""Tiny classifiers in the very files that Detoxify and ToxiGen-RoBERTa are published in, with random weights."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from tests.support.tiny_models import byte_tokenizer

TEXT = [
    "You are kind and the tree is green.",
    "you are an awful, awful person and everybody knows",
    "The cat sat on the mat; nobody minded at all!",
    "what a wonderful day to walk along the river with old friends",
]
_IDENTITIES = [
    "male",
    "female",
    "homosexual_gay_or_lesbian",
    "christian",
    "jewish",
    "muslim",
    "black",
    "white",
    "illness",
]
_FIRST_CLASSES = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
_BIAS_CLASSES = ["toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit"]
_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_POSITIONS = 40
VARIANTS = {
    "original": (
        BertForSequenceClassification,
        "bert-base-uncased",
        _FIRST_CLASSES,
        6,
    ),
    "unbiased": (RobertaForSequenceClassification, "roberta-base", _BIAS_CLASSES, 16),
    "multilingual": (XLMRobertaForSequenceClassification, "xlm-roberta-base", _BIAS_CLASSES, 16),
    "original-small": (AlbertForSequenceClassification, "albert-base-v2", _FIRST_CLASSES, 6),
    "unbiased-small": (AlbertForSequenceClassification, "albert-base-v2", _BIAS_CLASSES, 16),
}
_ALBERT = ("original-small", "unbiased-small")


def save_detoxify(
    folder: Path, variant: str, *, model_type: str | None = None, extra: dict[str, Any] | None = None, **shape: float
) -> Path:
    """A folder with the base model's configuration and tokenizer, as on the hub, and one Detoxify checkpoint.

    ``shape`` replaces sizes of the tiny model; ``extra`` goes into the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model_class, hub_name, classes, outputs = VARIANTS[variant]
    save_tokenizer = {
        "original": save_wordpiece, "unbiased": save_byte_bpe, "multilingual": save_sentencepiece,
        "original-small": save_albert_pieces, "unbiased-small": save_albert_pieces,
    }[variant]  # fmt: skip
    positions = int(shape.get("max_position_embeddings", _POSITIONS))
    vocab_size = save_tokenizer(folder, positions - 2 * (variant in ("unbiased", "multilingual")))
    torch.manual_seed(5)
    config = _config(variant, vocab_size, **shape)
    config.save_pretrained(folder)  # two labels, as every base model's
    config.num_labels = outputs
    model = model_class(config)
    state = OrderedDict(model.state_dict())
    base = model.base_model_prefix
    # versions of transformers from the time of the checkpoints saved these too
    state[f"{base}.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    dataset: dict[str, Any] = {"classes": classes, "train_csv_file": "jigsaw_data/train.csv", "loss_weight": 0.75}
    if outputs > len(classes):
        dataset["identity_classes"] = _IDENTITIES
    checkpoint = {
        "state_dict": state,
        "config": {
            "name": f"Jigsaw_{variant}",
            "n_gpu": 1,
            "batch_size": 10,
            "arch": {
                "type": variant.upper(),
                "args": {
                    "num_classes": outputs,
                    "model_type": model_type or hub_name,
                    "model_name": model_class.__name__,
                    "tokenizer_name": model_class.__name__.replace("ForSequenceClassification", "Tokenizer"),
                },
            },
            "dataset": {"type": "JigsawDataBias", "args": dataset},
            "optimizer": {"type": "Adam", "args": {"lr": 3e-5, "weight_decay": 3e-6, "amsgrad": True}},
        },
    }
    torch.save(checkpoint | (extra or {}), folder / f"toxic_{variant}-0123abcd.ckpt")
    return folder


def save_toxigen(folder: Path) -> Path:
    """As on the hub: two labels without a name, weights in pytorch_model.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = save_byte_bpe(folder)
    torch.manual_seed(6)
    config = _config("unbiased", vocab_size)
    config.architectures = ["RobertaForSequenceClassification"]
    config.save_pretrained(folder)
    torch.save(RobertaForSequenceClassification(config).state_dict(), folder / "pytorch_model.bin")
    return folder


def save_causal(folder: Path, family: str = "gpt2", *, positions: int = 96, labels: int = 2) -> Path:
    """A causal classifier with the byte tokenizer of the tiny language models."""
    torch.manual_seed(9)
    names = {"id2label": {0: "ok", 1: "toxic"}, "label2id": {"ok": 0, "toxic": 1}} if labels == 2 else {}
    shared = {"vocab_size": 257, "initializer_range": 0.4, "num_labels": labels, **names}
    model: Any
    if family == "gpt2":
        config = GPT2Config(
            n_positions=positions, n_embd=32, n_layer=2, n_head=4, eos_token_id=0, bos_token_id=0, **shared
        )
        model = GPT2ForSequenceClassification(config)
    else:
        model = GPTNeoXForSequenceClassification(
            GPTNeoXConfig(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                max_position_embeddings=positions, bos_token_id=0, eos_token_id=0, **shared,
            )
        )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


def _config(variant: str, vocab_size: int, **shape: float) -> Any:
    common = (
        {"vocab_size": vocab_size, "initializer_range": 0.5, "max_position_embeddings": _POSITIONS} | _SMALL | shape
    )
    if variant == "original":
        return BertConfig(pad_token_id=0, **common)
    if variant in _ALBERT:
        return AlbertConfig(pad_token_id=0, bos_token_id=2, eos_token_id=3, embedding_size=8, **common)
    config = RobertaConfig if variant == "unbiased" else XLMRobertaConfig
    return config(pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1, **common)


def save_wordpiece(folder: Path, limit: int) -> int:
    """bert-base-uncased's files: vocab.txt and tokenizer_config.json. Returns the size of the vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz.,;!'"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "you", "are", "the", "and", "##ful", "a", *letters[1:]]
    tokens += [f"##{letter}" for letter in letters]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": limit}))
    return len(tokens)


def save_byte_bpe(folder: Path, limit: int = _POSITIONS - 2, size: int = 300) -> int:
    """roberta-base's files: vocab.json, merges.txt, tokenizer_config.json."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        TEXT, vocab_size=size, min_frequency=1, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    tokenizer.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    return tokenizer.get_vocab_size()


def save_sentencepiece(folder: Path, limit: int) -> int:
    """xlm-roberta-base's files: sentencepiece.bpe.model, tokenizer_config.json."""
    import sentencepiece

    (folder / "text.txt").write_text("\n".join(TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "trained"),
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "trained.model").rename(folder / "sentencepiece.bpe.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    return 90


def save_albert_pieces(folder: Path, limit: int) -> int:
    """albert-base-v2's files: spiece.model, tokenizer_config.json."""
    import sentencepiece

    (folder / "text.txt").write_text("\n".join(TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "trained"), vocab_size=80, hard_vocab_limit=False,
        minloglevel=2, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, pad_piece="<pad>", unk_piece="<unk>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
    )  # fmt: skip
    (folder / "trained.model").rename(folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit, "do_lower_case": True}))
    return 90
