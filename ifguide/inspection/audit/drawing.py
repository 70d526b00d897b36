"""The folder of an audit.

  audit.json       the strata, and of every span its stratum, its draws and what each mask selects in it
  spans.jsonl      what a labeller reads: id, document, text, what stands before and after
  labelling.html   the same as a page that takes labels by keyboard

Neither the page nor ``spans.jsonl`` says anything of masks, and their order is random: whoever labels is blind. An id
holds a hash of the audit, so that labels of another one are noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ifguide.data.aligned import Aligned, load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES
from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError
from ifguide.inspection.audit.sampling import Draws, Strata, count_strata, draw
from ifguide.inspection.spans import SpanWalk, parse_span
from ifguide.pages.labelling.page import labelling_page
from ifguide.system.files import hash_value, read_json, write_json, write_jsonl, write_text
from ifguide.system.provenance import origin

RECORD, SPANS, PAGE = "audit.json", "spans.jsonl", "labelling.html"
CONTEXT = 80
MOST_MASKS = 8
_FORMAT = 1


def draw_audit(
    data: str | Path,
    masks: Sequence[str],
    reader: TextReader,
    output: Path,
    *,
    span: str = "line",
    sample: int = 300,
    context: int = CONTEXT,
    seed: int = 0,
    quiet: bool = True,
) -> dict[str, Any]:
    """Draw spans and write the folder; returns its record.

    Args:
        span: ``line``, ``sentence`` or ``window:W``.
        sample: draws (`ifguide.inspection.audit.sampling`).
        context: tokens shown before and after a span.

    Raises:
        InputError: files or options that cannot be used, or a mask that selects nothing.
        MismatchError: masks of other tokens.
    """
    settings = parse_span(span)
    if context < 0:
        raise InputError(f"--context {context}: must be at least 0")
    if len(masks) > MOST_MASKS:
        raise InputError(
            f"--mask: {len(masks)} masks are too many to tell apart with labels; give at most {MOST_MASKS}"
        )
    if len(set(masks)) < len(masks):
        raise InputError("--mask names a mask twice")
    tokens = TokenDataset.open(data)
    opened = [load_aligned(mask, tokens, PENALTIES) for mask in masks]
    walk = SpanWalk(tokens, opened, settings, reader, quiet)
    strata = count_strata(walk)
    for mask, selected in zip(masks, strata.selected.sum(axis=0).tolist()):
        if not selected:
            raise InputError(f"mask {mask} selects no token of any text; there is nothing to audit")
    draws = draw(walk, strata, sample, seed)
    key = _key(opened, span, sample, seed)
    record = audit_record(key, masks, span, strata, draws)
    shown = _shown(record, tokens, reader, draws, context)
    output.mkdir(parents=True, exist_ok=True)
    write_jsonl(output / SPANS, shown)
    write_text(output / PAGE, labelling_page(shown, key))
    write_json(output / RECORD, {**record, **origin()})
    return record


def read_audit(folder: Path) -> dict[str, Any]:
    """The record of an audit.

    Raises:
        InputError: there is none.
    """
    record = read_json(folder / RECORD, "record of an audit")
    if not isinstance(record, dict) or record.get("audit_format") != _FORMAT:
        raise InputError(f"{folder / RECORD} is no record of `ifguide audit-mask` that this version reads; draw again")
    return record


def stratum_names(record: dict[str, Any]) -> list[str]:
    """What the masks have to do with the spans of each stratum, for people."""
    names = record["masks"]
    found = []
    for stratum in record["strata"]:
        touching = [names[m] for m in stratum["masks"]]
        if not touching:
            found.append("no mask")
        elif len(touching) == len(names):
            found.append(names[0] if len(names) == 1 else "both" if len(names) == 2 else "all masks")
        else:
            found.append(" and ".join(touching) + " alone")
    return found


def _key(masks: Sequence[Aligned], span: str, sample: int, seed: int) -> str:
    about = [[mask.sidecar["fingerprint"], mask.sidecar["data"]] for mask in masks]
    return hash_value([about, span, sample, seed])[:8]


def audit_record(key: str, masks: Sequence[str], span: str, strata: Strata, draws: Draws) -> dict[str, Any]:
    """What ``audit.json`` holds of the draw: the strata, and the drawn spans without their texts.

    Args:
        key: of the audit; begins the id of every span.
        masks: their names.
    """
    return {
        "audit_format": _FORMAT,
        "audit": key,
        "masks": list(masks),
        "span": span,
        "strata": [
            {
                "masks": [m for m in range(len(masks)) if pattern >> m & 1],
                "spans": int(strata.spans[h]),
                "tokens": int(strata.tokens[h]),
                "selected": strata.selected[h].tolist(),
                "draws": int(draws.allotted[h]),
                "complete": bool(draws.complete[h]),
            }
            for h, pattern in enumerate(strata.patterns.tolist())
        ],
        "spans": [
            {
                "id": f"{key}-{place + 1}",
                "stratum": int(draws.strata[place]),
                "draws": int(draws.times[place]),
                "tokens": int(draws.spans.sizes[place]),
                "selected": draws.spans.selected[:, place].tolist(),
            }
            for place in range(len(draws.spans))
        ],
    }


def _shown(
    record: dict[str, Any], tokens: TokenDataset, reader: TextReader, draws: Draws, context: int
) -> list[dict[str, Any]]:
    token_bytes = lru_cache(maxsize=None)(reader.token_bytes)

    def text(begin: int, end: int) -> str:
        ids = tokens.tokens[begin:end].tolist()
        return b"".join(token_bytes(i) for i in ids if i != reader.eod).decode("utf-8", "replace")

    shown = []
    for place, about in enumerate(record["spans"]):
        document = int(draws.spans.documents[place])
        first, last = int(tokens.starts[document]), int(tokens.starts[document + 1])
        begin, end = int(draws.spans.begins[place]), int(draws.spans.ends[place])
        shown.append(
            {
                "id": about["id"],
                "document": document,
                "begin": begin - first,
                "end": end - first,
                "before": text(max(first, begin - context), begin),
                "text": text(begin, end),
                "after": text(end, min(last, end + context)),
            }
        )
    return shown
