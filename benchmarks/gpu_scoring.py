"""Sections of `gpu.py` on scoring: is it right on this device, how fast, and does it take the memory that was planned.

Shapes: B windows, T positions.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from attribution_case import DIFFERENCE, JVP, POSITION, STEP, Shape, agreement, make_scorer
from attribution_flops import flops_per_token, multiplied
from gpu_case import (
    HIGHEST,
    TF32,
    Case,
    Rows,
    batch_of,
    compared,
    drawn_direction,
    fitting_windows,
    planned_bytes,
    random_model,
    weights_in,
    write_corpus,
)  # fmt: skip

from ifguide.influence.options import Method
from ifguide.influence.passes.step_search import GATE, search_step
from ifguide.models.tracked import ScoredModel

# (way, dtype, how fp32 matrices are multiplied), by worth
WAYS = (
    (JVP, "bfloat16", HIGHEST),
    (JVP, "float32", TF32),
    (DIFFERENCE, "float32", TF32),
    (DIFFERENCE, "float32", HIGHEST),
    (JVP, "float32", HIGHEST),
    (POSITION, "bfloat16", HIGHEST),
    (POSITION, "float32", TF32),
)
# position in fp32 is as slow as the right answer is sure: it is compared, not timed
_COMPARED = (*WAYS, (POSITION, "float32", HIGHEST))
_METHODS = {
    JVP: Method(method="jvp"),
    DIFFERENCE: Method(method="difference", step=STEP),
    POSITION: Method(attribution="position"),
}
# windows of a timed batch; a position keeps what a backward pass needs
_WINDOWS = {JVP: 8, DIFFERENCE: 8, POSITION: 2}
_BILLION = 1e9
# what fp32 on another device must reach: the order of sums is all that may differ
_SAME = 0.999999
_NAMES = {("float32", HIGHEST): "fp32", ("float32", TF32): "TF32", ("bfloat16", HIGHEST): "bf16"}


def correctness(case: Case, rows: Rows) -> None:
    """Every way on the device against the same way on the CPU in fp32, on the same weights, tokens and direction."""
    shape = case.shape("base")
    reference = random_model(case, shape, device="cpu")
    directions = [drawn_direction(reference)]
    batch = batch_of(shape, 2, "cpu")
    scored = batch.labelled
    exact = {way: make_scorer(way, reference, directions, 0).scores(batch)[0][scored] for way in (JVP, POSITION)}
    exact[DIFFERENCE] = exact[JVP]
    for way, dtype, products in _COMPARED:
        model = _copied(reference, case.device, dtype)
        moved = [{name: matrix.to(model.device) for name, matrix in directions[0].items()}]
        on_device = batch.to(model.device)
        with multiplied(products):
            search: dict[str, Any] = {}
            step = STEP
            if way == DIFFERENCE:
                found = search_step(model, moved, [on_device])
                search = {"step": found.step, "passes_the_gate": found.step is not None}
                step = found.step or max(found.table, key=lambda row: row["correlation"][0])["step"]
            scores = make_scorer(way, model, moved, 0, step).scores(on_device)[0][on_device.labelled]
        same = agreement(scores, exact[way])
        least = _SAME if way != DIFFERENCE else GATE[0]
        passed = same["correlation"] >= least if (dtype, products) == ("float32", HIGHEST) else None
        rows.put(f"{way}, {_NAMES[dtype, products]}", {**same, **search, "passed": passed})


def rates(name: str) -> Callable[[Case, Rows], None]:
    """The section that times all ways on this shape."""

    def section(case: Case, rows: Rows) -> None:
        shape = case.shape(name)
        peaks: dict[tuple[str, str], float] = {}
        for dtype in dict.fromkeys(dtype for _, dtype, _ in WAYS):
            model = random_model(case, shape, dtype)
            for way, _, products in (ways for ways in WAYS if ways[1] == dtype):
                key = f"{way}, {_NAMES[dtype, products]}"
                if case.left < 5:
                    rows.put(key, {"left_out": "the section's time was over"})
                    continue
                if (dtype, products) not in peaks:
                    peaks[dtype, products] = case.matmul_rate(dtype, products)
                try:
                    with multiplied(products):
                        found = _rate(case, shape, model, way)
                except torch.OutOfMemoryError:
                    rows.put(key, {"left_out": "does not fit the memory with one window"})
                    continue
                flops = flops_per_token(shape, 0)[way]
                share = flops * found["tokens_per_second"] / peaks[dtype, products]
                rows.put(
                    key,
                    {
                        **found,
                        "gflop_per_token": round(flops / 1e9, 4),
                        "matmul_tflops": round(peaks[dtype, products] / 1e12, 3),
                        "share_of_matmul": round(share, 3),
                        **compared(found["peak_bytes"], _planned(case, shape, way, dtype, found["windows"])),
                    },
                )
            del model  # before the next one is made

    return section


def commands(case: Case, rows: Rows) -> None:
    """`fit-factors` on two samples and `score`, from files to files: what stages take over their passes."""
    from ifguide.influence.behaviours import QueryFiles
    from ifguide.influence.curvature.job import fit_factors
    from ifguide.influence.job import Inputs
    from ifguide.influence.options import FitOptions, Options
    from ifguide.influence.score import score

    shape, folder = case.shape("pythia-160m"), case.model_folder("pythia-160m")
    windows = 16 if case.tiny else 512
    prefix = write_corpus(case.folder / f"corpus-{shape.hidden}", shape, windows)
    samples = [windows // 16 * shape.window, windows // 8 * shape.window]
    factors = case.folder / "factors"
    for strategy in ("diagonal", "ekfac"):
        for sample in samples:
            if case.left < 15 and not case.tiny:
                rows.put(f"fit-factors, {strategy}, {sample} tokens", {"left_out": "the section's time was over"})
                continue
            record = fit_factors(
                folder, prefix, factors, FitOptions(strategy=strategy, max_tokens=sample, batch_size=8), quiet=True
            )
            rows.put(
                f"fit-factors, {strategy}, {sample} tokens", {"tokens": record["tokens"], "seconds": record["seconds"]}
            )
    queries = QueryFiles(*(_queries(case, kind) for kind in ("toxic", "safe")))
    options = Options(method=Method(method="jvp", dtype="bfloat16"), batch_size=8)
    result = score(Inputs(folder, prefix, factors, [queries], case.folder / "scores"), options, quiet=True)
    rows.put("score, jvp, bf16", {key: result[key] for key in ("tokens", "seconds", "tokens_per_second")})


def _rate(case: Case, shape: Shape, model: ScoredModel, way: str) -> dict[str, Any]:
    """Tokens/s and peak of batches of full windows along one direction."""
    # nobody else holds the direction: the peak shall be the pass's own
    scorer = make_scorer(way, model, [drawn_direction(model)], 0)

    def make(windows: int) -> Callable[[], object]:
        batch = batch_of(shape, windows, model.device)
        return lambda: scorer.scores(batch)

    windows, work = fitting_windows(make, 1 if case.tiny else _WINDOWS[way])
    seconds = case.seconds_of(work)
    tokens_per_second = windows * shape.window / seconds
    return {
        "windows": windows,
        "tokens_per_second": round(tokens_per_second, 1),
        "hours_for_a_billion_tokens": round(_BILLION / tokens_per_second / 3600, 3),
        "peak_bytes": case.peak_of(work),
    }


def _planned(case: Case, shape: Shape, way: str, dtype: str, windows: int) -> int:
    return planned_bytes(case, shape, "score", "scoring pass", windows, replace(_METHODS[way], dtype=dtype))


def _copied(model: ScoredModel, device: str, dtype: str) -> ScoredModel:
    """``model`` on another device, in another precision."""
    from ifguide.models.tracked import tracked_layers

    moved = weights_in(copy.deepcopy(model.model).to(device), dtype)
    return replace(model, model=moved, tracked=tracked_layers(moved))


def _queries(case: Case, kind: str) -> str:
    path = case.folder / f"{kind}.jsonl"
    lines = [{"prompt": f"the {kind} {number}", "completion": f" of the mask {number * 7}"} for number in range(64)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)
