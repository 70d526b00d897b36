"""``ifguide verify``: every fault of a token dataset and of the masks and scores that belong to it, in one run.

Structure first, then one streaming pass over each .bin (range of the values, and their hash where
nothing vouches for it), then the comparison with the sidecars. A file whose structure is broken is
not read further; the others are.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.config.hints import prefix_hint
from ifguide.data.aligned import DTYPES, ENCODINGS, alignment_faults
from ifguide.data.faults import Outside, RangeCheck, check_doc_idx, check_index_caches, chunks
from ifguide.data.fingerprint import Fingerprint, differences, known_fingerprint, make_fingerprint, remember
from ifguide.data.index_file import Fault, read_layout
from ifguide.data.indexed import IndexedDataset
from ifguide.data.sidecar import PENALTIES, SCORES, TOKENS, file_states, read_sidecar, sidecar_path
from ifguide.data.text.reader import describe
from ifguide.data.text.record import tokenizer_difference
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.errors import ConfigError, InputError
from ifguide.system.progress import Progress, counted

_KINDS = {TOKENS: "tokens", PENALTIES: "mask", SCORES: "scores"}


@dataclass
class Findings:
    """What `verify` found.

    Attributes:
        faults: what must be mended before anyone trains on the data.
        warnings: what is lawful, and rarely meant.
        datasets: prefix -> kind, documents, tokens and bytes of each dataset that could be opened.
        seconds: of the whole check.
    """

    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The findings as JSON can hold them."""
        return {"sound": not self.faults, **asdict(self)}


@dataclass(frozen=True)
class _Opened:
    """A dataset whose structure is sound; the fingerprint is None where nothing needed the content's hash."""

    dataset: IndexedDataset
    sidecar: dict[str, Any]
    fingerprint: Fingerprint | None


def verify(
    data: str | os.PathLike,
    masks: Sequence[str | os.PathLike] = (),
    scores: Sequence[str | os.PathLike] = (),
    *,
    vocab_size: int | None = None,
    tokenizer: Tokenizer | None = None,
    deep: bool = False,
    progress: bool = False,
) -> Findings:
    """Check the tokens ``data`` and everything that is said to be aligned with them.

    Args:
        data, masks, scores: prefixes of datasets.
        vocab_size: token ids are below it; without it and ``tokenizer`` the sidecar of the data says.
        tokenizer: the one that the tokens must have been made with.
        deep: hash every value, also of files whose size and time the sidecar knows.
        progress: show a bar on stderr.

    Raises:
        ConfigError: arguments that name nothing; names all of them.
    """
    started = time.monotonic()
    prefixes = [os.fspath(prefix) for prefix in (data, *masks, *scores)]
    _require_something(prefixes, vocab_size)
    findings = Findings()
    total = sum(path.stat().st_size for path in (Path(f"{prefix}.bin") for prefix in prefixes) if path.is_file())
    with Progress(total, "B", "verify", quiet=not progress) as bar:
        checker = _Checker(findings, deep, bar.update)
        tokens = checker.tokens(prefixes[0], bool(masks or scores), vocab_size, tokenizer)
        for kind, group in ((PENALTIES, masks), (SCORES, scores)):
            for prefix in group:
                checker.aligned(os.fspath(prefix), kind, tokens)
    findings.seconds = round(time.monotonic() - started, 3)
    return findings


class _Checker:
    """One run: ``fault`` and ``warning`` collect, ``on_bytes`` hears of progress."""

    def __init__(self, findings: Findings, deep: bool, on_bytes: Callable[[int], object]):
        self.findings, self.deep, self.on_bytes = findings, deep, on_bytes
        self.fault, self.warning = findings.faults.append, findings.warnings.append

    def tokens(
        self, prefix: str, compared: bool, vocab_size: int | None, tokenizer: Tokenizer | None
    ) -> _Opened | None:
        """The token dataset; ``compared``: masks or scores will ask for its fingerprint."""
        dataset = self._open(prefix, TOKENS)
        check_index_caches(prefix, self.fault, self.warning)
        sidecar = self._sidecar(prefix, TOKENS)
        if tokenizer is not None:
            if difference := tokenizer_difference(sidecar.get("tokenizer"), describe(tokenizer)):
                text = f"{prefix} was made with another tokenizer ({difference} of {tokenizer.name})"
                self.fault(Fault("tokenizer", text))
            vocab_size = tokenizer.vocab_size
        if dataset is None:
            return None
        if dataset.dtype.kind not in "iu":
            self.fault(Fault("dtype", f"{prefix} holds {dataset.dtype} values, not tokens; is it a score file?"))
            return self._read(dataset, sidecar, None, compared)
        limit = vocab_size if vocab_size is not None else self._stored_vocab_size(prefix, sidecar)
        check = RangeCheck(0, limit - 1 if limit else np.iinfo(dataset.dtype).max)
        opened = self._read(dataset, sidecar, check, compared)
        if check.outside.count:
            allowed = f"outside the vocabulary of {limit}" if limit else "below 0"
            self._outside(dataset, check.outside, "token-id", f"token ids {allowed}")
        return opened

    def aligned(self, prefix: str, kind: str, tokens: _Opened | None) -> None:
        """A mask or scores, and whether they belong to ``tokens`` (None if those are broken themselves)."""
        dataset = self._open(prefix, kind)
        sidecar = self._sidecar(prefix, kind)
        encoding = sidecar.get("encoding")
        if kind == PENALTIES and sidecar and encoding not in ENCODINGS:
            text = f"{prefix} has the unknown encoding {encoding!r}; known: {', '.join(ENCODINGS)}"
            self.fault(Fault("encoding", text))
        if dataset is None:
            return
        if dataset.dtype != DTYPES[kind]:
            self.fault(Fault("dtype", f"{prefix} holds {dataset.dtype} values; {kind} are {DTYPES[kind]}"))
            self._read(dataset, sidecar, None, True)
        elif kind == SCORES:
            self._scores(dataset, sidecar)
        else:
            self._mask(dataset, sidecar, encoding)
        if tokens is not None and tokens.fingerprint is not None:
            made_with = tokens.sidecar.get("tokenizer")
            belongs = {**sidecar, "data": sidecar.get("data") or tokens.fingerprint}  # a missing one was named above
            for text in alignment_faults(dataset, belongs, tokens.dataset, tokens.fingerprint, made_with):
                self.fault(Fault("alignment", f"{prefix} was made for other data than {tokens.dataset.prefix}: {text}"))
            if not np.array_equal(dataset.doc_idx, tokens.dataset.doc_idx):
                self.fault(Fault("alignment", f"{prefix}.idx: doc_idx is not that of {tokens.dataset.prefix}"))

    def _scores(self, dataset: IndexedDataset, sidecar: dict[str, Any]) -> None:
        limits = np.finfo(dataset.dtype)
        check = RangeCheck(float(limits.min), float(limits.max))
        self._read(dataset, sidecar, check, True)
        if check.outside.count:
            nan = check.outside.nan
            self._outside(dataset, check.outside, "not-finite", f"scores ({nan} NaN) that are not finite")

    def _mask(self, dataset: IndexedDataset, sidecar: dict[str, Any], encoding: str | None) -> None:
        check = RangeCheck(0, 1 if encoding == "binary" else 255)
        self._read(dataset, sidecar, check, True)
        if check.outside.count:
            self._outside(dataset, check.outside, "code", "codes above 1 in a binary mask")
        if check.outside.highest == 0:
            self.warning(Fault("empty-mask", f"{dataset.prefix} selects no token"))

    def _open(self, prefix: str, kind: str) -> IndexedDataset | None:
        """The dataset, or None if its structure is broken; the faults are told."""
        before = len(self.findings.faults)
        layout = read_layout(prefix, self.fault)
        if layout is None:
            return None
        index_path = Path(prefix + ".idx")
        check_doc_idx(index_path, layout, self.fault, self.warning if kind == TOKENS else _ignore)
        empty = int(np.count_nonzero(layout.lengths == 0))
        if empty and kind == TOKENS:
            self.warning(Fault("empty-document", f"{index_path}: {counted(empty, 'document')} without a token", empty))
        if any(fault.name != "doc-idx" for fault in self.findings.faults[before:]):
            return None
        try:
            dataset = IndexedDataset.of_layout(prefix, layout)
        except InputError as error:
            self.fault(Fault("unreadable", str(error)))
            return None
        self.findings.datasets[prefix] = {
            "kind": _KINDS[kind],
            "dtype": dataset.dtype.name,
            "documents": dataset.num_documents,
            "tokens": dataset.num_tokens,
            "bytes": dataset.num_tokens * dataset.dtype.itemsize,
        }
        return dataset

    def _sidecar(self, prefix: str, kind: str) -> dict[str, Any]:
        """The sidecar, or {} if there is none of use; token datasets made elsewhere have none."""
        try:
            sidecar = read_sidecar(prefix)
        except InputError as error:
            self.fault(Fault("sidecar", str(error)))
            return {}
        path = sidecar_path(prefix)
        if not sidecar and kind == TOKENS:
            return {}
        if not sidecar:
            text = f"{prefix} has no sidecar {path}: its job did not finish, or it was made elsewhere (`import-mask`)"
            self.fault(Fault("sidecar", text))
            return {}
        if sidecar.get("kind") != kind:
            self.fault(Fault("sidecar", f"{prefix} holds {sidecar.get('kind')}, not {kind} (so says its sidecar)"))
        if "fingerprint" not in sidecar or (kind != TOKENS and "data" not in sidecar):
            self.fault(Fault("sidecar", f"sidecar {path} does not say which files or which data it describes"))
        return sidecar

    def _read(
        self, dataset: IndexedDataset, sidecar: dict[str, Any], check: RangeCheck | None, compared: bool
    ) -> _Opened:
        """Read all values once: for ``check``, and for their hash unless it is known or nothing needs it."""
        states = file_states(dataset.index_path, dataset.bin_path)
        known = None if self.deep else known_fingerprint(dataset)
        hashing = known is None and (self.deep or compared or "fingerprint" in sidecar)
        digest = hashlib.blake2b(digest_size=32)
        try:
            for chunk in chunks(dataset.bin_path, dataset.dtype, self.on_bytes):
                if check is not None:
                    check(chunk)
                if hashing:
                    digest.update(chunk.data)
        except OSError as error:
            self.fault(Fault("unreadable", f"{dataset.bin_path} cannot be read: {error.strerror}"))
            return _Opened(dataset, sidecar, None)
        if not hashing and known is None:
            return _Opened(dataset, sidecar, None)
        content_hash = digest.hexdigest() if known is None else known["content_hash"]
        found = make_fingerprint(dataset.dtype, dataset.lengths, dataset.doc_idx, content_hash)
        if known is None:
            remember(dataset, states, found)
        changed = differences(sidecar["fingerprint"], found) if "fingerprint" in sidecar else []
        if changed:
            text = (
                f"is not what its sidecar describes ({'; '.join(changed)}): it was changed, or a job that replaced it"
            )
            self.fault(Fault("content", f"{dataset.prefix} {text} was killed; write it again"))
        return _Opened(dataset, sidecar, found)

    def _outside(self, dataset: IndexedDataset, outside: Outside, name: str, what: str) -> None:
        text = f"{dataset.bin_path}: {outside.count} {what}: {outside.places(dataset.starts)}"
        self.fault(Fault(name, text, outside.count))

    def _stored_vocab_size(self, prefix: str, sidecar: dict[str, Any]) -> int | None:
        size = (sidecar.get("tokenizer") or {}).get("vocab_size")
        if isinstance(size, int) and size > 0:
            return size
        if size is not None:
            self.fault(Fault("sidecar", f"sidecar {sidecar_path(prefix)}: vocab_size is {size!r}, not a number of ids"))
        else:
            text = f"{prefix}: nothing says how large the vocabulary is, so only negative ids were looked for"
            self.warning(Fault("vocabulary", f"{text}; give --vocab-size or the tokenizer"))
        return None


def _ignore(fault: Fault) -> None:
    """The doc_idx of a mask is that of its tokens, which was warned of already."""


def _require_something(prefixes: Sequence[str], vocab_size: int | None) -> None:
    """At least one of the files of every prefix exists: else the prefix itself is wrong."""
    faults = [
        f"no dataset {prefix}: neither {prefix}.idx nor {prefix}.bin exists; {prefix_hint(prefix)}"
        for prefix in dict.fromkeys(prefixes)
        if not any(os.path.lexists(prefix + suffix) for suffix in (".idx", ".bin"))
    ]
    if vocab_size is not None and vocab_size < 1:
        faults.append(f"--vocab-size must be at least 1, got {vocab_size}")
    if faults:
        raise ConfigError(faults)
