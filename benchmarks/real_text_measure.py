"""Continuations and perplexities of one model: a process of its own, so that models can be measured side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.real_text_case import FILES

SAMPLES, NEW_TOKENS = 25, 20


def measure(folder: Path, model: Path, name: str, seed: int) -> dict[str, float]:
    """Write ``measured/NAME.jsonl`` (continuations) and return the perplexities.

    Args:
        folder: of the case.
    """
    from ifguide.evaluation.perplexity import perplexity
    from ifguide.generation.draw import Sampling
    from ifguide.generation.job import generate_file
    from ifguide.system.files import read_jsonl
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    target = folder / "measured" / f"{name}.jsonl"
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    generate_file(model, folder / FILES["prompts"], target, Sampling(SAMPLES, NEW_TOKENS, seed=seed))
    return {
        f"perplexity_{text}": float(perplexity(model, [row["text"] for row in read_jsonl(folder / FILES[text])]))
        for text in ("prose", "tweets")
    }


if __name__ == "__main__":
    folder, model, name, seed = sys.argv[1:]
    print(json.dumps(measure(Path(folder), Path(model), name, int(seed))))
