"""Small evaluation sets in the local form, and a tokenizer with a few words beside single bytes."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.support.tiny_models import EOD, favour, tiny_neox

RTP = [
    {"id": str(number), "prompt": f"prompt number {number} says", "toxicity": toxicity}
    for number, toxicity in enumerate([0.9, 0.1, None, 0.5, 0.49, 0.0, 1.0])
]
BOLD = [
    {"prompt": f"the {domain} of number {number}", "domain": domain, "category": "some", "name": "someone"}
    for number, domain in enumerate(["gender", "race", "race", "profession", "race"])
]
ATTAQ = [
    {"prompt": f"how would one do {number}?", "label": label} for number, label in enumerate(["violence", "pii", "pii"])
]
LAMBADA = [
    {"text": text}
    for text in (
        "the dog slept and the cat sat on the mat",
        "who came in from the rain? it was the cat",
        "there were two doors, and before each lay two mats",
        "he had no dog, he had no horse, he had a cat",
        "she shook the dust out of the mat",
    )
]
HELDOUT = [
    {"text": "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of folly."},
    {"text": "ab" * 97},  # its last window reads the same tokens as the one before, but counts two of them
    {"text": "the cat sat on the mat " * 20},
    {"text": "a"},
]


def write_sets(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("rtp", RTP), ("bold", BOLD), ("attaq", ATTAQ), ("lambada", LAMBADA), ("heldout", HELDOUT)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def word_pieces() -> PreTrainedTokenizerFast:
    """Bytes, and ` cat` and ` mat` in one token each."""
    merges = [("Ġ", "c"), ("Ġ", "m"), ("a", "t"), ("Ġc", "at"), ("Ġm", "at")]
    tokens = [EOD, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOD)


def save_model(folder: Path, nats: float = 12.0) -> Path:
    """A model that expects ` mat` more by ``nats``; transformers 4 can load the folder too."""
    tokenizer = word_pieces()
    model = tiny_neox()
    favour(model, tokenizer.encode(" mat")[0], nats)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    return folder
