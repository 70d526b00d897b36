"""Continuations a second: 25 samples a prompt from one reading of it, against lm-eval's own `repeats: 25`.

    python benchmarks/generation.py [--lengths mixed] [--output FILE]

One GPT-NeoX with random weights (by default the shape of Pythia-70m: 6 layers of 512, 50304 tokens) continues pieces of
this repository's documentation by 20 tokens with top-p 0.9, on the CPU. With `--lengths three` the prompts have 10, 16
or 24 tokens, with `--lengths mixed` no two have one length. lm-eval asks its Hugging Face class for every repeat
as for a prompt of its own, in batches of each size given; its fastest counts. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import REPOSITORY, markdown_table, report, time_alternating

SAMPLES, MAX_NEW_TOKENS, TOP_P = 25, 20, 0.9
LENGTHS = {"three": lambda place: (10, 16, 24)[place % 3], "mixed": lambda place: 6 + 2 * place}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--lengths", choices=LENGTHS, default="three", help="of the prompts, in tokens")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=50304)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 300], help="tried with lm-eval")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", metavar="FILE")
    args = parser.parse_args()

    from ifguide.generation.draw import Sampling, prompt_contexts, sample_continuations
    from ifguide.models.language_model import load_language_model
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    sampling = Sampling(SAMPLES, MAX_NEW_TOKENS, TOP_P)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), args.layers, args.width, args.vocabulary)
        lm = load_language_model(folder)
    lengths = [LENGTHS[args.lengths](place) for place in range(args.prompts)]
    prompts = pieces(lm.reader, lengths)
    contexts = prompt_contexts(lm, prompts, MAX_NEW_TOKENS)

    works: dict[str, Any] = {"ifguide": lambda: sample_continuations(lm, contexts, sampling)}
    for size in args.batch_sizes:
        works[f"lm-eval, batches of {size}"] = lm_eval_repeats(lm, prompts, size)
    processor = ProcessorTime()
    timings = time_alternating({name: processor.of(name, work) for name, work in works.items()}, args.repeats)

    count = len(prompts) * SAMPLES
    rates = {name: count / timing.median for name, timing in timings.items()}
    best = max(rate for name, rate in rates.items() if name != "ifguide")
    ratio = rates["ifguide"] / best
    rows = [(name, f"{rate:.1f}", f"{rate / best:.2f}") for name, rate in rates.items()]
    print(markdown_table(["", "continuations/s", "times lm-eval's best"], rows), file=sys.stderr)
    report(
        "generation",
        {
            "model": {"layers": args.layers, "width": args.width, "vocabulary": args.vocabulary},
            "prompts": len(prompts),
            "prompt_tokens": lengths,
            "samples": SAMPLES,
            "max_new_tokens": MAX_NEW_TOKENS,
            "timings": {name: timing.as_dict() for name, timing in timings.items()},
            "continuations_per_second": {name: round(rate, 2) for name, rate in rates.items()},
            "times_lm_eval": round(ratio, 2),
            "times_lm_eval_by_processor_time": processor.times_the_best_other("ifguide"),
        },
        args.output,
    )


class ProcessorTime:
    """Processor seconds of each work: where others use the machine too, their ratios say more than those of the clock.
    The first run of a work warms up and is not counted."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def of(self, name: str, work: Callable[[], object]) -> Callable[[], None]:
        """``work``, measured."""
        found = self._seconds[name] = []

        def measured() -> None:
            started = time.process_time()
            work()
            found.append(time.process_time() - started)

        return measured

    def times_the_best_other(self, name: str) -> float:
        """How many times as much ``name`` does in a second as the best of the others."""
        medians = {work: statistics.median(seconds[1:]) for work, seconds in self._seconds.items()}
        return round(min(value for work, value in medians.items() if work != name) / medians[name], 2)


def lm_eval_repeats(lm: Any, prompts: list[str], batch_size: int) -> Any:
    """What lm-eval does with a task that says `repeats: 25`: every request 25 times through `HFLM.generate_until`."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        lm.reader.tokenizer.save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    theirs = HFLM(pretrained=lm.model, tokenizer=tokenizer, batch_size=batch_size, max_length=lm.max_length)
    options = {
        "do_sample": True, "temperature": 1.0, "top_p": TOP_P, "top_k": 0, "max_gen_toks": MAX_NEW_TOKENS,
        "until": [tokenizer.eos_token],
    }  # fmt: skip
    requests = [
        Instance("generate_until", {}, (prompt, dict(options)), index, metadata=("benchmark", index, SAMPLES))
        for index, prompt in enumerate(prompts)
    ]
    repeated = [request for request in requests for _ in range(SAMPLES)]
    return lambda: theirs.generate_until(repeated, disable_tqdm=True)


def pieces(reader: Any, lengths: list[int]) -> list[str]:
    """Pieces of the documentation of these numbers of tokens."""
    words = documentation().split()
    draw = random.Random(0)
    found: list[str] = []
    while len(found) < len(lengths):
        wanted = lengths[len(found)]
        start = draw.randrange(len(words) - wanted)
        for stop in range(start + 1, start + wanted + 1):
            piece = " ".join(words[start:stop])
            if len(reader.encode(piece)) == wanted:
                found.append(piece)
                break
    return found


def documentation() -> str:
    """Prose of this repository, without the marks of Markdown."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(REPOSITORY.glob("docs/*.md")))
    return re.sub(r"[`*|#<>-]+", " ", text)


def save_model(folder: Path, layers: int, width: int, vocabulary: int, heads: int = 8) -> None:
    """A GPT-NeoX with random weights and a byte-level BPE tokenizer of the documentation, filled up to 50277 tokens."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        [documentation()], vocab_size=min(8000, vocabulary), show_progress=False, special_tokens=["<|endoftext|>"]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|endoftext|>")
    unused = min(50277, vocabulary) - len(tokenizer)
    tokenizer.add_tokens([f"<unused{number}>" for number in range(unused)])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * width, max_position_embeddings=2048, bos_token_id=0, eos_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip


if __name__ == "__main__":
    main()
