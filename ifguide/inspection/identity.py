"""Whom does a mask hit? The share of spans that it touches, and of tokens that it selects, in spans with and without
words for groups of people, also by a category of the documents.

Where all spans are harmless, as in text that is known to hold no abuse, this is the share of harmless text that is
masked. Nothing here knows whether they are.

Shapes: P spans of some documents, D those documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.passages.cutting import TokenText
from ifguide.data.sidecar import PENALTIES, read_sidecar
from ifguide.data.sources.names import AUTO, Source, find_sources, input_hash, local_files
from ifguide.data.sources.reading import read_batches
from ifguide.data.sources.records import text_of, value_of
from ifguide.data.text.reader import TextReader
from ifguide.data.text.terms import Terms
from ifguide.errors import InputError, MismatchError
from ifguide.inspection.spans import Spans, SpanWalk, parse_span
from ifguide.statistics.clustered import ClusteredShare, difference
from ifguide.system.text_files import LineFault

WITH, WITHOUT = "with", "without"
MOST_CATEGORIES = 1000
_MISSING = "(none)"


@dataclass
class _Group:
    """Spans touched and tokens selected, of spans with a term and without one."""

    spans: dict[str, ClusteredShare] = field(
        default_factory=lambda: {WITH: ClusteredShare(), WITHOUT: ClusteredShare()}
    )
    tokens: dict[str, ClusteredShare] = field(
        default_factory=lambda: {WITH: ClusteredShare(), WITHOUT: ClusteredShare()}
    )

    def as_dict(self) -> dict[str, Any]:
        return {
            kind: {
                **{name: _said(share) for name, share in shares.items()},
                "difference": _gap(shares),
            }
            for kind, shares in (("spans", self.spans), ("tokens", self.tokens))
        }


def identity_statistics(
    masks: Sequence[str],
    data: str | Path,
    terms: Terms,
    reader: TextReader,
    *,
    span: str = "line",
    category_key: str | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """What each of ``masks`` hits in spans with and without ``terms``, for ``--json``.

    Args:
        span: ``line``, ``sentence`` or ``window:W``.
        category_key: field of the JSON lines that ``data`` was made from; each of its values is shown by itself.

    Raises:
        InputError: files or options that cannot be used.
        MismatchError: masks of other tokens, or text that has changed since.
    """
    settings = parse_span(span)
    tokens = TokenDataset.open(data)
    opened = [load_aligned(mask, tokens, PENALTIES) for mask in masks]
    names, category = categories_of(tokens, category_key) if category_key else ([], None)
    walk = SpanWalk(tokens, opened, settings, reader, quiet)
    text = TokenText(reader, between=b"")
    whole = [_Group() for _ in masks]
    parts = [[_Group() for _ in names] for _ in masks]
    for found, ids, begin in walk("identity terms"):
        has_term = _has_term(found, ids, begin, text, terms)
        groups = [(np.ones(len(found), bool), whole)]
        if category is not None:
            own = category[found.documents]
            groups += [(own == k, [row[k] for row in parts]) for k in np.unique(own).tolist()]
        for which, group in groups:
            _add(group, found.take(which), has_term[which])
    return {
        "span": span,
        "terms": len(terms),
        "masks": [
            {
                "mask": str(mask),
                **whole[m].as_dict(),
                "categories": {name: parts[m][k].as_dict() for k, name in enumerate(names)},
            }
            for m, mask in enumerate(masks)
        ],
    }


def categories_of(tokens: TokenDataset, key: str) -> tuple[list[str], NDArray[np.int32]]:
    """(the values of the field ``key``, sorted, int32[documents]: which of them each document has), read from the text
    that the sidecar of ``tokens`` names, in the way that ``preprocess`` read it.

    Raises:
        InputError: the sidecar names no text, or the text is gone.
        MismatchError: the text has changed, or does not give these documents.
    """
    sidecar = read_sidecar(tokens.prefix)
    inputs, parameters = sidecar.get("inputs"), sidecar.get("parameters") or {}
    if not inputs or "json_key" not in parameters:
        raise InputError(
            f"{tokens.prefix} does not record which text it was made from; make it with ifguide preprocess"
        )
    for record in inputs:
        path = record["path"]
        if local_files(path) == []:
            raise InputError(f"{path}, which {tokens.prefix} was made from, is gone; put it back for --category-key")
        if input_hash(path) != record["hash"]:
            raise MismatchError(f"{path} has changed since {tokens.prefix} was made from it; preprocess it again")
    places: dict[str, int] = {}
    found = []
    sources = find_sources([record["path"] for record in inputs], parameters.get("format", AUTO))
    for value in _values(sources, parameters["json_key"], key):
        found.append(places.setdefault(value, len(places)))
        if len(places) > MOST_CATEGORIES:
            raise InputError(f"--category-key {key}: more than {MOST_CATEGORIES} values; name a field of few values")
    if len(found) != tokens.num_documents:
        raise MismatchError(
            f"the text of {tokens.prefix} has {len(found)} lines with text for its {tokens.num_documents} documents, "
            "so that it is not known which document has which category; remove lines whose text has no token"
        )
    names = sorted(places)
    rank = np.array([names.index(name) for name in places], np.int32)
    return names, rank[np.array(found, np.int64)]


def lines(result: dict[str, Any]) -> list[str]:
    """`identity_statistics` for a terminal."""
    text = []
    for row in result["masks"]:
        text.append(f"{row['mask']}: spans ({result['span']}) with and without one of {result['terms']} identity terms")
        for name, group in (("all", row), *row["categories"].items()):
            text += [f"  {name}", *(f"    {line}" for line in _group_lines(group))]
    text.append("these are shares of harmless text only if the data holds no abuse")
    return text


def _group_lines(group: dict[str, Any]) -> Iterator[str]:
    for kind, verb in (("spans", "touched"), ("tokens", "selected")):
        said = []
        for name in (WITH, WITHOUT):
            about = group[kind][name]
            if about["share"] is None:
                said.append(f"{name}: none")
                continue
            said.append(
                f"{name} {about['share']:.2%} ({about['low']:.2%} to {about['high']:.2%}) of {about['units']:,}"
            )
        gap = group[kind]["difference"]
        more = "" if gap is None else f"; difference {gap['value']:+.2%} ({gap['low']:+.2%} to {gap['high']:+.2%})"
        yield f"{kind} {verb}: {', '.join(said)}{more}"


def _has_term(spans: Spans, ids: NDArray[np.integer], begin: int, text: TokenText, terms: Terms) -> NDArray[np.bool_]:
    spelled, ends = text.spell(ids)
    bounds = np.concatenate([[0], ends])
    cuts = zip(bounds[spans.begins - begin].tolist(), bounds[spans.ends - begin].tolist())
    return np.array([terms.are_in(spelled[a:b].decode("utf-8", "replace")) for a, b in cuts], bool)


def _add(groups: Sequence[_Group], spans: Spans, has_term: NDArray[np.bool_]) -> None:
    """To the groups of all masks; ``spans`` are all spans of their documents that belong there."""
    if not len(spans):
        return
    document = spans.documents - spans.documents[0]
    count = int(document[-1]) + 1

    def by_document(values: NDArray, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(document[which], values[which], count).astype(np.int64)

    ones = np.ones(len(spans), np.int64)
    for group, selected in zip(groups, spans.selected):
        for name, which in ((WITH, has_term), (WITHOUT, ~has_term)):
            group.spans[name].add(by_document(ones, which), by_document(selected > 0, which))
            group.tokens[name].add(by_document(spans.sizes, which), by_document(selected, which))


def _values(sources: Sequence[Source], text_keys: str | Sequence[str], key: str) -> Iterator[str]:
    """The field ``key`` of every record that became a document."""
    keys = [text_keys] if isinstance(text_keys, str) else text_keys
    for batch in read_batches(sources, None):
        for _, row, _ in batch.records():
            if isinstance(row, LineFault):
                continue  # left out by --skip-bad-lines
            if text_of(row, ("text",) if batch.is_plain else keys):
                value = value_of(row, key)
                yield _MISSING if value is None else str(value)


def _said(share: ClusteredShare) -> dict[str, Any]:
    low, high = share.interval() or (None, None)
    return {
        "units": share.units, "hits": share.hits, "documents": share.documents, "share": share.share, "low": low,
        "high": high,
    }  # fmt: skip


def _gap(shares: dict[str, ClusteredShare]) -> dict[str, float] | None:
    found = difference(shares[WITH], shares[WITHOUT])
    return None if found is None else dict(zip(("value", "low", "high"), found))
