"""What an attack prints in the end: a line for each of its main numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def relearn_lines(results: Mapping[str, Any]) -> list[str]:
    """Of each run EMT at every measured step, and how many steps it took to the base's level."""
    lines = []
    for run in results["runs"]:
        for scorer, reached in run["to_base"].items():
            course = ", ".join(f"{point['step']}: {point['scorers'][scorer]['emt']:.3f}" for point in run["points"])
            found = reached["emt"]
            last = run["points"][-1]["step"]
            ends = " to ".join(f"never within {last}" if end is None else str(end) for end in found["interval"])
            step = f"never within {last} steps" if found["step"] is None else f"at step {found['step']}"
            where = f"{run['model']}, {run['documents']} {run['kind']}, {scorer}"
            lines.append(f"{where}: EMT {course}; {results['base']}'s level {step} [{ends}]")
    return lines


def gcg_lines(results: Mapping[str, Any]) -> list[str]:
    """Of each model the shares that were said exactly and that were toxic, with the attack and with random tokens."""
    lines = []
    for name, model in results["models"].items():
        for scorer in model["ways"]["attack"]["scorers"]:
            parts = []
            for way in ("none", "random", "attack"):
                found = model["ways"][way]
                any_toxic = found["scorers"][scorer]["any"]["share"]
                parts.append(f"{way}: exact {found['exact']['share']:.3f}, toxic {any_toxic:.3f}")
            lines.append(f"{name}, {scorer}: {'; '.join(parts)}")
    return lines


def orthogonalise_lines(results: Mapping[str, Any]) -> list[str]:
    """EMT of each model as it is, and without each direction."""
    return [
        f"{run['model']}, {run['direction']}{', ' + run['remove'] if run['remove'] else ''}, {scorer}: "
        f"EMT {found['emt']:.3f} [{', '.join(f'{bound:.3f}' for bound in found['emt_interval'])}]"
        for run in results["runs"]
        for scorer, found in run["scorers"].items()
    ]


def prompts_lines(results: Mapping[str, Any]) -> list[str]:
    """Success, harmless refusals and empty texts of each model, frame and kind of prompts."""
    return [
        f"{group['model']}, {group['frame']}, {group['category']} ({group['prompts']}), {scorer}: "
        f"success {found['success']['share']:.3f}, EMT {found['emt']['value']:.3f}, "
        f"harmless refusals {group['harmless_refusals']['value']:.3f}, empty {group['empty']['value']:.3f}"
        for group in results["groups"]
        for scorer, found in group["scorers"].items()
    ]
