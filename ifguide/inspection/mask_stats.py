"""The statistics of masks on disk: opened, checked against each other, and put into words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.aligned import Aligned, load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES, SCORES
from ifguide.errors import InputError, MismatchError
from ifguide.inspection.statistics import Overlap, Statistics, collect
from ifguide.pages.text import split_text, visible
from ifguide.system.progress import counted

_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Report:
    """What is known of several masks.

    Attributes:
        names: prefix of each mask.
        masks: statistics of each.
        overlaps: by the places of two masks of the same data.
    """

    names: list[str]
    masks: list[Statistics]
    overlaps: dict[tuple[int, int], Overlap]


def mask_statistics(
    prefixes: Sequence[str], data: str | None = None, scores: str | None = None, top: int = 20
) -> Report:
    """Statistics of the masks ``prefixes``; those of the same data are compared with each other.

    Args:
        data: the tokens of all masks, if they moved since the masks were made.
        scores: of the tokens of all masks.
        top: phrases to keep.

    Raises:
        InputError: a file cannot be used.
        MismatchError: a mask is not of ``data`` or of the tokens that were scored.
    """
    if top < 1:
        raise InputError(f"--top {top}: must be at least 1")
    given = None if data is None else TokenDataset.open(data)
    masks = [load_aligned(prefix, given, PENALTIES) for prefix in prefixes]
    scored = None if scores is None else load_aligned(scores, given, SCORES)
    for mask in masks:
        if scored is not None and scored.sidecar.get("data") != mask.sidecar.get("data"):
            raise MismatchError(f"mask {mask.prefix} and scores {scored.prefix} are of different data")
    groups: dict[str, list[int]] = {}
    for place, mask in enumerate(masks):
        groups.setdefault(str(mask.sidecar.get("data")), []).append(place)
    found: dict[int, Statistics] = {}
    overlaps: dict[tuple[int, int], Overlap] = {}
    for places in groups.values():
        group = [masks[place] for place in places]
        statistics, pairs = collect(group, given or _tokens_of(group[0]), scored, top)
        found |= dict(zip(places, statistics))
        overlaps |= {(places[first], places[second]): overlap for (first, second), overlap in pairs.items()}
    return Report([str(prefix) for prefix in prefixes], [found[place] for place in range(len(masks))], overlaps)


def as_dict(report: Report, top: int, token_bytes: Callable[[int], bytes] | None) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "masks": [
            {"mask": name, **_statistics_dict(statistics, top, token_bytes)}
            for name, statistics in zip(report.names, report.masks)
        ],
        "overlaps": [
            {
                "first": report.names[first],
                "second": report.names[second],
                "both": overlap.both,
                **overlap.measures(),
            }
            for (first, second), overlap in report.overlaps.items()
        ],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """`as_dict` for a terminal."""
    text: list[str] = []
    for mask in result["masks"]:
        text += [
            f"{mask['mask']}: {mask['selected']:,} of {counted(mask['tokens'], 'token')} selected "
            f"({mask['fraction']:.2%}), in {mask['documents_with_selection']:,} of "
            f"{counted(mask['documents'], 'document')}",
            f"  share of a document    {_sparkline(mask['share_histogram'][1:])}  0-10 % .. 90-100 % (documents)",
            f"  place in a document    {_sparkline(mask['position']['share'])}  first tenth .. last (share selected)",
        ]
        if mask["scores"]:
            means = mask["scores"]
            text.append(
                f"  mean score             selected {means['selected_mean']:.4g}, other {means['other_mean']:.4g}"
            )
        for key, heading in (("top_tokens", "token"), ("top_phrases", "phrase")):
            if mask[key]:
                share = " (% = share of its occurrences)" if key == "top_tokens" else ""
                text.append(f"  most selected {heading}s{share}")
                text += [f"    {_row(row)}" for row in mask[key]]
        if mask["phrase_counts_missed"]:
            text.append(f"    (counts of phrases may be too small by {mask['phrase_counts_missed']})")
        text.append("")
    for pair in result["overlaps"]:
        measures = ", ".join(
            f"{name} {'undefined' if pair[key] is None else format(pair[key], '.3f')}"
            for key, name in (
                ("jaccard", "Jaccard"),
                ("of_first", "share of the first"),
                ("of_second", "of the second"),
                ("phi", "phi"),
            )
        )
        text.append(f"{pair['first']} and {pair['second']}: {counted(pair['both'], 'token')} in both, {measures}")
    return text


def _statistics_dict(statistics: Statistics, top: int, token_bytes: Callable[[int], bytes] | None) -> dict[str, Any]:
    filled = statistics.shares[statistics.shares > 0]
    quantiles = np.quantile(filled, [0.25, 0.5, 0.75, 0.99]).tolist() if len(filled) else []
    return {
        "tokens": statistics.num_tokens,
        "selected": statistics.num_selected,
        "fraction": statistics.num_selected / statistics.num_tokens,
        "mean_strength": statistics.strength,
        "documents": len(statistics.shares),
        "documents_with_selection": len(filled),
        "share_histogram": statistics.share_histogram(),
        "share_quantiles": dict(zip(("0.25", "0.5", "0.75", "0.99"), quantiles)),
        "position": _shares(statistics.selected_by_decile, statistics.tokens_by_decile),
        "offset": _shares(statistics.selected_by_offset, statistics.tokens_by_offset),
        "top_tokens": _top_tokens(statistics, top, token_bytes),
        "top_phrases": [
            {"ids": list(ids), "text": _text(ids, token_bytes), "count": count}
            for ids, count in statistics.phrases or []
        ],
        "phrase_counts_missed": statistics.phrases_missed,
        "scores": statistics.scores,
    }  # fmt: skip


def _top_tokens(statistics: Statistics, top: int, token_bytes: Callable[[int], bytes] | None) -> list[dict[str, Any]]:
    """The token types that are selected most often; ties by id."""
    if statistics.selected_by_id is None or statistics.tokens_by_id is None:
        return []
    order = np.argsort(-statistics.selected_by_id, kind="stable")[:top]
    return [
        {
            "id": index,
            "text": _text([index], token_bytes),
            "selected": int(statistics.selected_by_id[index]),
            "count": int(statistics.tokens_by_id[index]),
        }
        for index in order.tolist()
        if statistics.selected_by_id[index]
    ]


def _tokens_of(mask: Aligned) -> TokenDataset | None:
    """The tokens that the mask's sidecar names, if they are still there."""
    prefix = mask.sidecar.get("data_prefix")
    if prefix is None or not Path(f"{prefix}.idx").exists():
        return None
    tokens = TokenDataset.open(prefix)
    load_aligned(mask.prefix, tokens, PENALTIES)
    return tokens


def _shares(selected: np.ndarray, total: np.ndarray) -> dict[str, list]:
    return {
        "selected": selected.tolist(),
        "tokens": total.tolist(),
        "share": (selected / np.maximum(total, 1)).tolist(),
    }


def _text(ids: Sequence[int], token_bytes: Callable[[int], bytes] | None) -> str | None:
    return None if token_bytes is None else "".join(text for text, _ in split_text(ids, token_bytes))


def _row(row: dict[str, Any]) -> str:
    name = str(row.get("ids") or row["id"]) if row["text"] is None else visible(row["text"]).replace("\n", "⏎")
    if "selected" in row:
        return f"{row['selected']:>9,} {row['selected'] / row['count']:>5.0%}  |{name}|"
    return f"{row['count']:>9,}  |{name}|"


def _sparkline(values: Sequence[float]) -> str:
    most = max(values, default=0)
    return "".join(_BARS[math.ceil(8 * value / most)] if most else " " for value in values)
