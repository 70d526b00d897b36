"""Texts a second through a Detoxify checkpoint: ours against the package's own `predict`.

    python benchmarks/scoring.py [--output FILE]

A checkpoint in Detoxify's own layout with random weights (by default the `original` classifier, BERT, with 4 layers of
256 in place of 12 of 768) scores pieces of this repository's documentation of mixed length, most of them short, as
continuations and comments are. `predict` gets the texts in their order in batches of each size given; its fastest
counts. Both must give the same scores. About three minutes on one core that nobody else uses.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import REPOSITORY, markdown_table, report, time_alternating
from generation import ProcessorTime, documentation

sys.path.insert(0, str(REPOSITORY))  # the checkpoint is made as the tests make theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64], help="tried with predict")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", metavar="FILE")
    args = parser.parse_args()

    import numpy as np
    from detoxify import Detoxify

    from ifguide.scorers.detoxify import DetoxifyScorer
    from ifguide.system.processes import keep_freed_memory
    from tests.support.tiny_scorers import save_detoxify

    keep_freed_memory()
    texts = mixed_texts(args.texts)
    with tempfile.TemporaryDirectory() as folder:
        # the package asks for the configuration under this name: a folder needs no network
        save_detoxify(
            Path(folder), "original", model_type=folder, hidden_size=args.width, intermediate_size=4 * args.width,
            num_hidden_layers=args.layers, num_attention_heads=max(1, args.width // 64), max_position_embeddings=512,
            initializer_range=0.05,
        )  # fmt: skip
        (checkpoint,) = Path(folder).glob("*.ckpt")
        theirs = Detoxify(checkpoint=str(checkpoint))
        ours = DetoxifyScorer("original", folder)

    def predict(size: int) -> list[float]:
        parts = [theirs.predict(texts[start : start + size])["toxicity"] for start in range(0, len(texts), size)]
        return [score for part in parts for score in (part if isinstance(part, list) else [part])]

    difference = float(np.abs(ours.score(texts)["toxicity"] - np.array(predict(args.batch_sizes[0]))).max())
    works: dict[str, Any] = {"ifguide": lambda: ours.score(texts)}
    for size in args.batch_sizes:
        works[f"predict, batches of {size}"] = lambda size=size: predict(size)
    processor = ProcessorTime()
    timings = time_alternating({name: processor.of(name, work) for name, work in works.items()}, args.repeats)

    rates = {name: len(texts) / timing.median for name, timing in timings.items()}
    best = max(rate for name, rate in rates.items() if name != "ifguide")
    rows = [(name, f"{rate:.1f}", f"{rate / best:.2f}") for name, rate in rates.items()]
    print(markdown_table(["", "texts/s", "times predict's best"], rows), file=sys.stderr)
    lengths = sorted(len(ids) for ids in ours.tokenizer(texts, truncation=True)["input_ids"])
    report(
        "scoring",
        {
            "model": {"class": type(ours.model).__name__, "layers": args.layers, "width": args.width},
            "texts": len(texts),
            "tokens": {"median": lengths[len(lengths) // 2], "mean": sum(lengths) / len(lengths), "max": lengths[-1]},
            "largest_difference": difference,
            "timings": {name: timing.as_dict() for name, timing in timings.items()},
            "texts_per_second": {name: round(rate, 2) for name, rate in rates.items()},
            "times_predict": round(rates["ifguide"] / best, 2),
            "times_predict_by_processor_time": processor.times_the_best_other("ifguide"),
        },
        args.output,
    )


def mixed_texts(count: int) -> list[str]:
    """Distinct pieces of the documentation; their lengths are log-uniform from 2 to 100 words."""
    words = documentation().split()
    draw = random.Random(0)
    texts: dict[str, None] = {}
    while len(texts) < count:
        length = round(2 * 50 ** draw.random())
        start = draw.randrange(len(words) - length)
        texts[" ".join(words[start : start + length])] = None
    return list(texts)


if __name__ == "__main__":
    main()
