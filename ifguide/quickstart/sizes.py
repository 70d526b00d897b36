"""How much a quickstart does: the whole job, or a toy of the same stages that shows in seconds whether they work."""

from __future__ import annotations

from dataclasses import dataclass, field

from ifguide.quickstart.prepare import CorpusSettings


@dataclass(frozen=True)
class Sizes:
    """Numbers that change how long the stages take, and nothing of what they do.

    Attributes:
        corpus: sizes of the built-in corpus; its seed is the job's.
        vocab_size: of the trained BPE tokenizer.
        factor_tokens: sample that the curvature factors are fitted on.
        samples: continuations a prompt.
        max_new_tokens: of a continuation.
        one_process: everything in the calling process, but for the base model's training, which is started as ever.
    """

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    vocab_size: int = 4096
    factor_tokens: int = 40_000
    samples: int = 25
    max_new_tokens: int = 20
    one_process: bool = False


# about 5,000 tokens, and two training steps even where all texts of the library are short
TOY = Sizes(
    CorpusSettings(
        num_threads=12, abusive_share=1.0, heldout_threads=1, num_queries=4, num_prompts=2, judge_examples=20,
        library_texts=8,
    ),
    vocab_size=512,
    factor_tokens=1500,
    samples=2,
    max_new_tokens=3,
    one_process=True,
)  # fmt: skip
