"""The text of ``ifguide doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ifguide.requirements.doctor import FAILS, UNTESTED, WORKS
from ifguide.requirements.machine import GIB


def text(report: dict[str, Any]) -> str:
    """``report`` (`ifguide.requirements.doctor.examine`) for a person; the faults come last, one line each."""
    return "\n".join([*_place(report), "", *_dependencies(report), "", *_verbs(report["verbs"]), "", *_verdict(report)])


def _place(report: dict[str, Any]) -> Iterator[str]:
    python = report["python"]
    yield f"gpt-neox-ifguide {report['version']}"
    yield (
        f"Python {python['version']} ({python['executable']}); tested: base install {', '.join(python['base'])}, "
        f"everything {', '.join(python['all'])}"
    )
    torch = report["torch"]
    if torch and "error" not in torch:
        built = f"CUDA {torch['cuda']}" if torch["cuda"] else f"ROCm {torch['hip']}" if torch["hip"] else "CPU"
        found = [f"{device['name']} ({device['memory'] / GIB:.0f} GiB)" for device in torch["devices"]]
        yield f"torch {torch['version']}, built for {built}; devices: {', '.join(found) or 'none but the CPU'}"
    cores = report["cores"]
    memory = "" if cores["memory"] is None else f", {cores['memory'] / GIB:.0f} GiB of memory"
    threads = f"; torch uses {torch['threads']} threads" if torch and "error" not in torch else ""
    settings = "".join(f", {name}={value}" for name, value in cores["threads"].items())
    yield f"{cores['usable']} cores{memory}{threads}{settings}"
    for place in report["disk"]:
        yield f"{place['free'] / GIB:.0f} GiB free for {place['role']} ({place['folder']})"
    if report["private_parts"] is not None:
        count = len(report["private_parts"])
        yield f"non-public parts of dependencies: {f'{count} not as expected' if count else 'all as expected'}"
    if report["neox"]:
        versions = "  ".join(f"{name} {version}" for name, version in report["neox"]["versions"].items())
        fits = "the patch cannot be trusted there" if report["neox"]["faults"] else "the patch fits"
        yield f"GPT-NeoX at {report['neox']['checkout']}: {fits}{f' ({versions})' if versions else ''}"


def _dependencies(report: dict[str, Any]) -> Iterator[str]:
    heads = ("dependency", "found", "locked", "tested range", "")
    rows = [
        (row["name"], row["found"] or "-", row["locked"] or "-", row["range"], row["state"])
        for row in report["dependencies"]
        if row["judged"] or row["found"]
    ]
    yield from _table([heads, *rows])
    if report["indirect"]:
        others = [f"{row['name']} {row['found']} (locked {row['locked']})" for row in report["indirect"]]
        yield f"indirect dependencies that are not as locked: {', '.join(others)}"


def _verbs(verbs: Sequence[dict[str, Any]]) -> Iterator[str]:
    titles = {
        WORKS: "will work",
        UNTESTED: "may fail: a dependency is outside the range that was tested",
        FAILS: "will not work",
    }
    for state, title in titles.items():
        rows = [row for row in verbs if row["state"] == state]
        if not rows:
            continue
        yield f"{title}:"
        for row in rows:
            why = "; ".join(row["why"])
            without = f"without {', '.join(row['without'])}" if row["without"] and state != FAILS else ""
            doubtful = f"some options use an untested {', '.join(row['doubtful'])}" if row["doubtful"] else ""
            yield f"  {row['verb']:<17}  {'; '.join(filter(None, (why, without, doubtful)))}".rstrip()


def _verdict(report: dict[str, Any]) -> Iterator[str]:
    faults = report["faults"]
    if not faults:
        yield "nothing is wrong here"
        return
    yield f"{len(faults)} fault{'s' * (len(faults) > 1)}:"
    yield from (f"fault: {fault}" for fault in faults)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
