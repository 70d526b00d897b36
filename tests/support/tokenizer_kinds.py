"""Tiny tokenizers of every kind that texts are read with, trained on a page of our own text.

`KINDS` names them; `build(name, folder)` writes the files and says what they are. `model_folder` makes the tokenizer of
a Hugging Face folder of one.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EOD = "<|endoftext|>"

CORPUS = (
    "The man said that you are the first member of the team. She is a dumb fool, and the game was released in 1863.",
    "It's   spaced\tand broken: don't stop! Who said so? The old men of the town said it again and again.",
    "Schöne Grüße aus Köln, 世界 and 😀 from the café; naïve people said that the fox jumps over the lazy dog.",
)

# texts that separate the ways of reading: spaces, capitals, accents, characters in several tokens, added tokens
TEXTS = (
    "The man said you are a fool",
    " leading space",
    "Two  spaces\n\nand   more ",
    "STUPID Idiot",
    "Grüße, 世界 😀 naïve ﬁsh",
    "☃☃ beyond the vocabulary",
    f"before{EOD}after",
    "a",
)


@dataclass(frozen=True)
class Kind:
    """A tokenizer on disk.

    Attributes:
        name: as in `KINDS`.
        tokenizer_type: GPT-NeoX's.
        vocab_file, merge_file: its files.
        prefix, suffix: names of the template's tokens.
        lossless: the tokens spell the text byte for byte, but for one dummy space before it.
    """

    name: str
    tokenizer_type: str
    vocab_file: Path | None
    merge_file: Path | None = None
    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    lossless: bool = True

    @property
    def files(self) -> tuple[str, Path | None, Path | None]:
        """What `TextReader.from_files` takes first."""
        return self.tokenizer_type, self.vocab_file, self.merge_file


@dataclass(frozen=True)
class _Shape:
    """A ``tokenizer.json`` before its template: how it is built, and the names of its BOS and EOS."""

    build: Callable[[], Any]
    bos: str = "<s>"
    eos: str = "</s>"
    lossless: bool = True


def _special(shape_bos: str = "<s>", shape_eos: str = "</s>") -> list[str]:
    return [EOD, shape_bos, shape_eos]


def _byte_level(prefix_space: bool = False, normalizer: Any = None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS * 8,
        trainers.BpeTrainer(vocab_size=400, special_tokens=_special(), initial_alphabet=alphabet, show_progress=False),
    )
    return backend


def _lowercase() -> Any:
    from tokenizers import normalizers

    return _byte_level(normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]))


def _neox() -> Any:
    """As 20B_tokenizer.json: NFC, added tokens of several spaces, and a post-processor that only moves offsets."""
    from tokenizers import AddedToken, normalizers, processors

    backend = _byte_level(normalizer=normalizers.NFC())
    backend.add_tokens([AddedToken(" " * count, normalized=True) for count in (2, 3, 4)])
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return backend


def _llama2() -> Any:
    """A dummy ▁ before every text by the normalizer, bytes for what has no piece."""
    from tokenizers import normalizers

    backend = _pieces()
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return backend


def _metaspace() -> Any:
    """The dummy ▁ by the pre-tokenizer, before the first word only."""
    from tokenizers import pre_tokenizers

    backend = _pieces()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


def _pieces() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)  # words, for training
    special = ["<unk>", *_special(), *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(
        CORPUS * 8, trainers.BpeTrainer(vocab_size=450, special_tokens=special, show_progress=False)
    )
    backend.pre_tokenizer = None
    # the byte pieces are no special tokens, or a text could spell them
    description = json.loads(backend.to_str())
    description["added_tokens"] = [one for one in description["added_tokens"] if not one["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(description))


def _llama3() -> Any:
    """A regular expression cuts, bytes are merged, and one post-processor holds another."""
    from tokenizers import Regex, pre_tokenizers

    backend = _byte_level()
    words = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return backend


def _unigram() -> Any:
    """As an export of a SentencePiece unigram model."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", *_special()], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS * 8, trainer)
    return backend


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[UNK]", EOD, "[CLS]", "[SEP]"], show_progress=False
    )
    backend.train_from_iterator(CORPUS * 8, trainer)
    return backend


_SHAPES = {
    "byte-level": _Shape(_byte_level),
    "byte-level-prefix-space": _Shape(functools.partial(_byte_level, True)),
    "byte-level-lowercase": _Shape(_lowercase, lossless=False),
    "neox": _Shape(_neox, lossless=False),
    "llama2": _Shape(_llama2),
    "metaspace": _Shape(_metaspace),
    "llama3": _Shape(_llama3),
    "unigram": _Shape(_unigram, lossless=False),
    "wordpiece": _Shape(_wordpiece, "[CLS]", "[SEP]", lossless=False),
}
_TEMPLATES = {"": ("", ""), "+bos": ("bos", ""), "+bos+eos": ("bos", "eos"), "+eos": ("", "eos")}

TEMPLATED = tuple(f"{shape}{template}" for shape in _SHAPES for template in _TEMPLATES)
"""The kinds of a ``tokenizer.json``."""

KINDS = (*TEMPLATED, "gpt2-files", "sentencepiece", "sentencepiece-bytes", "char-level")


def build(name: str, folder: Path) -> Kind:
    """Write the files of the kind ``name`` into ``folder``, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "char-level":
        return Kind(name, "CharLevelTokenizer", None)
    if name.startswith("sentencepiece"):
        path = folder / "spm.model"
        path.write_bytes(_sentencepiece(name.endswith("bytes")))
        return Kind(name, "SPMTokenizer", path, lossless=False)
    if name == "gpt2-files":
        model = json.loads(_trained("byte-level"))["model"]
        vocab, merges = folder / "vocab.json", folder / "merges.txt"
        vocab.write_text(json.dumps(model["vocab"]), encoding="utf-8")
        lines = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
        merges.write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
        return Kind(name, "GPT2BPETokenizer", vocab, merges)
    shape_name, _, template = name.partition("+")
    shape = _SHAPES[shape_name]
    before, after = _TEMPLATES[f"+{template}" if template else ""]
    prefix = (shape.bos,) if before else ()
    suffix = (shape.eos,) if after else ()
    path = folder / "tokenizer.json"
    path.write_text(_with_template(_trained(shape_name), prefix, suffix), encoding="utf-8")
    return Kind(name, "HFTokenizer", path, None, prefix, suffix, shape.lossless)


def model_folder(kind: Kind, folder: Path, **config: Any) -> Path:
    """The tokenizer of a Hugging Face folder; ``config`` is what tokenizer_config.json says."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, name in ((kind.vocab_file, {"SPMTokenizer": "tokenizer.model"}), (kind.merge_file, {})):
        if path is not None and path.parent != folder:
            shutil.copyfile(path, folder / name.get(kind.tokenizer_type, path.name))
    text = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOD, **config})
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return folder


@functools.cache
def _trained(shape: str) -> str:
    return _SHAPES[shape].build().to_str()


def _with_template(description: str, prefix: tuple[str, ...], suffix: tuple[str, ...]) -> str:
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_str(description)
    if prefix or suffix:
        ids = [(token, backend.token_to_id(token)) for token in (*prefix, *suffix)]
        template = processors.TemplateProcessing(single=" ".join([*prefix, "$A", *suffix]), special_tokens=ids)
        backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return backend.to_str(pretty=True)


@functools.cache
def _sentencepiece(byte_fallback: bool) -> bytes:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 8),
        model_writer=model,
        vocab_size=360 if byte_fallback else 120,
        byte_fallback=byte_fallback,
        hard_vocab_limit=False,
        user_defined_symbols=[EOD],
        minloglevel=2,
    )
    return model.getvalue()
