"""The one reader of text: documents, queries, prompts, continuations and held-out texts become tokens here.

A text has the same ids wherever it is read. What stands around them is one rule:

    document   prefix + ids + suffix         (`preprocess --append-eod` adds EOD)
    prompt     EOD + prefix + ids
    query      EOD + prefix + ids of prompt and completion together; a token that holds a byte of the completion counts

``prefix`` and ``suffix`` are the special tokens of the tokenizer's own template (BOS, EOS), empty with
``bos="strip"``. EOD is the separator that the data's sidecar records; only where no data is known, the model's.

The tokenizer is built from the files that the data's sidecar names or that the model folder carries, read as they are.
It is never rebuilt from a class name, as transformers' ``AutoTokenizer`` does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ifguide.data.sidecar import read_sidecar
from ifguide.data.text.content import carried, files_in, type_meant
from ifguide.data.text.record import recorded_tokenizer, tokenizer_difference
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer, find_token
from ifguide.errors import IFGuideWarning, InputError, MismatchError
from ifguide.system.files import read_json
from ifguide.system.text_files import require_unicode

KEEP, STRIP = "keep", "strip"
BOS_CHOICES = (KEEP, STRIP)


class Query(NamedTuple):
    """A prompt with its completion.

    Attributes:
        tokens: ids, EOD and the template's leading tokens included.
        is_target: of each token, whether its loss counts.
    """

    tokens: list[int]
    is_target: list[bool]


class TextReader:
    """Text to tokens and back, the same way for every use.

    Attributes:
        tokenizer: the tokenizer of GPT-NeoX's type.
        bos: ``keep`` or ``strip``, whether the template's special tokens stand around texts.
        eod: id of the separator of documents, or None.
        prefix, suffix: the template's leading and trailing ids; empty with ``strip``.
    """

    def __init__(self, tokenizer: Tokenizer, bos: str = KEEP):
        """
        Args:
            tokenizer: its ``eod`` is the separator.

        Raises:
            InputError: ``bos`` is no choice.
        """
        if bos not in BOS_CHOICES:
            raise InputError(f"--bos {bos}: must be one of {', '.join(BOS_CHOICES)}")
        self.tokenizer = tokenizer
        self.bos = tokenizer.bos = bos
        self.eod = tokenizer.eod
        self.prefix = tokenizer.prefix if bos == KEEP else ()
        self.suffix = tokenizer.suffix if bos == KEEP else ()

    @classmethod
    def from_files(
        cls,
        tokenizer_type: str,
        vocab_file: str | os.PathLike | None,
        merge_file: str | os.PathLike | None = None,
        bos: str = KEEP,
        eod_token: str | None = None,
        options: str = "--",
    ) -> TextReader:
        """A reader of the files that a NeoX configuration or the command line names.

        Args:
            eod_token: the separator (None: ``<|endoftext|>``, where the vocabulary has it).
            options: what the names of the options start with, for messages.

        Raises:
            InputError: an unknown type, a file that cannot be used, or no such token.
        """
        return cls(build_tokenizer(tokenizer_type, vocab_file, merge_file, options, eod_token), bos)

    @classmethod
    def of_data(
        cls,
        data: str | os.PathLike,
        tokenizer_type: str | None = None,
        vocab_file: str | os.PathLike | None = None,
        merge_file: str | os.PathLike | None = None,
        eod_token: str | None = None,
        options: str = "--",
    ) -> TextReader:
        """The reader that a dataset was made with, from the files that its sidecar records or that the user names.

        Raises:
            InputError: neither says which, a file is gone, or no such token.
            MismatchError: the data was made with another tokenizer.
        """
        sidecar = read_sidecar(data)
        recorded = sidecar.get("tokenizer") or {}
        made_with = str(recorded["type"]) if "type" in recorded else None
        kind = type_meant(tokenizer_type, vocab_file, made_with) or made_with
        if kind is None:
            raise InputError(
                f"{data} does not record its tokenizer; name it with {options}tokenizer-type and {options}vocab-file"
            )
        if not tokenizer_type and kind == made_with:
            vocab_file, merge_file = files_in(kind, vocab_file, merge_file)
            paths: list[Any] = [record["path"] for record in sidecar.get("tokenizer_files", [])] + [None, None]
            for option, path, given in zip(("vocab-file", "merge-file"), paths, (vocab_file, merge_file)):
                if path and not given and not Path(path).exists():
                    raise InputError(f"tokenizer file {path} of {data} is gone; say where it is with {options}{option}")
            vocab_file, merge_file = vocab_file or paths[0], merge_file or paths[1]
        tokenizer = build_tokenizer(kind, vocab_file, merge_file, options, eod_token)
        difference = tokenizer_difference(recorded, describe(tokenizer))
        if difference:
            raise MismatchError(f"{data} was made with another tokenizer than this one ({difference})")
        return cls(_with_eod(tokenizer, recorded, eod_token), _recorded_bos(recorded))

    @classmethod
    def of_model(
        cls,
        folder: str | os.PathLike,
        data: str | os.PathLike | None = None,
        bos: str | None = None,
        eod_token: str | None = None,
        options: str = "--",
    ) -> TextReader:
        """The reader of a Hugging Face folder, which must read as ``data`` was read, where that is known.

        The separator is ``eod_token``; else the one that the data's sidecar records; else the model's ``eos_token``;
        else ``<|endoftext|>``. Where data and model disagree, a warning names both.

        Args:
            data: prefix of the dataset that the model is used with.
            bos: whether the template stands around texts (None: as the data records it, else as the folder records
                it, else ``keep``).

        Raises:
            InputError: the folder carries no tokenizer and the data records none, or one that cannot be used.
            MismatchError: the data was made with another tokenizer.
        """
        folder = Path(folder)
        recorded = {} if data is None else recorded_tokenizer(data)
        tokenizer = folder_tokenizer(folder, recorded.get("type"))
        if tokenizer is None:
            if data is None or "type" not in recorded:
                raise InputError(f"model folder {folder} has no tokenizer; put its tokenizer.json there")
            return cls.of_data(data, eod_token=eod_token, options=options)
        difference = tokenizer_difference(recorded, describe(tokenizer))
        if difference:
            raise MismatchError(
                f"the tokenizer of model {folder} is not the one that {data} was made with ({difference}); use the "
                "model that was trained on this data, or preprocess again with the model's tokenizer"
            )
        settings = _folder_json(folder, "tokenizer_config.json")
        own = model_eod(folder, tokenizer)
        if recorded.get("type") == "CharLevelTokenizer":
            # the folder's form of it has ids of its own for a text that spells <|endoftext|>
            tokenizer = build_tokenizer("CharLevelTokenizer", None)
        _with_eod(tokenizer, recorded, eod_token, own, options)
        if recorded.get("eod") is not None and eod_token is None:
            _compare_eod(folder, data, tokenizer, own)
        if bos is None:
            bos = _recorded_bos(recorded) if recorded else str(settings.get("ifguide_bos") or KEEP)
        return cls(tokenizer, bos)

    @classmethod
    def find(
        cls, folder: str | os.PathLike, data: str | os.PathLike | None = None, eod_token: str | None = None
    ) -> TextReader | None:
        """`of_model`, or None where neither the folder nor the data says what the tokenizer is."""
        records = data is not None and "type" in recorded_tokenizer(data)
        return cls.of_model(folder, data, eod_token=eod_token) if records or has_tokenizer(folder) else None

    @property
    def vocab_size(self) -> int:
        """Number of ids, before a model pads it."""
        return self.tokenizer.vocab_size

    @property
    def fingerprint(self) -> str:
        """Hash of everything that can change an id or a decoded text."""
        return self.tokenizer.fingerprint

    @property
    def eod_token(self) -> str | None:
        """The separator's name in the vocabulary."""
        return None if self.eod is None else self.tokenizer.token_name(self.eod)

    def record(self) -> dict[str, Any]:
        """What a sidecar says about this reader (`ifguide.data.text.record`)."""
        return {
            **describe(self.tokenizer),
            "eod": self.eod,
            "eod_token": self.eod_token,
            "bos": self.bos,
            "prefix": list(self.prefix),
            "suffix": list(self.suffix),
        }

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` alone: no template, no EOD.

        Raises:
            NotUnicodeError: a lone surrogate; so does every other method that takes text.
        """
        return self.tokenizer.bare(require_unicode(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of several texts."""
        return self.tokenizer.bare_batch([require_unicode(text) for text in texts])

    def document(self, text: str) -> list[int]:
        """``prefix + ids + suffix``, without EOD; empty where the text has no token of its own."""
        ids = self.encode(text)
        return [*self.prefix, *ids, *self.suffix] if ids else []

    def prompt(self, text: str) -> list[int]:
        """``EOD + prefix + ids``: what a model reads before it goes on."""
        return [*self._start, *self.encode(text)]

    def query(self, prompt: str, completion: str) -> Query:
        """``EOD + prefix + ids`` of both texts as one, and which tokens hold a byte of the completion.

        With an empty ``prompt`` this is a held-out text: all of its own tokens count, the template's do not.
        """
        ids, spans = self.tokenizer.spans(require_unicode(prompt) + require_unicode(completion))
        boundary = len(prompt.encode("utf-8"))
        start = self._start
        is_target = [end > boundary for _, end in spans] if completion else [False] * len(ids)
        return Query([*start, *ids], [False] * len(start) + is_target)

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode` of ``text``, and the bytes (begin, end) of its UTF-8 that each token is made of.

        Tokens that share a character all have its bytes. A dummy space before the first word has those of the
        character after it.
        """
        return self.tokenizer.spans(require_unicode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        return self.tokenizer.decode(ids)

    def continuation(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """What ``ids`` add to the text of ``before``: decoders drop a space that opens a text, which ``ids`` do not."""
        opening, whole = self.decode(before), self.decode([*before, *ids])
        return whole[len(opening) :] if whole.startswith(opening) else self.decode(ids)

    def token_bytes(self, index: int) -> bytes:
        """What a token adds to the UTF-8 text (`Tokenizer.token_bytes`)."""
        return self.tokenizer.token_bytes(index)

    @property
    def _start(self) -> list[int]:
        return [*([] if self.eod is None else [self.eod]), *self.prefix]


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """The part of a record that does not depend on how texts are framed."""
    return {
        "type": tokenizer.name,
        "identity": tokenizer.vocabulary_fingerprint,
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
    }


def folder_tokenizer(folder: str | os.PathLike, tokenizer_type: str | None = None) -> Tokenizer | None:
    """The tokenizer whose files lie in a model folder, or None.

    Args:
        tokenizer_type: of the data; its files count first where the folder has several (Llama-2's have two).

    Raises:
        InputError: a file that is no tokenizer.
    """
    found = carried(folder)
    kind = tokenizer_type if tokenizer_type in tuple(found) else next(iter(found), None)
    return None if kind is None else build_tokenizer(kind, folder)


def has_tokenizer(folder: str | os.PathLike) -> bool:
    """Whether a model folder carries the files of a tokenizer."""
    return bool(carried(folder))


def model_eod(folder: str | os.PathLike, tokenizer: Tokenizer) -> int | None:
    """The separator that a model folder names by ``eos_token``, else ``<|endoftext|>`` of the vocabulary, else None."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _folder_json(Path(folder), name).get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        index = tokenizer.token_id(token) if isinstance(token, str) else None
        if index is not None:
            return index
    return tokenizer.eod


def _with_eod(
    tokenizer: Tokenizer,
    recorded: dict[str, Any],
    eod_token: str | None,
    otherwise: int | None = None,
    options: str = "--",
) -> Tokenizer:
    """``tokenizer`` with the separator that the user names, else that of the data, else ``otherwise``."""
    if eod_token is not None:
        tokenizer.eod = find_token(tokenizer, eod_token, options)
    elif recorded.get("eod") is not None:
        tokenizer.eod = int(recorded["eod"])
    elif otherwise is not None:
        tokenizer.eod = otherwise
    return tokenizer


def _compare_eod(folder: Path, data: Any, tokenizer: Tokenizer, own: int | None) -> None:
    """Warn where the model ends its texts with another token than the data ends its documents."""
    eod = tokenizer.eod
    says = {} if own in (None, eod) else {"eos_token": [own]}
    config = _folder_json(folder, "config.json").get("eos_token_id")
    ids = config if isinstance(config, list) else [] if config is None else [config]
    if ids and eod not in ids:
        says["eos_token_id"] = ids
    if not says or eod is None:
        return
    named = " and ".join(
        f"{key} {', '.join(f'{tokenizer.token_name(index)!r} ({index})' for index in indices)}"
        for key, indices in says.items()
    )
    warnings.warn(
        f"model {folder} has {named}, the documents of {data} are separated by {tokenizer.token_name(eod)!r} ({eod}); "
        "the data's is used, --eod-token names another",
        IFGuideWarning,
        stacklevel=2,
    )


def _recorded_bos(recorded: dict[str, Any]) -> str:
    """Earlier versions always kept the template."""
    return str(recorded.get("bos") or KEEP)


def _folder_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    value = read_json(path, "tokenizer file") if path.is_file() else {}
    return value if isinstance(value, dict) else {}
