"""Seconds of a cascade against the full difference pass on a finished quickstart, and how far their masks overlap.

    OMP_NUM_THREADS=1 python benchmarks/cascade.py RUN --workdir DIR [--repeats 3] [--output FILE]

Trains a proxy of one layer of 32 on the quickstart's data and fits its factors, in DIR (timed, kept, and found there by
a second call; a user does it once for a corpus). Then full pass and cascade take turns in one process. A cascade's time
holds everything that it does for one set of queries: the proxy's direction, the fit of its head, the cheap pass, the
choice, the exact pass over what was chosen and audited, the combination and the report. Models, the exact model's
direction and its step are there before, as for the full pass. The overlap is that of the masks that `build-mask` makes
with its defaults, over several seeds of the audit. About five minutes on one core that nobody else uses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import REPOSITORY, markdown_table, report, time_alternating
from generation import ProcessorTime

from ifguide.influence.cascade.choice import calibrate, choose, combine
from ifguide.influence.cascade.report import report as cascade_report
from ifguide.influence.options import CascadeSettings, FitOptions
from ifguide.selection import ScoredCorpus, SelectionSettings, Source, paint_windows, select

PROXY = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 1}
_DATA = "data/corpus_text_document"
_BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished `ifguide quickstart`")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the proxy goes here")
    parser.add_argument("--keep", type=float, default=CascadeSettings.keep)
    parser.add_argument("--audit", type=float, default=CascadeSettings.audit)
    parser.add_argument("--seeds", type=int, default=20, help="audits for the overlap")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", metavar="FILE")
    args = parser.parse_args()

    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    settings = CascadeSettings(args.keep, args.audit)
    preparation = make_proxy(args.run, args.workdir)
    case = Case(args.run, args.workdir)
    works = {"full": case.full, "cascade": lambda: case.cascade(settings)}
    processor = ProcessorTime()
    timings = time_alternating({name: processor.of(name, work) for name, work in works.items()}, args.repeats)
    stages = {name: round(float(np.median(times[1:])), 3) for name, times in case.stages.items()}
    masks = case.overlaps(settings, args.seeds)
    ratio = timings["full"].median / timings["cascade"].median

    lines = [(name, f"{timing.median:.2f}") for name, timing in timings.items()]
    lines += [(f"- {name}", f"{seconds:.2f}") for name, seconds in stages.items()]
    print(markdown_table(["", "seconds (parts: of the processor)"], lines), file=sys.stderr)
    overlaps = masks["jaccard"]
    print(
        f"{ratio:.2f} times as fast; overlap {overlaps['median']:.3f} (lowest {overlaps['min']:.3f})", file=sys.stderr
    )
    report(
        "cascade",
        {
            "run": args.run.name,
            "proxy": {**PROXY, **preparation, "head_explained": case.head_explained},
            "tokens": case.dataset.num_tokens,
            "step": case.step,
            "timings": {name: timing.as_dict() for name, timing in timings.items()},
            "stages_processor_seconds": stages,
            "times_as_fast": round(ratio, 2),
            "times_as_fast_by_processor_time": processor.times_the_best_other("cascade"),
            "goals": {"times_as_fast": 3.0, "jaccard": 0.9},
            "masks": masks,
            "report": case.report,
        },
        args.output,
    )


def make_proxy(run: Path, folder: Path) -> dict[str, float]:
    """Train the proxy in ``folder`` and fit its factors, unless they are there; returns the seconds that it took."""
    from ifguide.config.yaml_files import merge_files
    from ifguide.experiments.training import train, write_overlay
    from ifguide.influence.curvature.job import fit_factors

    seconds = {}
    if not (folder / "model/latest").exists():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for suffix in ("bin", "idx", "json"):
            link = folder / f"{_DATA}.{suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to((run / f"{_DATA}.{suffix}").resolve())
        shape, _ = merge_files([REPOSITORY / "configs/quickstart/model.yml"])
        base, _ = merge_files([run / "configs/base.yml"])
        keys = {**shape, **PROXY, **base, "data_path": str((folder / _DATA).resolve()), "save": str(folder / "model")}
        keys["vocab_file"] = str((run / "data/tokenizer.json").resolve())
        started = time.monotonic()
        write_overlay(folder / "proxy.yml", "The quickstart's model, smaller", keys)
        train([(folder / "proxy.yml").resolve()], folder / "train.log", "proxy", 1, lambda line: None)
        seconds["training_seconds"] = round(time.monotonic() - started, 1)
    if not (folder / "factors/factors.json").exists():
        fitted = fit_factors(
            folder / "model/hf",
            run / _DATA,
            folder / "factors",
            FitOptions(max_tokens=40_000),
            quiet=True,
        )
        seconds["factor_seconds"] = round(fitted["seconds"], 1)
    return seconds


class Case:
    """One quickstart run, ready to be scored either way.

    Attributes:
        stages: processor seconds of each part of every cascade.
        report: of the last cascade.
    """

    def __init__(self, run: Path, folder: Path):
        from ifguide.data.indexed import TokenDataset
        from ifguide.influence.passes.difference import DifferencePass
        from ifguide.influence.passes.step_search import sample_batches, search_step
        from ifguide.influence.windows import cut

        self.run = run
        self.dataset = TokenDataset.open(run / _DATA)
        self.model, self.factors = _load(run / "models/base", run / "factors")
        self.proxy, self.proxy_factors = _load(folder / "model/hf", folder / "factors")
        record = self.factors.record
        self.windows = cut(self.dataset, self.model.eod, record["seq_length"], record["context"])
        self.batch_tokens = _BATCH * record["seq_length"]
        direction = self._direction(self.model, self.factors)
        search = search_step(self.model, [direction], sample_batches(self.windows, self.batch_tokens))
        self.step = search.step or 1e-3
        self.exact = DifferencePass(self.model, [direction], self.step)
        self.stages: dict[str, list[float]] = defaultdict(list)
        self.report: dict[str, Any] = {}
        self.head_explained = 0.0
        self._cheap = self._full = np.zeros(0, np.float32)

    def full(self) -> None:
        """The exact scores of everything."""
        self._full = self._score(self.exact, np.arange(len(self.windows)))

    def cascade(self, settings: CascadeSettings) -> None:
        """The same with a cascade."""
        from ifguide.influence.cascade.head import cheap_pass, fit_linear_head

        with self._timed("proxy's direction"):
            direction = self._direction(self.proxy, self.proxy_factors)
        with self._timed("head"):
            head = fit_linear_head(self.proxy, self.windows, self.batch_tokens)
            self.head_explained = round(head.explained, 3)
        with self._timed("cheap pass"):
            proxy = cheap_pass(self.proxy, [direction], head)
            self._cheap = cheap = self._score(proxy, np.arange(len(self.windows)))
        with self._timed("choice"):
            choice = choose(self._source(cheap), settings)
        with self._timed("exact pass"):
            exact = self._score(self.exact, choice.windows(self.windows))
        with self._timed("combination"):
            calibration = calibrate(cheap, exact, choice)
            final = np.concatenate(list(combine(cheap, exact, choice, calibration)))
        with self._timed("report"):
            self.report = cascade_report(self._source(final), choice, calibration, settings)

    def overlaps(self, settings: CascadeSettings, seeds: int) -> dict[str, Any]:
        """Jaccard of the cascade's mask and the exact one for several audits, beside what the report says of it."""
        expected = self._mask(self._full, settings.selection)
        overlaps, estimates, covered = [], [], 0
        for seed in range(seeds):
            drawn = replace(settings, seed=seed)
            choice = choose(self._source(self._cheap), drawn)
            # a token's exact score is the same in either pass, so the full pass's serve
            calibration = calibrate(self._cheap, self._full, choice)
            final = np.concatenate(list(combine(self._cheap, self._full, choice, calibration)))
            found = self._mask(final, settings.selection)
            overlaps.append(float((found & expected).sum() / (found | expected).sum()))
            estimate = cascade_report(self._source(final), choice, calibration, drawn)["jaccard"]
            estimates.append(estimate["estimate"])
            covered += estimate["interval"][0] <= overlaps[-1] <= estimate["interval"][1]
        return {
            "audits": seeds,
            "jaccard": {"median": float(np.median(overlaps)), "min": min(overlaps), "max": max(overlaps)},
            "estimate": {"median": float(np.median(estimates)), "min": min(estimates), "max": max(estimates)},
            "inside_the_interval": covered,
        }

    def _direction(self, model: Any, factors: Any) -> Any:
        from ifguide.influence.direction import compute_directions
        from ifguide.influence.options import Damping
        from ifguide.influence.queries import load_query_sets

        files = self.run / "toxic_queries.jsonl", self.run / "safe_queries.jsonl"
        pair = load_query_sets(*files, model.reader, model.window)
        return compute_directions(model, factors, [pair], Damping(), self.batch_tokens)[0]

    def _score(self, scorer: Any, which: np.ndarray) -> np.ndarray:
        """float32[N]: scores of these windows, 0 elsewhere."""
        from ifguide.influence.batches import group_by_length

        windows = self.windows.select(which)
        values = np.zeros(self.dataset.num_tokens, np.float32)
        for group in group_by_length(windows.lengths, self.batch_tokens):
            batch = windows.batch(group)
            values[windows.places(group)] = scorer.scores(batch)[0][batch.labelled].numpy()
        return values

    def _source(self, scores: np.ndarray) -> Source:
        return Source([ScoredCorpus(self.run.name, scores, self.dataset.starts, self.dataset.tokens, self.model.eod)])

    def _mask(self, scores: np.ndarray, settings: SelectionSettings) -> np.ndarray:
        source = self._source(scores)
        chosen = select(source, settings)
        strengths = np.ones(len(chosen.centres), np.uint8)
        return np.concatenate([paint_windows(source, span, chosen, strengths) for span in source.spans()]) > 0

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.stages[name].append(time.process_time() - started)


def _load(model: Path, factors: Path) -> tuple[Any, Any]:
    from ifguide.influence.curvature.store import load_factors
    from ifguide.models.tracked import load_model

    return load_model(model), load_factors(factors)


if __name__ == "__main__":
    main()
