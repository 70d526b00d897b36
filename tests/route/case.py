"""A corpus of threads, queries and a proxy, as small as they go."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from ifguide.data.text.bpe import train_bpe
from ifguide.quickstart.comments import CommentSource
from ifguide.quickstart.corpus import threads
from ifguide.quickstart.prepare import _query
from ifguide.system.files import write_jsonl

VOCAB = 400


def write_texts(folder: Path, documents: int = 12, queries: int = 24) -> Path:
    """``corpus.jsonl``, ``toxic.jsonl``, ``safe.jsonl``; in most documents is planted abuse."""
    texts = [document.text for document in threads(CommentSource("planted", 1), documents, 0.6)]
    write_jsonl(folder / "corpus.jsonl", [{"text": text} for text in texts])
    source = CommentSource("queries", 1)
    for name, abusive in (("toxic", True), ("safe", False)):
        write_jsonl(folder / f"{name}.jsonl", [_query(source, abusive) for _ in range(queries)])
    train_bpe(texts, VOCAB, folder / "tokenizer.json")
    return folder


def write_case(folder: Path) -> Path:
    """The texts, and ``proxy``: a random model of two layers that reads them."""
    write_texts(folder)
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=512, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=256, initializer_range=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder / "proxy")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder / "proxy")
    return folder
