"""Text -> a byte-level BPE tokenizer with the special tokens of GPT-NeoX, as a Hugging Face folder or one file."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import option, same_as
from ifguide.data.preprocess import PreprocessOptions
from ifguide.data.sources.names import Source, find_sources, input_record
from ifguide.data.sources.reading import check_sources, read_batches, total_size
from ifguide.data.sources.sampling import is_drawn
from ifguide.data.text.content import DEFAULT_TYPE
from ifguide.data.text.tokenizers import EOD_TOKEN, build_tokenizer
from ifguide.errors import InputError
from ifguide.system.files import folder_faults, hash_file, write_json
from ifguide.system.progress import Progress
from ifguide.system.provenance import environment, origin
from ifguide.system.text_files import LineFault

# GPT-NeoX's HFTokenizer looks both up by name; the ids are those of its own 20B tokenizer
PAD_TOKEN = "<|padding|>"
_ALPHABET = 256
TOKENIZER, CONFIG, RECORD = "tokenizer.json", "tokenizer_config.json", "run.json"


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """What is trained, and on which texts.

    Attributes:
        vocab_size: tokens at most, the 256 bytes and the special ones among them.
        special_tokens: beside ``<|endoftext|>`` (id 0) and ``<|padding|>`` (id 1), in this order.
        min_frequency: a pair that is found less often is not merged.
        sample: the share of the texts that is read.
        json_keys, format, skip_bad_lines: as in `PreprocessOptions`.
    """

    vocab_size: int = option(metavar="N", help="tokens, the 256 bytes and the special ones among them")
    special_tokens: Sequence[str] | None = option(
        None, metavar="T", help=f"more special tokens, after {EOD_TOKEN} (id 0) and {PAD_TOKEN} (id 1)"
    )
    min_frequency: int = option(2, metavar="N", help="merge no pair that is found less often (default: 2)")
    sample: float = option(
        1.0, metavar="SHARE", help="train on this share of the texts, the same ones every time (default: 1)"
    )
    json_keys: Sequence[str] = same_as(PreprocessOptions, "json_keys")
    format: str = same_as(PreprocessOptions, "format")
    skip_bad_lines: bool = same_as(PreprocessOptions, "skip_bad_lines")


@dataclass
class _Counts:
    texts: int = 0
    characters: int = 0
    left_out: int = 0
    not_text: int = 0
    bad_lines: int = 0


def tokenizer_paths(output: str | os.PathLike) -> tuple[Path, Path]:
    """(the tokenizer's file, the record of its training): inside a folder, where the record is called `RECORD`, or
    FILE.json and FILE.run.json."""
    path = Path(output)
    if path.suffix == ".json":
        return path, path.with_suffix(f".{RECORD}")
    return path / TOKENIZER, path / RECORD


def train_tokenizer(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    options: TokenizerOptions,
    progress: bool = False,
) -> dict[str, Any]:
    """Train a tokenizer on the texts of ``inputs``.

    The same texts and options give the same bytes.

    Args:
        inputs: as of `preprocess`.
        output: a file that ends in ``.json``, or a folder; created if missing.
        progress: show a bar on stderr, in bytes of the inputs.

    Returns:
        ``output``, ``tokenizer`` (the file), ``vocab_size`` (tokens), ``fingerprint``, ``hash`` (of the file's bytes),
        ``texts``, ``characters``, ``left_out`` (texts, by ``sample``), ``not_text`` and ``bad_lines`` (records), and
        ``seconds``.

    Raises:
        InputError: an input or the output cannot be used, a record is malformed, or no text is left. Nothing is
            written then.
    """
    from ifguide.data.text.bpe import train_bpe

    began = time.time()
    _check(options)
    file, record = tokenizer_paths(output)
    is_folder = record.name == RECORD
    faults = [] if is_folder else folder_faults("--output", output)
    if faults:
        raise InputError(faults[0])
    sources = find_sources(inputs, options.format)
    check_sources(sources, options.json_keys)
    counts = _Counts()
    with Progress(total_size(sources), "bytes", "read", quiet=not progress) as bar:
        texts = _texts(sources, options, counts, bar)
        first = next(texts, None)
        if first is None:
            raise InputError(_nothing_left(sources, counts, options))
        file.parent.mkdir(parents=True, exist_ok=True)
        special = [PAD_TOKEN, *(options.special_tokens or ())]
        size = train_bpe(itertools.chain([first], texts), options.vocab_size, file, special, options.min_frequency)
    tokenizer = build_tokenizer(DEFAULT_TYPE, file)
    if is_folder:
        tokenizer.save_pretrained(file.parent)
    result = {
        "output": os.fspath(output),
        "tokenizer": str(file),
        "vocab_size": size,
        "fingerprint": tokenizer.fingerprint,
        "hash": hash_file(file),
        **vars(counts),
        "seconds": round(time.time() - began, 3),
    }
    about = {**vars(options), "special_tokens": [EOD_TOKEN, *special], "json_keys": list(options.json_keys)}
    inside = {"parameters": about, "inputs": [input_record(source.name) for source in sources], "trained": result}
    write_json(record, {**inside, **origin(), **environment(began)})
    return result


def _check(options: TokenizerOptions) -> None:
    """
    Raises:
        InputError: the first setting that cannot be.
    """
    names = [EOD_TOKEN, PAD_TOKEN, *(options.special_tokens or ())]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"--special-tokens {twice[0]}: is one already; leave it out")
    if "" in names:
        raise InputError("--special-tokens: a token without text; leave it out")
    if options.vocab_size < _ALPHABET + len(names):
        raise InputError(
            f"--vocab-size {options.vocab_size}: at least {_ALPHABET + len(names)}, the {_ALPHABET} bytes and "
            f"{len(names)} special tokens"
        )
    if not 0 < options.sample <= 1:
        raise InputError(f"--sample {options.sample}: must be above 0 and at most 1")
    if options.min_frequency < 1:
        raise InputError(f"--min-frequency {options.min_frequency}: must be at least 1")


def _texts(sources: Sequence[Source], options: TokenizerOptions, counts: _Counts, bar: Progress) -> Iterator[list[str]]:
    """The texts of each batch that has some."""
    for batch in read_batches(sources, options.json_keys):
        found = []
        for place, text in batch.texts(options.json_keys):
            if isinstance(text, LineFault):
                if not options.skip_bad_lines:
                    raise InputError(f"{place.message('input', text)}; mend it, or use --skip-bad-lines")
                counts.bad_lines += 1
            elif not text:
                counts.not_text += 1
            else:
                found.append(text)
        drawn = [text for number, text in enumerate(found, counts.texts + counts.left_out)
                 if is_drawn(number, options.sample)]  # fmt: skip
        counts.texts += len(drawn)
        counts.left_out += len(found) - len(drawn)
        counts.characters += sum(map(len, drawn))
        bar.update(batch.position - bar.done)
        if drawn:
            yield drawn


def _nothing_left(sources: Sequence[Source], counts: _Counts, options: TokenizerOptions) -> str:
    names = sources[0].name if len(sources) == 1 else f"{len(sources)} inputs"
    keys = " or ".join(map(repr, options.json_keys))
    return (
        f"no text in {names}: {counts.not_text} lines or rows without text under the key {keys} (--jsonl-keys), "
        f"{counts.bad_lines} malformed, {counts.left_out} left out by --sample"
    )
