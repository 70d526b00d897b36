"""The folder of an attack: what is finished lies in a journal, and the results appear in the end.

journal.jsonl   finished pieces; a key holds everything that decides a piece, so that a killed run goes on
results.json    the numbers, and the request that asked for them
run.json        the replayable record
report.html     the page
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ifguide.data.sources.names import absolute_name, input_hash
from ifguide.errors import InputError
from ifguide.system.files import write_json, write_jsonl, write_text
from ifguide.system.journal import Journal
from ifguide.system.locks import only_writer
from ifguide.system.provenance import environment, origin, write_run_record

KIND, FORMAT = "ifguide-attack", 1
RESULTS, RECORD, PAGE, JOURNAL, DETAILS = "results.json", "run.json", "report.html", "journal.jsonl", "details.jsonl"


@contextmanager
def working_in(output: str) -> Iterator[Journal]:
    """The journal of the folder ``output``, which is made if it is missing, and is this process's alone.

    Raises:
        InputError: it cannot be made, or another process works there.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}") from None
    with only_writer(folder / RESULTS), Journal(folder / JOURNAL) as journal:
        yield journal


def finish(
    output: str,
    attack: str,
    results: Mapping[str, Any],
    details: list[dict[str, Any]],
    inputs: Mapping[str, str | None],
    began: float,
    page: Callable[[Mapping[str, Any]], str],
) -> dict[str, Any]:
    """Write everything, ``results.json`` last: who finds it finds the rest.

    Args:
        attack: its verb.
        results: what the attack found.
        details: lines of ``details.jsonl``, one for each prompt, text or measurement.
        inputs: option -> file that was read; None for one that was not given.
        began: when the work began, by `time.time`.
        page: makes the page of the results.

    Returns:
        What ``results.json`` holds.
    """
    folder = Path(output)
    read = {option: {"path": absolute_name(path), "hash": input_hash(path)} for option, path in inputs.items() if path}
    seconds = round(time.time() - began, 2)
    whole = {
        "kind": KIND, "format": FORMAT, "attack": attack, **results, "inputs": read, "seconds": seconds,
        **environment(), **origin(),
    }  # fmt: skip
    write_jsonl(folder / DETAILS, details)
    write_text(folder / PAGE, page(whole))
    write_run_record(folder, attack=attack, settings=results.get("settings"), inputs=read, seconds=seconds)
    write_json(folder / RESULTS, whole)
    return whole
