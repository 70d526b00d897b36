"""What reward-augmented decoding costs: continuations a second without it, with a cached reward model, and uncached.

    python benchmarks/rad.py [--output FILE]

A GPT-NeoX language model and a GPT-2 classifier as its reward model, both with random weights and one tokenizer, both
saved and loaded as a user's are. Prompts are pieces of this repository's documentation, all of other lengths. "Read
anew" gives the same classifier as any scorer is used: all texts of all candidates of every step. Both ways must give
the same rewards; how far apart they are is printed. About five minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown_table, report, time_alternating
from generation import pieces, save_model

from ifguide.scorers.base import Scorer


class ReadAnew(Scorer):
    """``inner`` as a scorer that shows nothing but `score`, so that nothing of it can be cached."""

    def __init__(self, inner: Scorer):
        self._inner, self.name, self.labels = inner, inner.name, inner.labels

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        return self._inner.score(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=20)
    parser.add_argument("--top-k", type=int, default=20, help="candidates a step")
    parser.add_argument("--layers", type=int, default=4, help="of the language model")
    parser.add_argument("--width", type=int, default=256, help="of the language model")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--reward-layers", type=int, default=2)
    parser.add_argument("--reward-width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", metavar="FILE")
    args = parser.parse_args()

    from ifguide.generation.draw import Sampling, prompt_contexts, sample_continuations
    from ifguide.generation.rad import Rad
    from ifguide.models.language_model import load_language_model
    from ifguide.scorers.registry import load_scorer
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    sampling = Sampling(args.samples, args.max_new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        base, reward = Path(folder, "base"), Path(folder, "reward")
        save_model(base, args.layers, args.width, args.vocabulary)
        save_reward_model(reward, base, args.reward_layers, args.reward_width, args.vocabulary)
        lm, scorer = load_language_model(base), load_scorer(f"hf:{reward}#toxic")
        rads = {
            "no RAD": None,
            "RAD, cached": Rad(lm, scorer, top_k=args.top_k),
            "RAD, read anew": Rad(lm, ReadAnew(scorer), top_k=args.top_k),
        }
        assert [rad and rad.describe()["cached"] for rad in rads.values()] == [None, True, False]
    lengths = [6 + 2 * place for place in range(args.prompts)]
    contexts = prompt_contexts(lm, pieces(lm.reader, lengths), args.max_new_tokens)
    timings = time_alternating(
        {name: lambda rad=rad: sample_continuations(lm, contexts, sampling, rad=rad) for name, rad in rads.items()},
        args.repeats,
    )

    count = args.prompts * args.samples
    rates = {name: count / timing.median for name, timing in timings.items()}
    rows = [(name, f"{rate:.2f}", f"{rates['no RAD'] / rate:.2f}") for name, rate in rates.items()]
    print(markdown_table(["", "continuations/s", "times the time"], rows), file=sys.stderr)
    report(
        "rad",
        {
            "model": {"layers": args.layers, "width": args.width, "vocabulary": args.vocabulary},
            "reward_model": {"layers": args.reward_layers, "width": args.reward_width},
            "prompt_tokens": lengths,
            "samples": args.samples,
            "max_new_tokens": args.max_new_tokens,
            "candidates": args.top_k,
            "timings": {name: timing.as_dict() for name, timing in timings.items()},
            "continuations_per_second": {name: round(rate, 2) for name, rate in rates.items()},
            "cached_times_read_anew": round(rates["RAD, cached"] / rates["RAD, read anew"], 2),
            "largest_difference_of_rewards": largest_difference(
                lm, contexts, rads["RAD, cached"], rads["RAD, read anew"], args.top_k
            ),
        },
        args.output,
    )


def largest_difference(lm: Any, contexts: list[list[int]], cached: Any, anew: Any, candidates: int) -> float:
    """Between the rewards of both ways, over a few steps of the first candidates of each."""
    import torch

    draw = torch.Generator().manual_seed(0)
    ways = [rad.start(contexts, 1, 4) for rad in (cached, anew)]
    tokens = torch.empty(len(contexts), 0, dtype=torch.int64)
    worst = 0.0
    with torch.inference_mode():
        for _ in range(4):
            # words of the vocabulary, whose texts are the same tokens again
            words = torch.tensor(lm.encode([" and the of to in is that it for as with be on are"])[0])
            some = words[torch.randint(len(words), (len(contexts), candidates), generator=draw)]
            first, second = (way(some, tokens) for way in ways)
            worst = max(worst, float((first - second).abs().max()))
            tokens = torch.cat([tokens, some[:, :1]], dim=1)
    return worst


def save_reward_model(folder: Path, base: Path, layers: int, width: int, vocabulary: int) -> None:
    """A GPT-2 classifier with random weights and the tokenizer of ``base``."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=max(1, width // 64), n_positions=512,
            initializer_range=0.1, bos_token_id=0, eos_token_id=0, pad_token_id=0, num_labels=2,
            id2label={0: "ok", 1: "toxic"}, label2id={"ok": 0, "toxic": 1},
        )
    ).save_pretrained(folder)  # fmt: skip


if __name__ == "__main__":
    main()
