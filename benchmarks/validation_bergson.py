"""bergson's scores of every loss term: its EK-FAC and its conjugate gradients, on the model, data and queries of ours.

    python benchmarks/validation_bergson.py --model HF --data P --toxic-queries A --safe-queries B --output DIR

It fits its own curvature on its own passes, inverts it with its own damping (0.1 of the mean, which is ours too), and
scores with its own forward mode (``token_influence="output"``). Given to it are the windows that `ifguide score` cuts
and the gradient of the queries, of which there is one definition. Its bias columns are on, as ours are. It writes
``DIR/ekfac`` and ``DIR/cg``, aligned scores that every verb reads, and prints seconds as JSON.

Shapes: W windows, T positions, O outputs, I inputs with the bias column.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WAYS = ("ekfac", "cg")
_SCORED_AT_ONCE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="HF")
    parser.add_argument("--data", required=True, metavar="P")
    parser.add_argument("--toxic-queries", required=True, metavar="FILE")
    parser.add_argument("--safe-queries", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--factor-tokens", type=int, default=40_000, help="sample of the curvature (default: 40000)")
    parser.add_argument("--damping", type=float, default=0.1, help="of the mean eigenvalue (default: 0.1)")
    parser.add_argument("--cg-steps", type=int, default=32)
    parser.add_argument("--cg-windows", type=int, default=64, help="windows of its Gauss-Newton products")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # it asks the hub whether a local folder is an adapter
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it does
        found = score(args)
    print(json.dumps(found))


def score(args: argparse.Namespace) -> dict[str, Any]:
    """Write the scores of each way; returns versions, seconds and the agreement of its gradients with ours."""
    import importlib.metadata

    import torch

    from ifguide.data.indexed import TokenDataset
    from ifguide.influence.direction import mean_gradient
    from ifguide.influence.queries import load_query_sets
    from ifguide.influence.windows import cut, default_context, sample
    from ifguide.models.tracked import load_model

    tokens = TokenDataset.open(args.data)
    model = load_model(args.model, implementation="eager", device="cpu", data=args.data)
    # its sequences are inputs and labels in one, so they are longer by one than the inputs that the model sees
    length = (model.window or 2048) - 1
    windows = cut(tokens, model.eod, length, default_context(length))
    toxic, safe = load_query_sets(args.toxic_queries, args.safe_queries, model.reader, model.window)  # type: ignore[arg-type]
    g_toxic, g_safe = (mean_gradient(model, queries, _SCORED_AT_ONCE) for queries in (toxic, safe))
    inner = {name: name.removeprefix(f"{model.model.base_model_prefix}.") for name in model.tracked}
    query = {inner[name]: (g_toxic[name] - g_safe[name]).flatten() for name in model.tracked}
    found: dict[str, Any] = {"version": importlib.metadata.version("bergson"), "seconds": {}}
    solver = Solver(args, sample(windows, args.factor_tokens, args.seed))
    for way in args.ways:
        started = time.monotonic()
        direction = solver.ekfac(query) if way == "ekfac" else solver.cg(query)
        found["seconds"][f"{way} direction"] = round(time.monotonic() - started, 1)
        started = time.monotonic()
        with torch.no_grad():
            write_scores(args.output / way, model, windows, direction, args.output)
        found["seconds"][f"{way} scores"] = round(time.monotonic() - started, 1)
    return found


class Solver:
    """bergson's curvature of a sample of windows, and what it makes of a query's gradient."""

    def __init__(self, args: argparse.Namespace, windows: Any):
        from bergson.config import InversionConfig
        from bergson.config.config import DataConfig, DistributedConfig, HessianConfig, IndexConfig
        from bergson.hessians.hessian_approximations import approximate_hessians

        rows = list(map(_row, map(windows._sequence, range(len(windows)))))
        longest = max(len(row["input_ids"]) for row in rows)
        self._args, folder = args, args.output / "work"
        _save(rows, folder / "windows")
        self._config = IndexConfig(
            run_path=str(folder / "hessian"),
            model=args.model,
            data=DataConfig(dataset=str(folder / "windows")),
            include_bias=True,
            token_batch_size=longest,
            precision="fp32",
            distributed=DistributedConfig(nproc_per_node=1),
            overwrite=True,
        )
        self._inversion = InversionConfig(inversion="damped_inverse", damping_factor=args.damping)
        _remove(folder / "hessian"), _remove(folder / "hessian.part")
        started = time.monotonic()
        approximate_hessians(self._config, HessianConfig(method="kfac", ev_correction=True))
        print(f"curvature of {len(rows)} windows in {time.monotonic() - started:.1f} s")

    def ekfac(self, query: dict[str, Any]) -> dict[str, Any]:
        """name -> H~^-1 g, flat."""
        from bergson.hessians.preconditioner import FactoredPreconditioner

        inverse = FactoredPreconditioner.from_path(
            self._config.run_path, inversion_cfg=self._inversion, ev_correction=True
        )
        if missing := query.keys() ^ inverse.lambdas.keys():
            raise SystemExit(f"bergson tracks other layers: {', '.join(sorted(missing))}")
        return {name: row[0].flatten() for name, row in inverse.apply(_rows(query)).items()}

    def cg(self, query: dict[str, Any]) -> dict[str, Any]:
        """Refined from there by preconditioned conjugate gradients on Gauss-Newton products."""
        from bergson.config import AstraConfig
        from bergson.hessians.astra import Astra, AstraPaths

        folder = self._config.run_path
        settings = AstraConfig(
            num_steps=self._args.cg_steps, solver="cg", batch_size=self._args.cg_windows, micro_batch_size=4,
            seed=self._args.seed,
        )  # fmt: skip
        paths = AstraPaths(query_path=folder, init_path=folder, hessian_path=folder, run_path=folder)
        astra = Astra(paths, self._config, self._inversion, settings, True, "cpu")
        start = self.ekfac(query)
        return astra.refine(dict(query), {name: vector.clone() for name, vector in start.items()}, 0)


def write_scores(prefix: Path, model: Any, windows: Any, direction: dict[str, Any], folder: Path) -> None:
    """bergson's forward-mode rate of every label along ``direction``, as an aligned score set."""
    import numpy as np
    import torch
    from bergson.config.config import IndexConfig
    from bergson.score.output_influence import output_token_influence, query_directions

    from ifguide.data.aligned import write_aligned
    from ifguide.influence.batches import group_by_length
    from ifguide.system.progress import Progress

    inner = {name: name.removeprefix(f"{model.model.base_model_prefix}.") for name in model.tracked}
    target = {
        inner[name]: (model.device, torch.Size(model.matrix_shape(name)), layer.bias is not None)
        for name, layer in model.tracked.items()
    }
    directions = query_directions(model.model, {name: row.reshape(-1, 1) for name, row in direction.items()}, target)
    config = IndexConfig(run_path=str(folder / "bergson"))
    tokens = windows.dataset
    scores = np.zeros(tokens.num_tokens, np.float32)
    with Progress(tokens.num_tokens, "tokens", f"bergson {prefix.name}") as progress:
        for group in group_by_length(windows.lengths, _SCORED_AT_ONCE):
            batch = windows.batch(group)
            ends = batch.real.sum(dim=1)
            # one position more, whose input is the last label: y at t is the token at t of x
            x = torch.cat([batch.inputs, torch.zeros_like(batch.inputs[:, :1])], dim=1)
            y = torch.cat([torch.full_like(batch.labels[:, :1], -100), batch.labels], dim=1)
            rows = torch.arange(len(x))
            x[rows, ends] = batch.labels[rows, ends - 1].clamp(min=0)
            found = output_token_influence(model.model, x, y, directions, config)[0][..., 0]
            scores[windows.places(group)] = found[batch.labelled].numpy()
            progress.update(int(windows.scored[group].sum()))
    write_aligned(prefix, tokens, scores, np.float32, {"parameters": {"method": f"bergson {prefix.name}"}})


def _row(sequence: tuple[Any, Any]) -> dict[str, Any]:
    """A window as its data has it: tokens, and the labels that count."""
    inputs, labels = (part.tolist() for part in sequence)
    last = labels[-1]
    return {"input_ids": [*inputs, last], "labels": [-100, *labels], "length": len(inputs) + 1}


def _rows(query: dict[str, Any]) -> dict[str, Any]:
    return {name: vector[None] for name, vector in query.items()}


def _save(rows: list[dict[str, Any]], folder: Path) -> None:
    from datasets import Dataset

    _remove(folder)
    Dataset.from_list(rows).save_to_disk(str(folder))


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
