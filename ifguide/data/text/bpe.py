"""A byte-level BPE tokenizer trained on the corpus, in GPT-NeoX's HFTokenizer format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ifguide.system.files import atomic_path

EOD = "<|endoftext|>"


def train_bpe(
    texts: Iterable[str | list[str]], vocab_size: int, output: Path, special: Sequence[str] = (), min_frequency: int = 0
) -> int:
    """Train on ``texts`` and write ``output`` (tokenizer.json); returns the size of the vocabulary.

    The library counts words and merges the most frequent pair, the one of lower ids among equals. So the same texts
    give the same bytes, in whatever order and parts they come, and on any number of threads.

    Args:
        texts: or lists of texts.
        special: tokens beside `EOD` that no text is cut into, unless it spells them.
        min_frequency: a pair that is found less often than this is not merged.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[EOD, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    with atomic_path(output) as temporary:
        tokenizer.save(str(temporary))
    return tokenizer.get_vocab_size()
