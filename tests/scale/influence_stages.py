"""Influence on the pretended GPU: the passes, the dry run, the direction, fit-factors, score in all its ways, plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.data.indexed import TokenDataset
from ifguide.influence.batches import group_by_length
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.curvature.job import fit_factors
from ifguide.influence.curvature.stability import Stability
from ifguide.influence.curvature.store import load_factors
from ifguide.influence.direction import Direction, compute_directions
from ifguide.influence.job import Inputs
from ifguide.influence.options import Damping, FitOptions, Method, Options
from ifguide.influence.passes import checks
from ifguide.influence.passes.low_rank import truncate
from ifguide.influence.passes.method import DTYPES, AnyDirection, make_pass
from ifguide.influence.planning.plan import plan
from ifguide.influence.planning.settings import Settings
from ifguide.influence.queries import Query, make_query
from ifguide.influence.score import score
from ifguide.influence.windows import Windows, cut
from ifguide.models.tracked import ScoredModel, load_model
from tests.influence.conftest import EOD, LENGTHS, WINDOW, save_tiny_model, write_queries
from tests.scale.stage import Stage
from tests.support.datasets import random_documents, write_tokens

ARCHITECTURES = ("neox", "llama", "gpt2")
BATCH_TOKENS = 64
TOXIC = [{"prompt": "you", "completion": " bad"}, {"prompt": "a", "completion": " vile", "weight": 2.5}]
SAFE = [{"prompt": "you", "completion": " dear"}, {"prompt": "hello", "completion": " all"}]


def stages(root: Path) -> list[Stage]:
    folders = {name: save_tiny_model(root / name, name) for name in ARCHITECTURES}
    dataset = write_tokens(root / "d_text_document", random_documents(LENGTHS))
    windows = cut(dataset, EOD, WINDOW, 4)
    return [
        *_passes(folders, windows),
        *_spread(root, dataset),
        *_directions(root, folders["neox"], windows),
        *_verbs(root, folders["neox"], dataset),
    ]


def _passes(folders: dict[str, Path], windows: Windows) -> list[Stage]:
    groups = group_by_length(windows.lengths, BATCH_TOKENS)

    def stage(name: str, method: Method, k: int, architecture: str = "neox") -> Stage:
        def make(device: str) -> Callable[[], Tensor]:
            model = load_model(folders[architecture], DTYPES[method.dtype], device=device)
            scoring = make_pass(model, _random_directions(model, k, method.rank), method)

            def work() -> Tensor:
                found = []
                for group in groups:
                    batch = windows.batch(group).to(model.device)
                    scores = scoring.scores(batch)[:, batch.labelled]
                    assert scores.device.type == device
                    found.append(scores.to("cpu"))
                return torch.cat(found, dim=1)

            return work

        planned = partial(_planned, folders[architecture], windows, "scoring pass", method=method, directions=k)
        return Stage(name, make, len(groups), planned)

    jvp, position = Method(method="jvp"), Method(attribution="position")
    difference = Method(method="difference", step=1e-3)
    found = []
    for name in folders:
        found.append(stage(f"jvp, {name}", jvp, 1, name))
        found.append(stage(f"difference, {name}", difference, 2, name))
        found.append(stage(f"position, {name}", position, 2, name))
    return [
        *found,
        stage("jvp, two directions", jvp, 2),
        stage("jvp, low rank", Method(method="jvp", rank=3), 1),
        stage("jvp, bfloat16", Method(method="jvp", dtype="bfloat16"), 1),
        stage("difference, one-sided", Method(method="difference", step=1e-3, one_sided=True), 2),
        stage("position, low rank", Method(attribution="position", rank=3), 2),
    ]


def _spread(root: Path, dataset: TokenDataset) -> list[Stage]:
    """The same over two GPUs, with a block on each."""
    folder = save_tiny_model(root / "wide", "neox", hidden=128)
    queries = QueryFiles(write_queries(root / "t.jsonl", TOXIC), write_queries(root / "s.jsonl", SAFE))
    windows = cut(dataset, EOD, WINDOW, 4)
    groups = group_by_length(windows.lengths, BATCH_TOKENS)

    def stage(name: str, method: Method, k: int) -> Stage:
        def make(device: str) -> Callable[[], Tensor]:
            model = load_model(folder, DTYPES[method.dtype], device=device, device_map=_device_map(device))
            scoring = make_pass(model, _random_directions(model, k, method.rank), method)

            def work() -> Tensor:
                batches = [windows.batch(group).to(model.device) for group in groups]
                return torch.cat([scoring.scores(batch)[:, batch.labelled].to("cpu") for batch in batches], dim=1)

            return work

        return Stage(f"two GPUs, {name}", make, len(groups))

    def run(device: str, name: str, method: Method) -> Tensor:
        output = root / f"spread-{name}-{device}"
        options = Options(method, batch_size=BATCH_TOKENS // WINDOW, device_map=_device_map(device))
        score(Inputs(folder, dataset.prefix, factors(), [queries], output), options, quiet=True)
        return torch.from_numpy(np.fromfile(f"{output}.bin", np.float32))

    def scores(name: str, method: Method) -> Stage:
        make = lambda device: factors() and partial(run, device, name, method)  # noqa: E731
        return Stage(f"two GPUs, {name}", make, len(groups))

    factors = cache(lambda: _fit(root / "wide-factors", folder, dataset.prefix, strategy="diagonal"))
    return [
        stage("jvp", Method(method="jvp"), 1),
        stage("jvp of two directions", Method(method="jvp"), 2),
        stage("jvp of low rank", Method(method="jvp", rank=3), 1),
        stage("difference", Method(method="difference", step=1e-3), 2),
        scores("score", Method(method="auto")),
        scores("score in bfloat16", Method(method="jvp", dtype="bfloat16")),
    ]


def _device_map(device: str) -> str | None:
    return "balanced" if device == "cuda" else None


def _directions(root: Path, folder: Path, windows: Windows) -> list[Stage]:
    toxic = [make_query([3, 4, 5], [6, 7], EOD), make_query([9], [10, 11, 12], EOD)]
    safe: list[Query] = [make_query([3, 4], [20, 21], EOD)]
    factors = cache(lambda: load_factors(_fit(root / "direction-factors", folder, windows.dataset.prefix)))

    def direction(device: str) -> Callable[[], Tensor]:
        model = load_model(folder, device=device)
        known = factors()

        def work() -> Tensor:
            (found,) = compute_directions(model, known, [(toxic, safe)], Damping(), BATCH_TOKENS)
            return torch.cat([matrix.to("cpu").flatten() for matrix in found.values()])

        return work

    def dry_run(device: str) -> Callable[[], Tensor]:
        model = load_model(folder, device=device)

        def work() -> Tensor:
            batch = checks.largest_batch(windows, BATCH_TOKENS)
            checks.check_model_on(model, batch)
            checks.check_model_on(model, batch, backward=True)
            model.check_architecture(batch.to(model.device).inputs[:1])
            return torch.ones(1)

        return work

    tokens = max(len(query.inputs) for query in toxic)
    planned = partial(_planned, folder, windows, "direction", query_tokens=len(toxic) * tokens)
    return [Stage("direction", direction, 2, planned), Stage("dry run", dry_run, 3)]


def _verbs(root: Path, folder: Path, dataset: TokenDataset) -> list[Stage]:
    toxic, safe = write_queries(root / "toxic.jsonl", TOXIC), write_queries(root / "safe.jsonl", SAFE)
    queries = QueryFiles(toxic, safe)
    factors = cache(lambda: _fit(root / "factors", folder, dataset.prefix))
    windows = cut(dataset, EOD, WINDOW, WINDOW // 4)
    batches = len(group_by_length(windows.lengths, BATCH_TOKENS))

    # wide enough that what a plan leaves out, such as biases and norms, does not weigh
    wide = save_tiny_model(root / "wide-fit", "neox", hidden=128)

    def fit(device: str, strategy: str, stability: Stability | None = None) -> Tensor:
        output = root / f"fit-{strategy}-{device}"
        options = FitOptions(strategy=strategy, batch_size=BATCH_TOKENS // WINDOW)
        fit_factors(wide, dataset.prefix, output, options, stability, quiet=True)
        layers = load_factors(output).layers
        return torch.cat([layer["Lambda"].flatten() for layer in layers.values()])

    def run(device: str, known: Path, name: str, method: Method) -> Tensor:
        output = root / f"{name}-{device}"
        options = Options(method=method, batch_size=BATCH_TOKENS // WINDOW)
        score(Inputs(folder, dataset.prefix, known, [queries], output), options, quiet=True)
        return torch.from_numpy(np.fromfile(f"{output}.bin", np.float32))

    def timed(device: str) -> Tensor:
        settings = Settings(device=device, batch_size=BATCH_TOKENS // WINDOW)
        return torch.tensor([float(plan(folder, dataset.prefix, settings, timing=True)["data"]["tokens"])])

    def fitting(strategy: str, phase: str) -> Stage:
        planned = partial(_planned, wide, windows, phase, job="fit-factors", strategy=strategy)
        make = lambda device: partial(fit, device, strategy)  # noqa: E731
        return Stage(f"fit-factors, {strategy}", make, 2 * batches, planned)

    def scores(name: str, **method: Any) -> Stage:
        return Stage(f"score, {name}", lambda device: partial(run, device, factors(), name, Method(**method)), batches)

    stability = Stability(toxic, safe)
    return [
        fitting("ekfac", "second moments"),
        fitting("kfac", "covariances"),
        fitting("diagonal", "second moments"),
        Stage("fit-factors, stability", lambda device: partial(fit, device, "diagonal", stability), 4 * batches),
        scores("auto"),
        scores("jvp", method="jvp"),
        scores("jvp-bfloat16", method="jvp", dtype="bfloat16"),
        scores("jvp-rank", method="jvp", rank=4),
        scores("position", attribution="position"),
        Stage("plan with a timed batch", lambda device: partial(timed, device)),
    ]


def _fit(output: Path, folder: Path, prefix: str | Path, strategy: str = "ekfac") -> Path:
    """Factors, once."""
    if not output.exists():
        fit_factors(folder, prefix, output, FitOptions(strategy=strategy), quiet=True)
    return output


def _random_directions(model: ScoredModel, k: int, rank: int | None) -> Sequence[AnyDirection]:
    draw = torch.Generator().manual_seed(1)
    whole: list[Direction] = [
        {name: torch.randn(model.matrix_shape(name), generator=draw) for name in model.tracked} for _ in range(k)
    ]
    return whole if rank is None else [truncate(direction, rank)[0] for direction in whole]


def _planned(folder: Path, windows: Windows, phase: str, job: str = "score", **settings: Any) -> int:
    """Bytes of a phase on the device as `ifguide plan` says them, without the CUDA context: torch does not count it."""
    wanted = Settings(
        device="cuda", device_memory=80, seq_length=WINDOW, context=4, batch_size=BATCH_TOKENS // WINDOW, **settings
    )
    rows = plan(folder, windows.dataset.prefix, wanted, (job,))["memory"]
    (row,) = [row for row in rows if row["phase"].startswith(phase)]
    return row["device_bytes"] - row["device"].get("CUDA context", 0)
