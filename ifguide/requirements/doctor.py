"""Whether this environment can do the work: what is here, what was tested, and which verbs will work.

Nothing of the environment is imported into this process: versions come from the packages' metadata, and torch, the
checks of non-public parts and of a GPT-NeoX checkout run in processes of their own, so that a broken one is told.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ifguide
from ifguide.requirements import lock, machine
from ifguide.requirements.needs import NEEDS, how_to_install
from ifguide.requirements.ranges import Dependency, allows, dependencies, installed, record

BASE = ("numpy", "PyYAML")
AS_LOCKED, IN_RANGE, OUTSIDE, MISSING = "as locked", "in range", "outside", "missing"
WORKS, UNTESTED, FAILS = "works", "untested", "fails"

_ASK_COMPAT = """
import json
from ifguide.compat.registry import check
print(json.dumps([str(finding) for finding in check()]))
"""


def examine(
    verbs: Collection[str] | None = None, neox: str | None = None, output: Path | None = None
) -> dict[str, Any]:
    """All that ``ifguide doctor`` says.

    Args:
        verbs: the verbs that are wanted here; None is all of them, with training. What only some options of a named
            verb need may be missing; of all of them it is a fault.
        neox: a GPT-NeoX checkout to compare with what the patch expects.
        output: where results will be written; by default the current folder.

    Returns:
        ``python``, ``dependencies`` (one row each), ``indirect`` (those that are not as locked), ``torch``, ``cores``,
        ``disk``, ``private_parts``, ``neox``, ``verbs`` (one row each) and ``faults`` (one line each; [] is healthy).
    """
    wanted = list(NEEDS) if verbs is None else list(dict.fromkeys(verbs))
    judged = {*BASE, *(name for verb in wanted for name in (*NEEDS[verb].always, *NEEDS[verb].sometimes))}
    rows = _dependencies(judged)
    torch = machine.torch_build() if "torch" in judged and installed("torch") else None
    report: dict[str, Any] = {
        "version": ifguide.__version__,
        "python": {**machine.python(), **record()["python"]},
        "dependencies": rows,
        "indirect": _indirect(),
        "torch": torch,
        "cores": machine.cores(),
        "disk": machine.disk(_folders(output)),
        "private_parts": _private_parts() if torch and "error" not in torch else None,
        "neox": _neox(neox) if neox else None,
    }
    broken = torch["error"] if torch and "error" in torch else None
    report["verbs"] = [_verdict(verb, {row["name"]: row for row in rows}, broken) for verb in wanted]
    report["faults"] = list(_faults(report, judged, verbs is None))
    return report


def _dependencies(judged: Collection[str]) -> list[dict[str, Any]]:
    entries, python = lock.read(), machine.python()["version"]
    rows = []
    for name, dependency in dependencies().items():
        found = installed(name)
        locked = record()["torch"] if name == "torch" else lock.version_for(entries, name, python)
        rows.append({
            "name": name,
            "found": found,
            "locked": locked,
            "range": dependency.range,
            "tried": list(dependency.tried),
            "extras": list(dependency.extras),
            "state": _state(dependency, found, locked),
            "judged": name in judged,
        })  # fmt: skip
    return rows


def _state(dependency: Dependency, found: str | None, locked: str | None) -> str:
    if found is None:
        return MISSING
    if not allows(dependency.range, found):
        return OUTSIDE
    return AS_LOCKED if locked is not None and found.partition("+")[0] == locked else IN_RANGE


def _indirect() -> list[dict[str, str]]:
    """What the lock has beside the direct dependencies and is installed here in another version."""
    entries, python = lock.read(), machine.python()["version"]
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # a folder that an aborted install left behind has metadata without a name
        if name := distribution.metadata["Name"]:
            found.setdefault(lock.normalise(name), distribution.version)
    direct = {lock.normalise(name) for name in dependencies()}
    rows = []
    for name in sorted({entry.name for entry in entries} - direct):
        locked = lock.version_for(entries, name, python)
        if locked is not None and name in found and found[name] != locked:
            rows.append({"name": name, "found": found[name], "locked": locked})
    return rows


def _folders(output: Path | None) -> dict[str, Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return {"results": (output or Path()).absolute(), "temporary": Path(tempfile.gettempdir()), "cache": cache}


def _private_parts() -> list[str] | None:
    """What the registry of non-public parts of dependencies finds amiss; None where there is no registry."""
    if find_spec("ifguide.compat") is None or find_spec("ifguide.compat.registry") is None:
        return None
    return _ask([sys.executable, "-c", _ASK_COMPAT], "the check of non-public parts")


def _neox(path: str) -> dict[str, Any]:
    """What ``python -m ifguide_patch.check`` says of the checkout at ``path``: ``versions`` and ``faults``."""
    command = [sys.executable, "-m", "ifguide_patch.check", path, "--json"]
    answer = _ask(command, "the check of the GPT-NeoX checkout", codes=(0, 1))
    if isinstance(answer, list):
        return {"checkout": path, "versions": {}, "faults": answer}
    return {name: answer[name] for name in ("checkout", "versions", "faults")}


def _ask(command: list[str], what: str, codes: Collection[int] = (0,)) -> Any:
    """The JSON that ``command`` prints, perhaps after other lines; a list of one fault where it does not get so far."""
    # the folder that holds this package: where nothing is installed, only the current process knows it
    path = os.pathsep.join(filter(None, (str(Path(ifguide.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    except subprocess.TimeoutExpired:
        return [f"{what} takes longer than five minutes"]
    lines = done.stdout.splitlines()
    if done.returncode in codes:
        for first in range(len(lines)):
            try:
                return json.loads("\n".join(lines[first:]))
            except ValueError:
                continue
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return [f"{what} failed: {said[-1]}"]


def _verdict(verb: str, rows: dict[str, dict[str, Any]], torch_error: str | None) -> dict[str, Any]:
    """Whether ``verb`` will work.

    Returns:
        ``verb``, ``state``, the reasons ``why``; of what serves some of its options only, what is missing
        (``without``) and what is in a version that was not tested (``doubtful``).
    """
    needs = NEEDS[verb]
    always = dict.fromkeys((*BASE, *needs.always))
    missing = [name for name in always if rows[name]["state"] == MISSING]
    absent = [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"] if missing else []
    if torch_error and "torch" in always:
        absent.append(f"torch does not work: {torch_error}")
    strange = [_outside(rows[name]) for name in always if rows[name]["state"] == OUTSIDE]
    options = [name for name in dict.fromkeys(needs.sometimes) if name not in always]
    return {
        "verb": verb,
        "state": FAILS if absent else UNTESTED if strange else WORKS,
        "why": absent or strange,
        "without": [name for name in options if rows[name]["state"] == MISSING],
        "doubtful": [name for name in options if rows[name]["state"] == OUTSIDE],
    }


def _outside(row: dict[str, Any]) -> str:
    return f"{row['name']} {row['found']} is outside the tested range {row['range']}"


def _faults(report: dict[str, Any], judged: Collection[str], everything: bool) -> Iterable[str]:
    """One line a fault, each with what it means and what to do."""
    least = record()["python"]["base"][0]
    if not allows(f">={least}", report["python"]["version"]):
        yield f"Python {report['python']['version']} is older than {least}"
    for row in report["dependencies"]:
        if row["name"] not in judged:
            continue
        users = [verb["verb"] for verb in report["verbs"] if row["name"] in NEEDS[verb["verb"]].always]
        partly = [verb["verb"] for verb in report["verbs"] if row["name"] in (*verb["without"], *verb["doubtful"])]
        if row["name"] in BASE:
            users, partly = [verb["verb"] for verb in report["verbs"]], []
        if row["state"] == MISSING:
            # who names a verb knows which of its options are wanted: the verb's own line says what they lack
            if not users and not everything:
                continue
            lost = _lost(users, partly, "will not work")
            yield f"{row['name']} is not installed: {lost}; {how_to_install([row['name']])}"
        elif row["state"] == OUTSIDE:
            yield (
                f"{_outside(row)}: {_lost(users, partly, 'may fail')}; install the locked version: "
                f"pip install '{row['name']}=={row['locked']}'"
            )
    if report["torch"] and "error" in report["torch"]:
        yield f"torch is installed and does not work: {report['torch']['error']}"
    for place in report["disk"]:
        if not place["writable"]:
            yield f"{place['folder']} ({place['role']}) cannot be written"
        elif place["free"] < machine.LEAST_FREE:
            yield f"{place['folder']} ({place['role']}) has {place['free'] / machine.GIB:.1f} GiB free, fewer than 2"
    yield from report["private_parts"] or ()
    if report["neox"]:
        yield from (f"GPT-NeoX: {fault}" for fault in report["neox"]["faults"])


def _lost(users: list[str], partly: list[str], what: str) -> str:
    """Which verbs a dependency takes with it, and of which only some options."""
    return f"{_series(users)} {what}" if users else f"some options of {_series(partly)} {what}"


def _series(names: list[str], most: int = 4) -> str:
    """The names, or the first of them and how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
