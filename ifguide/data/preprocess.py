"""Text -> indexed dataset of tokens, as GPT-NeoX's ``tools/datasets/preprocess_data.py`` writes it.

The records of all inputs (`ifguide.data.sources`) come in batches, the batches are encoded by worker processes, and the
results are written in input order: the output does not depend on the number of workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.compat.megatron import dataset_builder
from ifguide.config.options import option
from ifguide.data.fingerprint import RANGE, Fingerprint, make_fingerprint
from ifguide.data.sidecar import FORMAT_VERSION, TOKENS, file_states
from ifguide.data.sources.names import AUTO, FORMATS, Source, find_sources, input_record
from ifguide.data.sources.reading import check_sources, read_batches, total_size
from ifguide.data.sources.records import Batch
from ifguide.data.text.content import files_in
from ifguide.data.text.reader import KEEP, TextReader
from ifguide.data.text.record import tokenizer_file_record
from ifguide.data.text.tokenizers import EOD_TOKEN
from ifguide.errors import InputError
from ifguide.system.files import atomic_path, dump_json
from ifguide.system.progress import Progress
from ifguide.system.provenance import origin, versions
from ifguide.system.text_files import LineFault

SUFFIX = "_text_document"

# type, vocabulary, merges, bos, end-of-document token: what `TextReader.from_files` takes
_Files = tuple[Any, Any, Any, str, str | None]

# batches in flight per worker: enough to keep all busy, few enough to bound the memory
_WINDOW_PER_WORKER = 4


@dataclass(frozen=True)
class PreprocessOptions:
    """How texts are read and encoded.

    Attributes:
        append_eod: end each document with the end-of-document token.
        eod_token: the end-of-document token (None: ``<|endoftext|>``).
        bos: ``keep`` the tokenizer's template (BOS, EOS) around each text, as NeoX does, or ``strip`` it.
        workers: processes that encode; 1 encodes in this one.
        json_keys: the fields that hold the text, ``a.b`` inside an object; several are joined by a blank line.
        format: how files are read (`ifguide.data.sources.names.FORMATS`).
        skip_bad_lines: count records that cannot be read instead of stopping at the first.
    """

    append_eod: bool = option(False, help="end each document with the end-of-document token")
    eod_token: str | None = option(
        None, metavar="T", help="the end-of-document token, by its name (default: <|endoftext|>)"
    )
    bos: str = option(
        KEEP, metavar="WHAT",
        help="keep (as GPT-NeoX does; default) or strip the special tokens that the tokenizer puts around every text",
    )  # fmt: skip
    workers: int = option(1, metavar="N", kind="cost", help="processes that tokenize (default: 1)")
    json_keys: Sequence[str] = option(
        ("text",), flags=["--jsonl-keys"], metavar="KEY",
        help="field or column that holds the text, meta.text inside an object; the texts of several make one document, "
        "with a blank line between them (default: text)",
    )  # fmt: skip
    format: str = option(
        AUTO, choices=FORMATS,
        help="how files are read: jsonl, text (a document a file), lines (a document a line) or parquet; auto goes by "
        "the end of their names (default)",
    )  # fmt: skip
    skip_bad_lines: bool = option(False, help="count malformed lines and rows instead of stopping at the first")


_DEFAULT = PreprocessOptions()


@dataclass
class Counts:
    """What became of the records: every line that is not blank and every row is counted once (``tokens`` aside)."""

    documents: int = 0
    tokens: int = 0
    empty_documents: int = 0
    not_text: int = 0
    bad_lines: int = 0

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class EncodedBatch:
    """The documents of one `Batch`.

    Attributes:
        ids: [sum(lengths)] token ids, all documents one after the other.
        lengths: tokens of each document.
        counts: of this batch.
        fault: the first record that cannot be used, as a message; None where there is none.
        position: as in `Batch`.
    """

    ids: np.ndarray
    lengths: list[int]
    counts: Counts
    fault: str | None
    position: int


class Encoder:
    """Turns batches of records into token ids; one lives in each worker process."""

    def __init__(self, reader: TextReader, append_eod: bool, json_keys: Sequence[str]):
        self._reader = reader
        self._tail = [reader.eod] if append_eod and reader.eod is not None else []
        self._keys = tuple(json_keys)
        self._dtype = token_dtype(reader.vocab_size)

    def __call__(self, batch: Batch) -> EncodedBatch:
        counts, fault = Counts(), None
        ids: list[int] = []
        lengths: list[int] = []
        for place, text in batch.texts(self._keys):
            try:
                if isinstance(text, LineFault):
                    raise text
                document = None if text is None else self._reader.document(text)
            except ValueError as error:
                counts.bad_lines += 1
                fault = fault or place.message("input", error)
                continue
            if document is None:
                counts.not_text += 1
            elif not document:
                counts.empty_documents += 1
            else:
                document += self._tail
                ids += document
                lengths.append(len(document))
        counts.documents, counts.tokens = len(lengths), len(ids)
        if ids and max(ids) >= self._reader.vocab_size:
            raise InputError(
                f"the tokenizer gave id {max(ids)} beyond its vocabulary of {self._reader.vocab_size}: "
                "its ids have gaps, and GPT-NeoX would size the embedding too small"
            )
        return EncodedBatch(np.array(ids, dtype=self._dtype), lengths, counts, fault, batch.position)


def preprocess(
    inputs: Sequence[str | os.PathLike],
    output_prefix: str | os.PathLike,
    tokenizer_type: str,
    vocab_file: str | os.PathLike | None,
    merge_file: str | os.PathLike | None = None,
    options: PreprocessOptions = _DEFAULT,
    progress: bool = True,
) -> dict[str, Any]:
    """Write ``{output_prefix}_text_document.{bin,idx,json}`` from the texts of ``inputs``.

    Args:
        inputs: files, patterns, folders and data sets (`ifguide.data.sources.names`); documents stay in order.
        output_prefix: as in NeoX, without ``_text_document``.
        tokenizer_type, vocab_file, merge_file: as in a NeoX configuration.
        options: how the texts are read and encoded.
        progress: show a bar on stderr.

    Returns:
        The counts (`Counts`), ``output`` (the dataset's prefix), ``sources`` (files and data sets that were read),
        ``dtype``, ``vocab_size``, ``content_hash``, ``seconds`` and ``tokens_per_second``.

    Raises:
        InputError: an input, the tokenizer or the output folder cannot be used, a record is malformed
            (names file and line or row), or no document is left. Nothing is written then.
        OutOfSpaceError: the disk is full; an earlier dataset of this name is untouched.
    """
    started = time.monotonic()
    if options.workers < 1:
        raise InputError(f"--workers must be at least 1, got {options.workers}")
    sources = find_sources(inputs, options.format)
    check_sources(sources, options.json_keys)
    vocab_file, merge_file = files_in(tokenizer_type, vocab_file, merge_file)
    files = (tokenizer_type, vocab_file, merge_file, options.bos, options.eod_token)
    reader = TextReader.from_files(*files)
    if options.append_eod and reader.eod is None:
        raise InputError(
            f"--append-eod needs {EOD_TOKEN}, which {vocab_file} does not have; name its separator with --eod-token"
        )
    prefix = os.fspath(output_prefix) + SUFFIX
    dtype = token_dtype(reader.vocab_size)
    counts = Counts()
    with (
        atomic_path(prefix + ".json") as json_file,
        atomic_path(prefix + ".idx") as index_file,
        atomic_path(prefix + ".bin") as bin_file,
        contextlib.closing(_encode_all(read_batches(sources, options.json_keys), files, options)) as batches,
        Progress(total_size(sources), "bytes", "preprocess", quiet=not progress) as bar,
    ):
        checked = _checked(batches, counts, options.skip_bad_lines, bar)
        fingerprint, values = _write_tokens(checked, bin_file, index_file, dtype)
        if counts.documents == 0:
            raise InputError(_nothing_left(sources, counts, options.json_keys))
        dump_json(
            json_file,
            {
                "format_version": FORMAT_VERSION,
                "kind": TOKENS,
                "tokenizer": reader.record(),
                "tokenizer_files": [
                    tokenizer_file_record(path) for path in (vocab_file, merge_file) if path is not None
                ],
                "parameters": {
                    "append_eod": options.append_eod,
                    # one key by itself, as earlier versions wrote it
                    "json_key": options.json_keys[0] if len(options.json_keys) == 1 else list(options.json_keys),
                    "format": options.format,
                    "skip_bad_lines": options.skip_bad_lines,
                    "bos": options.bos,
                    "eod_token": options.eod_token,
                },
                "inputs": [input_record(source.name) for source in sources],
                "counts": vars(counts),
                "fingerprint": fingerprint,
                RANGE: values,
                "files": file_states(index_file, bin_file),
                "tool": versions(),
                **origin(),
            },
        )
    seconds = time.monotonic() - started
    return {
        "output": prefix,
        **vars(counts),
        "sources": len(sources),
        "dtype": fingerprint["dtype"],
        "vocab_size": reader.vocab_size,
        "content_hash": fingerprint["content_hash"],
        "seconds": round(seconds, 3),
        "tokens_per_second": round(counts.tokens / seconds, 1),
    }


def token_dtype(vocab_size: int) -> np.dtype:
    """NeoX's choice: two bytes a token where they suffice."""
    return np.dtype(np.uint16 if vocab_size < 65500 else np.int32)


def _checked(
    batches: Iterator[EncodedBatch], counts: Counts, skip_bad_lines: bool, bar: Progress
) -> Iterator[EncodedBatch]:
    """Pass the batches on, add up ``counts``, move ``bar``, and stop at a bad record unless they are skipped."""
    for batch in batches:
        if batch.fault and not skip_bad_lines:
            raise InputError(f"{batch.fault}; mend it, or use --skip-bad-lines")
        counts.add(batch.counts)
        bar.update(batch.position - bar.done)
        yield batch


def _write_tokens(
    batches: Iterator[EncodedBatch], bin_file: Path, index_file: Path, dtype: np.dtype
) -> tuple[Fingerprint, list[int]]:
    """Write both files through megatron-core's builder; returns the fingerprint and the range of what was written."""
    ends: list[int] = []
    digest = hashlib.blake2b(digest_size=32)
    batch = next(batches, None)  # the workers start on their first batches while megatron-core is imported
    builder = dataset_builder(bin_file, dtype)
    try:
        while batch is not None:
            digest.update(batch.ids.data)
            ends = [min([*ends, int(batch.ids.min())]), max([*ends, int(batch.ids.max())])] if len(batch.ids) else ends
            end = 0
            for length in batch.lengths:
                begin, end = end, end + length
                builder.add_document(batch.ids[begin:end], [length])
            batch = next(batches, None)
    finally:
        builder.data_file.close()
    builder.finalize(str(index_file))
    found = make_fingerprint(
        dtype, np.array(builder.sequence_lengths), np.array(builder.document_indices), digest.hexdigest()
    )
    return found, ends


_encoder: Encoder | None = None


def _start_worker(files: _Files, append_eod: bool, json_keys: Sequence[str], parent: int) -> None:
    global _encoder
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, once
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(TextReader.from_files(*files), append_eod, json_keys)


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone: one that was killed cannot tell, and the worker would wait forever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _encode(batch: Batch) -> EncodedBatch:
    assert _encoder is not None
    return _encoder(batch)


def _encode_all(
    batches: Iterator[Batch], files: _Files, options: PreprocessOptions
) -> Generator[EncodedBatch, None, None]:
    """Encode in order, here or in ``workers`` processes with a bounded number of batches in flight."""
    workers = options.workers
    if workers == 1:
        yield from map(Encoder(TextReader.from_files(*files), options.append_eod, options.json_keys), batches)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    about = (files, options.append_eod, options.json_keys, os.getpid())
    pool = ProcessPoolExecutor(workers, context, _start_worker, about)
    pending: deque[Future[EncodedBatch]] = deque()
    try:
        for batch in batches:
            pending.append(pool.submit(_encode, batch))
            if len(pending) > workers * _WINDOW_PER_WORKER:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise InputError("a worker process was killed, most likely for memory; use fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _nothing_left(sources: Sequence[Source], counts: Counts, json_keys: Sequence[str]) -> str:
    names = sources[0].name if len(sources) == 1 else f"{len(sources)} inputs"
    keys = " or ".join(map(repr, json_keys))
    return (
        f"no document in {names}: {counts.not_text} lines or rows without a string under the key {keys} "
        f"(--jsonl-keys), {counts.empty_documents} empty, {counts.bad_lines} malformed"
    )
