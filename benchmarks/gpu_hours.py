"""Hours of each stage from text to scores, for Pythia-160M and a billion tokens: from measured rates, or from a floor.

    python benchmarks/gpu_hours.py                              # the floor: operations over the peaks of an H100
    python benchmarks/gpu_hours.py --rates gpu.json             # from rates that `gpu.py` measured, beside the floor

The floor is what no program can be faster than on that card; nothing of it was measured. Its operations are those that
`ifguide plan` counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attribution_case import DIFFERENCE, JVP, SHAPES
from common import markdown_table

if TYPE_CHECKING:
    from ifguide.influence.planning import shape as planning

PUBLISHED_HOURS = 7.5
# H100 SXM, FLOP/s of dense products by NVIDIA's data sheet
H100 = {"fp64": 34e12, "fp32": 67e12, "TF32": 495e12, "bf16": 989e12}
# of a symmetric eigendecomposition with vectors, per cube of the side: reduction, solution and the way back
_EIGEN = 9.0
# way -> (of the pass, arithmetic of the body, arithmetic of the head)
FLOOR_WAYS = {
    "jvp, bf16": (JVP, "bf16", "fp32"),
    "jvp, bf16, head in TF32": (JVP, "bf16", "TF32"),
    "jvp, TF32": (JVP, "TF32", "TF32"),
    "jvp, fp32": (JVP, "fp32", "fp32"),
    "difference, TF32": (DIFFERENCE, "TF32", "TF32"),
    "difference, fp32": (DIFFERENCE, "fp32", "fp32"),
}
_HOUR = 3600.0


@dataclass(frozen=True)
class Job:
    """What is scored.

    Attributes:
        shape: of the model, one of `SHAPES`.
        tokens: of the corpus.
        overlap: positions that windows of long documents see again, as a share of the tokens.
        fit_tokens: that EK-FAC factors are fitted on.
        query_tokens: of all queries.
    """

    shape: str = "pythia-160m"
    tokens: int = 10**9
    overlap: float = 0.15
    fit_tokens: int = 10**6
    query_tokens: int = 10**5


JOB = Job()


def hours(operations: Mapping[str, float], rate: float) -> float:
    """Hours that ``operations`` of one arithmetic take at ``rate`` FLOP/s."""
    return sum(operations.values()) / rate / _HOUR


def from_floor(job: Job, peaks: Mapping[str, float] = H100) -> dict[str, Any]:
    """Hours by stage at ``peaks``: ``stages`` before the pass, ``passes`` and ``total`` by way."""
    from ifguide.influence.options import Method
    from ifguide.influence.planning import work as plan_work

    shape = _planning_shape(job.shape)
    fit = plan_work.fitting(shape, _work(job, job.fit_tokens), "ekfac")
    eigen = {"eigendecomposition": _EIGEN * fit.pop("eigendecomposition")}
    stages = {
        **{f"fit-factors: {phase}": hours({phase: count}, peaks["fp32"]) for phase, count in fit.items()},
        "fit-factors: eigendecomposition": hours(eigen, peaks["fp64"]),
        "score: direction": hours(
            {"direction": plan_work.direction(shape, job.query_tokens, "ekfac", 1)}, peaks["fp32"]
        ),
    }
    work = _work(job, job.tokens)
    passes = {}
    for name, (way, body, head) in FLOOR_WAYS.items():
        last = plan_work.head(shape, work)
        whole = plan_work.scoring(shape, work, Method(method=way, step=1e-3 if way == DIFFERENCE else None), 1)
        passes[name] = hours({"body": whole - last}, peaks[body]) + hours({"head": last}, peaks[head])
    return _summed(stages, passes, "operations over the stated peaks; nothing was measured")


def from_rates(job: Job, rates: Mapping[str, Any], commands: Mapping[str, Any]) -> dict[str, Any] | None:
    """Hours by stage from rows that `gpu.py` wrote for this shape; None where no way was timed.

    Args:
        rates: way -> ``tokens_per_second`` of full windows.
        commands: of the section of that name. Fitting is a line through two samples, so that what it takes once, the
            eigendecomposition above all, is not multiplied; scoring's start is what `ifguide score` took over its pass.
    """
    positions = job.tokens * (1 + job.overlap)
    passes = {
        way: positions / row["tokens_per_second"] / _HOUR for way, row in rates.items() if "tokens_per_second" in row
    }
    if not passes:
        return None
    stages = {}
    samples = sorted(
        (row["tokens"], row["seconds"])
        for name, row in commands.items()
        if name.startswith("fit-factors, ekfac") and "seconds" in row
    )
    if len(samples) > 1:
        (few, soon), (many, late) = samples[0], samples[-1]
        slope = max(0.0, (late - soon) / (many - few))
        stages["fit-factors"] = (soon + slope * max(0, job.fit_tokens - few)) / _HOUR
    starts = [
        row["seconds"] - row["tokens"] / row["tokens_per_second"]
        for name, row in commands.items()
        if name.startswith("score,") and row.get("tokens_per_second")
    ]
    if starts:
        stages["score: start and direction"] = max(0.0, *starts) / _HOUR
    return _summed(stages, passes, "rates of this run")


def hours_of(
    job: Job, floor: Mapping[str, Any], rates: Mapping[str, Any], commands: Mapping[str, Any]
) -> dict[str, Any]:
    """What `table` shows: ``floor`` as `from_floor` gives it, and ``measured`` where some of ``rates`` were timed."""
    found = {"job": asdict(job), "published": PUBLISHED_HOURS, "floor": floor}
    measured = from_rates(job, rates, commands)
    return found if measured is None else found | {"measured": measured}


def table(found: Mapping[str, Any]) -> str:
    """Floor, and measured hours where there are any, beside the published ones."""
    kinds = [kind for kind in ("floor", "measured") if kind in found]
    rows = []
    for part, title in (("stages", ""), ("passes", "score: pass, "), ("total", "in all, ")):
        names = dict.fromkeys(name for kind in kinds for name in found[kind][part])
        for name in names:
            cells = [found[kind][part].get(name) for kind in kinds]
            rows.append((f"{title}{name}", *("" if cell is None else f"{cell:.3g}" for cell in cells)))
    rows.append(("published", *[f"{found['published']:g}"] * len(kinds)))
    return markdown_table(["hours", *kinds], rows)


def _summed(stages: dict[str, float], passes: dict[str, float], source: str) -> dict[str, Any]:
    before = sum(stages.values())
    return {
        "stages": {name: round(value, 5) for name, value in stages.items()},
        "passes": {name: round(value, 5) for name, value in passes.items()},
        "total": {name: round(before + value, 5) for name, value in passes.items()},
        "source": source,
    }


def _work(job: Job, tokens: int) -> Any:
    """``tokens`` in full windows."""
    from ifguide.influence.planning.work import Work

    window = SHAPES[job.shape].window
    positions = round(tokens * (1 + job.overlap))
    return Work(-(-positions // window), tokens, positions, float(positions), float(positions) * window, window)


@cache
def _planning_shape(name: str) -> planning.Shape:
    from gpu_case import configuration

    from ifguide.influence.planning.shape import read_shape

    with tempfile.TemporaryDirectory() as folder:
        configuration(SHAPES[name]).save_pretrained(folder)
        return read_shape(folder)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, metavar="FILE", help="JSON of gpu.py")
    parser.add_argument("--shape", choices=SHAPES, default=JOB.shape)
    parser.add_argument("--tokens", type=float, default=JOB.tokens, help="default: 1e9")
    parser.add_argument("--fit-tokens", type=float, default=JOB.fit_tokens, help="default: 1e6")
    parser.add_argument("--overlap", type=float, default=JOB.overlap, help="default: 0.15")
    args = parser.parse_args(arguments)
    job = replace(JOB, shape=args.shape, tokens=int(args.tokens), fit_tokens=int(args.fit_tokens), overlap=args.overlap)
    sections = json.loads(args.rates.read_text(encoding="utf-8"))["sections"] if args.rates else {}
    rates = sections.get(f"rates-{args.shape.removeprefix('pythia-')}", {}).get("rows", {})
    commands = sections.get("commands", {}).get("rows", {}) if args.shape == JOB.shape else {}
    found = hours_of(job, from_floor(job), rates, commands)
    print(json.dumps(found, indent=2))
    print(table(found), file=sys.stderr)


if __name__ == "__main__":
    main()
