"""What an audit found, in words."""

from __future__ import annotations

from typing import Any

from ifguide.system.progress import counted


def lines(result: dict[str, Any]) -> list[str]:
    """`ifguide.inspection.audit.estimate.audit` for a terminal."""
    said = result["labels"]
    text = [
        f"{said['given']} of {counted(said['spans'], 'span')} labelled: {said['abuse']} abuse, {said['unsure']} unsure",
        f"share of abuse: {_percent(result['share'])} of the tokens",
    ]
    for row in result["masks"]:
        text.append(
            f"{row['mask']}: precision {_percent(row['precision'])}, recall {_percent(row['recall'])}, spans reached "
            f"{_percent(row['reached'])}, F1 {_percent(row['f1'])}"
        )
    text.append("spans by the masks that touch them:")
    for about in result["strata"]:
        text.append(
            f"  {about['masks']}: {about['abuse']} of {about['decided']} decided are abuse "
            f"({counted(about['spans'], 'span')}, "
            f"{counted(about['tokens'], 'token')})"
        )
    text += _unsure(result) + _compared(result) + _identity(result)
    return text


def _unsure(result: dict[str, Any]) -> list[str]:
    count = result["labels"]["unsure"]
    if not count:
        return []
    text = [f"the {count} unsure spans are left out, as if they were like the others of their stratum"]
    for label, found in result["if_unsure_are"].items():
        rows = [
            f"{row['mask']} precision {_plain(row['precision'])}, recall {_plain(row['recall'])}"
            for row in found["masks"]
        ]
        text.append(f"  were they all {label}: share {_plain(found['share'])}; {'; '.join(rows)}")
    return text


def _compared(result: dict[str, Any]) -> list[str]:
    text = []
    for row in result["comparisons"]:
        if row["f1"] is None:
            continue
        gaps = ", ".join(
            f"{name} {row[key]['value']:+.3f} ({row[key]['low']:+.3f} to {row[key]['high']:+.3f})"
            for key, name in (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
        )
        text.append(f"{row['first']} less {row['second']}: {gaps}")
    if not result["comparisons"]:
        return text
    if result["recommended"]:
        text.append(f"take {result['recommended']}: its F1 is higher than that of every other mask")
    elif result["cannot_tell_apart"] and result["masks"][0]["f1"] is not None:
        text.append(
            f"cannot tell apart: {', '.join(result['cannot_tell_apart'])}; label more spans, or choose by what "
            "training with each does"
        )
    else:
        text.append("cannot tell apart: no labelled span is abuse; draw more spans")
    for row in result["comparisons"]:
        precision, recall = row["precision"], row["recall"]
        if all(gap and (gap["low"] > 0 or gap["high"] < 0) for gap in (precision, recall)) and (
            (precision["value"] > 0) != (recall["value"] > 0)
        ):
            careful = row["first"] if precision["value"] > 0 else row["second"]
            other = row["second"] if precision["value"] > 0 else row["first"]
            text.append(f"  {careful} touches less that is harmless, {other} leaves less abuse; F1 weighs both alike")
    if result["partial"]:
        text.append(
            f"  {', '.join(result['partial'])}: takes parts of spans; labels of spans cannot say whether those are the "
            "tokens that teach"
        )
    return text


def _identity(result: dict[str, Any]) -> list[str]:
    text = []
    for row in result.get("identity", []):
        spans = row["spans"]
        text.append(
            f"harmless text that {row['mask']} selects: with identity terms {_percent(row['with'])}, without "
            f"{_percent(row['without'])} ({spans['with']} and {spans['without']} labelled spans)"
        )
        gap = row["difference"]
        if gap:
            text.append(f"  difference {gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})")
    return text


def _percent(found: dict[str, float] | None) -> str:
    if found is None:
        return "unknown"
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


def _plain(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
