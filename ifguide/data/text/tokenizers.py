"""The tokenizers of GPT-NeoX, by its names and with its ids, outside a NeoX process.

``tokenizer_type`` and ``vocab_file`` mean what they mean in a NeoX configuration. Deliberate
differences: a tokenizer without ``<|endoftext|>`` has ``eod`` None (NeoX fails, or takes the unknown
token for it), truncation and padding stored in a ``tokenizer.json`` are ignored (they would cut
training documents), and `CharLevelTokenizer` decodes UTF-8 (NeoX garbles everything but ASCII).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ifguide.config.hints import TOKENIZER_FILES, tokenizer_hint, with_hint
from ifguide.data.text.content import (
    BYTES,
    byte_symbols,
    content_hash,
    files_in,
    parse_pieces,
    piece_bytes,
    read_merges,
    template,
    vocabulary_hash,
)
from ifguide.errors import InputError
from ifguide.system.files import read_json, write_json, write_text

EOD_TOKEN = "<|endoftext|>"


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        name: NeoX's name of the type.
        vocab_size: number of ids, before NeoX pads it for its embedding.
        eod: id of the end-of-document token, or None if the vocabulary has none.
        vocabulary_fingerprint: hash of the vocabulary and the merges alone, as earlier versions recorded it under
            ``identity``.
        prefix, suffix: what the tokenizer's own template puts before and after every text.
        bos: ``keep`` or ``strip``, whether those stand around the texts of the data (`TextReader`).
    """

    name: str
    vocab_size: int
    eod: int | None
    vocabulary_fingerprint: str
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    bos: str = "keep"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that can change an id or a decoded text; equal however a file is formatted."""

    def encode(self, text: str) -> list[int]:
        """``prefix + bare(text) + suffix``, as GPT-NeoX's own preprocessing encodes; no end-of-document token.

        Raises:
            UnicodeEncodeError, TypeError: the text holds lone surrogates, which no encoding can express.
        """
        return [*self.prefix, *self.bare(text), *self.suffix]

    @abstractmethod
    def bare(self, text: str) -> list[int]:
        """Token ids of ``text`` alone, without the template."""

    def bare_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`bare` of several texts."""
        return [self.bare(text) for text in texts]

    @abstractmethod
    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`bare` of ``text``, and the bytes (begin, end) of its UTF-8 that each token is made of.

        Tokens that share a character, or a dummy space before the first, all have that character's bytes.
        """

    @abstractmethod
    def token_id(self, token: str) -> int | None:
        """Id of a token by its name in the vocabulary, or None."""

    @abstractmethod
    def token_name(self, index: int) -> str | None:
        """The inverse of `token_id`."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included; ids beyond the vocabulary (padding) are left out."""

    @abstractmethod
    def token_bytes(self, index: int) -> bytes:
        """What token ``index`` adds to the UTF-8 text: maybe only part of a character, nothing beyond the vocabulary.

        Where a tokenizer's decoder looks at neighbours (a space before the first word), it is the token's own part.
        """

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write a Hugging Face tokenizer folder that ``AutoTokenizer.from_pretrained`` loads.

        Raises:
            InputError: this type has no such form.
        """


class HFTokenizer(Tokenizer):
    """A ``tokenizer.json`` of the Hugging Face ``tokenizers`` library."""

    name = "HFTokenizer"

    def __init__(self, vocab_file: str):
        from tokenizers import Tokenizer as Backend

        description = read_json(vocab_file, "tokenizer file")
        try:
            backend = Backend.from_file(vocab_file)
        except Exception as error:  # the library raises bare Exception for every fault
            raise InputError(f"{vocab_file} is not a tokenizer.json: {error}") from None
        self._setup(backend, description["model"].get("merges") or ())

    def _setup(self, backend: Any, merges: Sequence[Any]) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        # a post-processor changes no id of the text itself, but byte-level ones cut blanks out of the offsets
        self._bare = type(backend).from_str(json.dumps(json.loads(backend.to_str()) | {"post_processor": None}))
        self.prefix, self.suffix = template(backend, self._bare)
        self.vocab_size = backend.get_vocab_size()
        self.eod = backend.token_to_id(EOD_TOKEN)
        self.vocabulary_fingerprint = vocabulary_hash(backend.get_vocab(), merges)
        decoder = json.loads(backend.to_str())["decoder"] or {}
        self._is_byte_level = "ByteLevel" in (part.get("type") for part in (decoder, *decoder.get("decoders", ())))
        # both put a space before a token; ## marks one that continues a word
        self._joins_with_spaces = not decoder or decoder["type"] == "WordPiece"
        self._added = {index: token.content for index, token in backend.get_added_tokens_decoder().items()}

    @cached_property
    def fingerprint(self) -> str:
        return content_hash(self._bare, self.prefix, self.suffix)

    def bare(self, text: str) -> list[int]:
        return self._bare.encode(text).ids

    def bare_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._bare.encode_batch(list(texts))]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self._bare.encode(text)
        if text.isascii():
            return encoding.ids, encoding.offsets
        places = [0, *itertools.accumulate(len(character.encode()) for character in text)]
        return encoding.ids, [(places[begin], places[end]) for begin, end in encoding.offsets]

    def token_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def token_name(self, index: int) -> str | None:
        return self._backend.id_to_token(index)

    def decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def token_bytes(self, index: int) -> bytes:
        symbol = self._backend.id_to_token(index)
        if symbol is None:
            return b""
        if index in self._added:
            return self._added[index].encode()
        if self._is_byte_level:
            return b"".join(BYTES[letter] if letter in BYTES else letter.encode() for letter in symbol)
        if self._joins_with_spaces:
            return (symbol[2:] if symbol.startswith("##") else f" {symbol}").encode()
        return piece_bytes(symbol)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        _save_fast(self._backend, self, folder)


class GPT2BPETokenizer(HFTokenizer):
    """The original GPT-2 byte-level BPE: a ``vocab.json`` and a ``merges.txt``."""

    name = "GPT2BPETokenizer"

    def __init__(self, vocab_file: str, merge_file: str):
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers

        vocab = read_json(vocab_file, "vocabulary file")
        if not isinstance(vocab, dict) or not all(isinstance(index, int) for index in vocab.values()):
            raise InputError(f"vocabulary file {vocab_file} is not a JSON object of token -> id")
        if EOD_TOKEN not in vocab:
            raise InputError(f"vocabulary file {vocab_file} has no {EOD_TOKEN}, which {self.name} needs")
        missing = set(pre_tokenizers.ByteLevel.alphabet()) - vocab.keys()
        if missing:
            raise InputError(
                f"vocabulary file {vocab_file} lacks {len(missing)} of the 256 byte symbols, so some text "
                "could not be encoded; is it a GPT-2 vocab.json?"
            )
        merges = read_merges(merge_file)
        try:
            backend = Backend(models.BPE(vocab=vocab, merges=merges))
        except Exception as error:  # the library raises bare Exception for every fault
            raise InputError(f"merges file {merge_file} does not fit {vocab_file}: {error}") from None
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([EOD_TOKEN])
        self._setup(backend, merges)


class SPMTokenizer(Tokenizer):
    """A SentencePiece model."""

    name = "SPMTokenizer"

    def __init__(self, vocab_file: str):
        import sentencepiece

        try:
            model = Path(vocab_file).read_bytes()
        except OSError as error:
            raise InputError(f"SentencePiece model {vocab_file} cannot be read: {error.strerror}") from None
        try:
            self._backend = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise InputError(f"{vocab_file} is not a SentencePiece model") from None
        self.vocab_size = self._backend.get_piece_size()
        self.eod = self.token_id(EOD_TOKEN)
        self.vocabulary_fingerprint = hashlib.blake2b(model, digest_size=32).hexdigest()

    @property
    def fingerprint(self) -> str:
        return self.vocabulary_fingerprint

    def bare(self, text: str) -> list[int]:
        return self._backend.encode(text)

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        return parse_pieces(self._backend.encode(text, out_type="serialized_proto"))

    def token_id(self, token: str) -> int | None:
        index = self._backend.piece_to_id(token)
        return index if self._backend.id_to_piece(index) == token else None

    def token_name(self, index: int) -> str | None:
        return self._backend.id_to_piece(index) if 0 <= index < self.vocab_size else None

    def decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode([int(index) for index in ids if index < self.vocab_size])

    def token_bytes(self, index: int) -> bytes:
        return piece_bytes(self._backend.id_to_piece(index)) if 0 <= index < self.vocab_size else b""

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        raise InputError(
            f"a Hugging Face tokenizer folder cannot be made of a SentencePiece model; to write {folder}, "
            "convert the model to a tokenizer.json first and use HFTokenizer"
        )


class CharLevelTokenizer(Tokenizer):
    """One id per byte of the UTF-8 text; 0 ends a document. Needs no vocabulary file."""

    name = "CharLevelTokenizer"
    vocab_size = 512  # NeoX's; ids from 256 on never occur
    eod = 0

    # of the folder that `save_pretrained` writes; a constant, since this type must need no library
    fingerprint = "142fed0564a914026d4fa61e438b99d046c10dab093015e85fed076da594fae6"

    def __init__(self) -> None:
        self.vocabulary_fingerprint = vocabulary_hash(byte_vocab(), ())

    def bare(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids = self.bare(text)
        return ids, [(place, place + 1) for place in range(len(ids))]

    def token_id(self, token: str) -> int | None:
        return byte_vocab().get(token)

    def token_name(self, index: int) -> str | None:
        return next((token for token, known in byte_vocab().items() if known == index), None)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(int(index) for index in ids if index < 256).decode("utf-8", errors="replace")

    def token_bytes(self, index: int) -> bytes:
        return bytes([index]) if 0 <= index < 256 else b""

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """The folder's tokenizer writes ``<|endoftext|>`` for id 0 and so cannot encode a NUL character;
        all else is the same."""
        _save_fast(self._backend(), self, folder)

    def _backend(self) -> Any:
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers

        backend = Backend(models.BPE(vocab=byte_vocab(), merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([EOD_TOKEN])
        return backend


# NeoX's name -> the class and the files it is built from, named as on the command line
_TYPES: Mapping[str, tuple[Callable[..., Tokenizer], tuple[str, ...]]] = {
    "HFTokenizer": (HFTokenizer, ("vocab-file",)),
    "SPMTokenizer": (SPMTokenizer, ("vocab-file",)),
    "GPT2BPETokenizer": (GPT2BPETokenizer, ("vocab-file", "merge-file")),
    "CharLevelTokenizer": (CharLevelTokenizer, ()),
}


def build_tokenizer(
    tokenizer_type: str,
    vocab_file: str | os.PathLike | None,
    merge_file: str | os.PathLike | None = None,
    options: str = "--",
    eod_token: str | None = None,
) -> Tokenizer:
    """The tokenizer of this NeoX type (any case), from these files.

    Args:
        eod_token: the token that ends documents (None: ``<|endoftext|>`` where the vocabulary has it).
        options: what the names of the options start with that name it, for messages.

    Raises:
        InputError: an unknown type (lists the known), a file that is missing or no vocabulary, or no such token.
    """
    name = next((known for known in _TYPES if known.lower() == tokenizer_type.lower()), None)
    if name is None:
        raise InputError(f"tokenizer type {tokenizer_type!r} is not supported; choose one of: {', '.join(_TYPES)}")
    build, needs = _TYPES[name]
    vocab_file, merge_file = files_in(name, vocab_file, merge_file)
    given = {"vocab-file": vocab_file, "merge-file": merge_file}
    files = []
    for need in needs:
        path, what = given[need], need.replace("-", " ")
        if path is None:
            raise InputError(f"{name} needs a {what} ({options}{need})")
        if not Path(path).is_file():
            hint = tokenizer_hint(path, TOKENIZER_FILES[name][need.replace("-", "_")])
            raise InputError(with_hint(f"{what} {path} does not exist or is not a file", hint))
        files.append(os.fspath(path))
    tokenizer = build(*files)
    if eod_token is not None:
        tokenizer.eod = find_token(tokenizer, eod_token, options)
    return tokenizer


def find_token(tokenizer: Tokenizer, eod_token: str, options: str = "--") -> int:
    """Id of the separator that the user names.

    Raises:
        InputError: the vocabulary has no such token.
    """
    index = tokenizer.token_id(eod_token)
    if index is None:
        raise InputError(
            f"{options}eod-token {eod_token!r} is not in the tokenizer's vocabulary; write it as it is there"
        )
    return index


def byte_vocab() -> dict[str, int]:
    """Byte-level BPE's visible character for each byte -> the byte; 0 is the end of a document."""
    symbols = byte_symbols()
    return {EOD_TOKEN: 0} | {symbols[byte]: byte for byte in range(1, 256)}


def _save_fast(backend: Any, tokenizer: Tokenizer, folder: str | os.PathLike) -> None:
    """Write the tokenizer as it is: transformers would rebuild parts of it, and name a class that its version 4,
    common in GPT-NeoX environments, cannot load."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_text(Path(folder) / "tokenizer.json", backend.to_str(pretty=True))
    special = {} if tokenizer.eod is None else {"eos_token": backend.id_to_token(tokenizer.eod)}
    if tokenizer.bos != "keep":
        special["ifguide_bos"] = tokenizer.bos
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    write_json(Path(folder) / "tokenizer_config.json", config)
