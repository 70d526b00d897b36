"""A byte-level BPE tokenizer trained on the corpus, in GPT-NeoX's HFTokenizer format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ifguide.system.files import atomic_path

EOD = "<|endoftext|>"


def train_bpe(texts: list[str], vocab_size: int, output: Path, special: Sequence[str] = ()) -> int:
    """Train on ``texts`` and write ``output`` (tokenizer.json); returns the size of the vocabulary.

    Args:
        special: tokens beside `EOD` that no text is cut into, unless it spells them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOD, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    with atomic_path(output) as temporary:
        tokenizer.save(str(temporary))
    return tokenizer.get_vocab_size()
