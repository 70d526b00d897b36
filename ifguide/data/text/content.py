"""What a tokenizer file says, apart from how it is written: its template, its hash, the pieces of a SentencePiece text.

A ``tokenizer.json`` also holds settings that change no id and no decoded text (truncation, padding, the offsets of
byte-level parts). They are left out of the hash, so that two libraries' versions of one tokenizer count as one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.system.text_files import read_text

# the type where none is named
DEFAULT_TYPE = "HFTokenizer"
# what a Hugging Face folder may carry: NeoX's type and its files, the first that is there counts
FOLDER_FILES = (
    ("HFTokenizer", ("tokenizer.json",)),
    ("SPMTokenizer", ("tokenizer.model",)),
    ("GPT2BPETokenizer", ("vocab.json", "merges.txt")),
)
# texts of which any vocabulary reads one
_PROBES = ("a", "0", ".", "e", "the", "\u4e2d")

# settings of byte-level parts that change no id: by the part of the file in which they stand
_WITHOUT_EFFECT = {"pre_tokenizer": ("trim_offsets",), "decoder": ("add_prefix_space", "trim_offsets", "use_regex")}


def template(backend: Any, bare: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that ``backend`` puts before and after every single text.

    Args:
        backend: a `tokenizers.Tokenizer`.
        bare: the same without its post-processor.

    Raises:
        InputError: the post-processor does something else to a text than to put tokens around it.
    """
    added = backend.encode("").ids
    for probe in _PROBES:
        inner = bare.encode(probe).ids
        if not inner:
            continue
        encoding = backend.encode(probe)
        whole, marks = encoding.ids, encoding.special_tokens_mask
        begin = next((place for place, mark in enumerate(marks) if not mark), len(marks))
        prefix, suffix = whole[:begin], whole[begin + len(inner) :]
        if whole != [*prefix, *inner, *suffix] or added != [*prefix, *suffix]:
            raise InputError("the tokenizer's post_processor does more than to put tokens around a text; take it out")
        return tuple(prefix), tuple(suffix)
    return tuple(added), ()


def content_hash(bare: Any, prefix: tuple[int, ...] = (), suffix: tuple[int, ...] = ()) -> str:
    """Hash of a `tokenizers.Tokenizer` without its post-processor, and of the template that this stood for."""
    content = json.loads(bare.to_str())
    for key in ("version", "truncation", "padding", "post_processor"):
        content.pop(key, None)
    for key, names in _WITHOUT_EFFECT.items():
        for part in _parts(content.get(key)):
            if part.get("type") == "ByteLevel":
                for name in names:
                    part.pop(name, None)
    content["template"] = [list(prefix), list(suffix)]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def carried(folder: str | os.PathLike) -> dict[str, list[Path]]:
    """The types of tokenizers whose files lie in a Hugging Face folder, and those files; in the order of
    `FOLDER_FILES`."""
    found = {kind: [Path(folder) / name for name in names] for kind, names in FOLDER_FILES}
    return {kind: files for kind, files in found.items() if all(file.is_file() for file in files)}


def files_in(
    tokenizer_type: str, vocab_file: str | os.PathLike | None, merge_file: str | os.PathLike | None
) -> tuple[str | os.PathLike | None, str | os.PathLike | None]:
    """Vocabulary and merges; those inside of it where ``vocab_file`` is a Hugging Face folder.

    Returns:
        What was given, where that is no folder or has no files of this type: who opens them says so.
    """
    if vocab_file is None or not Path(vocab_file).is_dir():
        return vocab_file, merge_file
    files = {kind.lower(): files for kind, files in carried(vocab_file).items()}.get(tokenizer_type.lower())
    if files is None:
        return vocab_file, merge_file
    return str(files[0]), merge_file or (str(files[1]) if len(files) > 1 else None)


def type_meant(
    tokenizer_type: str | None, vocab_file: str | os.PathLike | None, recorded: str | None = None
) -> str | None:
    """The type of the tokenizer that is named: the one rule of every command.

    It is the type that is named, else the one that the data records, else `DEFAULT_TYPE`. A folder without the files
    of the recorded type may hold the same vocabulary in the file of `DEFAULT_TYPE`, as `convert` writes it.

    Args:
        recorded: the type that the data records, if any.

    Returns:
        None where neither a type nor a file is named: nobody asks for another tokenizer than that of the data.
    """
    if tokenizer_type or not vocab_file:
        return tokenizer_type
    if recorded in dict(FOLDER_FILES) and Path(vocab_file).is_dir():
        found = carried(vocab_file)
        if recorded not in found and DEFAULT_TYPE in found:
            return DEFAULT_TYPE
    return recorded or DEFAULT_TYPE


def read_merges(path: str) -> list[tuple[str, str]]:
    lines = read_text(path, "merges file").split("\n")
    merges = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split()
        if len(pair) != 2:
            raise InputError(f"merges file {path} line {number}: expected two symbols, got {len(pair)}")
        merges.append((pair[0], pair[1]))
    return merges


def vocabulary_hash(vocab: Mapping[str, int], merges: Sequence[Any]) -> str:
    """Hash of the token <-> id mapping and the merges, in whatever file format they were stored."""
    pairs = [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in merges]
    content = json.dumps([sorted(vocab.items(), key=lambda item: item[1]), pairs], ensure_ascii=True)
    return hashlib.blake2b(content.encode(), digest_size=32).hexdigest()


def parse_pieces(message: bytes) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and byte spans of a serialized ``SentencePieceText``.

    The library gives the bytes of a character that is spelled by several pieces to the last of them; here each has
    them. A dummy space before the first word gets the bytes of what follows, too.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for field, value in _fields(message):
        if field == 2:  # SentencePieceText.pieces
            piece = dict(_fields(value))
            ids.append(piece.get(2, 0))
            spans.append((piece.get(4, 0), piece.get(5, 0)))
    following = (len(message), len(message))
    for place in range(len(spans) - 1, -1, -1):
        begin, end = spans[place]
        if begin == end:
            spans[place] = following if following[0] <= begin < following[1] else (begin, begin + 1)
        following = spans[place]
    return ids, spans


def byte_symbols() -> dict[int, str]:
    """Byte-level BPE's visible character for each byte."""
    # transformers has the same table, but not in its documented interface, and base verbs run without it
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + rank) for rank, byte in enumerate(hidden)}


BYTES = {symbol: bytes([byte]) for byte, symbol in byte_symbols().items()}
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def piece_bytes(piece: str) -> bytes:
    """UTF-8 of a SentencePiece piece: ``▁`` is a space, ``<0xE4>`` a byte of a character that has no piece."""
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """A part of a tokenizer.json, or the members of a sequence of them."""
    if isinstance(component, dict):
        yield component
        for key in ("pretokenizers", "decoders", "normalizers", "processors"):
            for inner in component.get(key) or ():
                yield from _parts(inner)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer message: (number, integer or bytes)."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value: Any
            value, place = _varint(message, place)
        else:
            length, place = (_varint(message, place)) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value = message[place : place + length]
            place += length
        yield tag >> 3, value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
