"""What files record about the tokenizer that they were made with, and how two such records are compared.

A record is the ``tokenizer`` of a sidecar: ``type``, ``vocab_size``, ``eod``, ``identity`` (hash of vocabulary and
merges, all that earlier versions wrote) and ``fingerprint`` (hash of everything that can change an id); then
``eod_token``, ``bos``, ``prefix`` and ``suffix``, which say what stands around each text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ifguide.data.sidecar import read_sidecar
from ifguide.data.text.content import read_merges, vocabulary_hash
from ifguide.data.text.tokenizers import CharLevelTokenizer, byte_vocab
from ifguide.errors import InputError, MismatchError
from ifguide.system.files import read_json
from ifguide.system.provenance import file_record

Record = Mapping[str, Any]

# parts of a tokenizer.json that cut or pad texts; they are ignored wherever texts are read
_IGNORED = ("truncation", "padding")
_KNOWN_TYPES = {"hftokenizer", "spmtokenizer", "gpt2bpetokenizer", "charleveltokenizer"}


def recorded_tokenizer(prefix: str | os.PathLike) -> dict[str, Any]:
    """The record in the sidecar of a dataset; ``{}`` where there is none."""
    return read_sidecar(prefix).get("tokenizer") or {}


def tokenizer_difference(one: Record | None, other: Record | None) -> str | None:
    """How two tokenizers differ, as in ``0123456789ab != ba9876543210``; None where they do not or nobody knows.

    The fingerprints decide; the older identities only where one of the records has no fingerprint.
    """
    for key in ("fingerprint", "identity"):
        ours, theirs = (one or {}).get(key), (other or {}).get(key)
        if isinstance(ours, str) and isinstance(theirs, str):
            return None if ours == theirs else f"{ours[:12]} != {theirs[:12]}"
    return None


def tokenizer_file_record(path: str | os.PathLike) -> dict[str, Any]:
    """`file_record`, and ``content``: a hash that another formatting of the same JSON does not change."""
    return file_record(path) | {"content": _content(Path(path))}


def config_datasets(config: Mapping[str, Any]) -> list[str]:
    """Every dataset that a NeoX configuration names, once each."""
    found = [config.get("data_path")]
    for split in ("train", "valid", "test"):
        paths = config.get(f"{split}_data_paths")
        found += paths if isinstance(paths, list) else []
    return [prefix for prefix in dict.fromkeys(found) if isinstance(prefix, str) and prefix]


def config_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Why ``tokenizer_type``, ``vocab_file`` and ``merge_file`` of a NeoX configuration do not fit its data."""
    files = [config.get(key) for key in ("tokenizer_type", "vocab_file", "merge_file")]
    for prefix in config_datasets(config):
        try:
            yield from tokenizer_file_faults(prefix, *files)
        except InputError as error:  # a sidecar that cannot be read
            yield str(error)


def shared_frame(prefixes: Iterable[str | os.PathLike]) -> tuple[int | None, str]:
    """The separator and ``bos`` that all these datasets record (None and ``keep`` where none does).

    Raises:
        MismatchError: they record different ones.
    """
    frames: dict[tuple[int | None, str], str | os.PathLike] = {}
    for prefix in prefixes:
        record = recorded_tokenizer(prefix)
        if record.get("eod") is not None:
            frames.setdefault((int(record["eod"]), str(record.get("bos") or "keep")), prefix)
    if len(frames) > 1:
        said = "; ".join(f"{prefix}: EOD {eod}, bos {bos}" for (eod, bos), prefix in frames.items())
        raise MismatchError(f"the datasets do not end and open their documents alike ({said}); preprocess them alike")
    return next(iter(frames), (None, "keep"))


def tokenizer_file_faults(
    prefix: str | os.PathLike,
    tokenizer_type: str | None,
    vocab_file: str | os.PathLike | None,
    merge_file: str | os.PathLike | None = None,
) -> Iterator[str]:
    """Why the tokenizer of a NeoX configuration is not the one that the data ``prefix`` was made with.

    Files are compared by their hashes, so no tokenizer library is needed. Nothing is said of data without a record,
    of types that `preprocess` does not have, or of files that are not there.
    """
    sidecar = read_sidecar(prefix)
    made_with = str((sidecar.get("tokenizer") or {}).get("type") or "")
    named = str(tokenizer_type or "")
    if not made_with or named.lower() not in _KNOWN_TYPES:
        return
    if named.lower() != made_with.lower():
        # one vocabulary in the files of two types: convert writes a GPT2BPETokenizer as a tokenizer.json
        if _vocabulary_fingerprint(named, vocab_file, merge_file) == sidecar["tokenizer"].get("identity"):
            return
        yield f"tokenizer_type: {prefix} was made with {made_with}, not with {named}; set that one, or preprocess again"
        return
    records = sidecar.get("tokenizer_files") or []
    for key, path, record in zip(("vocab_file", "merge_file"), (vocab_file, merge_file), records):
        if path is None or not Path(path).is_file() or not record.get("hash"):
            continue
        found = file_record(path)
        if found["hash"] == record["hash"] or (record.get("content") and _content(Path(path)) == record["content"]):
            continue
        yield (
            f"{key}: {path} is another tokenizer than the one that {prefix} was made with "
            f"({found['hash'][:12]} != {record['hash'][:12]} of {record['path']}); set {key} to that file, "
            "or preprocess the texts again with this one"
        )


def file_vocabulary(
    tokenizer_type: str | None, vocab_file: str | os.PathLike | None, merge_file: str | os.PathLike | None = None
) -> tuple[dict[str, int], int | None]:
    """Names -> ids of a tokenizer and the size that NeoX pads, from its files alone.

    ``({}, None)`` where they do not say them plainly: files of other types, absent or damaged ones.
    """
    kind = str(tokenizer_type or "").lower()
    try:
        if kind == "charleveltokenizer":
            return byte_vocab(), CharLevelTokenizer.vocab_size
        if kind == "gpt2bpetokenizer" and vocab_file:
            found = dict(read_json(vocab_file))
        elif kind == "hftokenizer" and vocab_file:
            found = _named_tokens(read_json(vocab_file))
        else:
            return {}, None
        return (found, len(found)) if all(type(one) is int for one in found.values()) else ({}, None)
    except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}, None


def _named_tokens(content: Mapping[str, Any]) -> dict[str, int]:
    """The tokens of a tokenizer.json whose model names them by a mapping, and those that were added."""
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    return content["model"]["vocab"] | added


def _vocabulary_fingerprint(
    tokenizer_type: str, vocab_file: str | os.PathLike | None, merge_file: str | os.PathLike | None
) -> str | None:
    """The hash of vocabulary and merges, from the files alone; None where they do not say them plainly."""
    kind = tokenizer_type.lower()
    try:
        if kind == "charleveltokenizer":
            return vocabulary_hash(byte_vocab(), ())
        if kind == "gpt2bpetokenizer" and vocab_file and merge_file:
            return vocabulary_hash(read_json(vocab_file), read_merges(os.fspath(merge_file)))
        if kind == "hftokenizer" and vocab_file:
            content = read_json(vocab_file)
            return vocabulary_hash(_named_tokens(content), content["model"].get("merges") or ())
    except (InputError, OSError, KeyError, TypeError, AttributeError):
        pass  # its own reader says what is wrong with the file
    return None


def _content(path: Path) -> str | None:
    """Hash of the JSON in a file without what is ignored; None of any other file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if key not in _IGNORED}
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=32).hexdigest()
