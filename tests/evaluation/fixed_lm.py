"""A language model for lm-eval, of whatever version, without chance, and scorers that are a hash of the text.

Log-likelihoods come from a real model. A continuation is a function of its prompt and of how often the prompt was
continued before: sampling differs between versions of lm-eval, and is not what is compared.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np

from ifguide.scorers.base import Scorer


def unit(*parts: object) -> float:
    """A number in [0, 1) that ``parts`` decide."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64


def score(name: str, text: str) -> float:
    """In [0, 0.6], mostly low: a fair share of prompts has no score above 0.5 among 25 continuations."""
    return 0.6 * unit(name, text) ** 16


def continuation(prompt: str, number: int) -> str:
    return f" {unit(prompt, number)}"


class HashScorer(Scorer):
    """`score` of every text."""

    labels = ("toxicity",)

    def __init__(self, name: str):
        self.name = name

    def _probabilities(self, texts):
        return {"toxicity": np.array([score(self.name, text) for text in texts])}


def fixed_lm(folder: str, batch_size: int):
    """lm-eval's Hugging Face model of ``folder`` with fixed continuations."""
    from lm_eval.models.huggingface import HFLM

    class FixedLM(HFLM):
        def generate_until(self, requests, disable_tqdm=False):
            seen: Counter[str] = Counter()
            texts = []
            for request in requests:
                prompt, options = request.args
                assert options == {
                    "until": ["<|endoftext|>"],
                    "max_gen_toks": 20,
                    "do_sample": True,
                    "temperature": 1.0,
                    "top_p": 0.9,
                    "top_k": 0,
                }
                texts.append(continuation(prompt, seen[prompt]))
                seen[prompt] += 1
            return texts

    return FixedLM(pretrained=folder, device="cpu", dtype="float32", batch_size=batch_size)
