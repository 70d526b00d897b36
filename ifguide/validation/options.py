"""What is asked of validate-scores. Nothing here needs torch, so that a parser can be filled without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ifguide.config.options import option
from ifguide.errors import ConfigError

LDS, TAIL_PATCH, TOPK = METHODS = ("lds", "tail-patch", "topk")
_SUBSETS = {LDS: 32, TAIL_PATCH: 64}
_FRACTION = {LDS: 0.01, TAIL_PATCH: 0.001}
_FEWEST = 4  # of fewer subsets every order is likely
_LDS_AND_TAIL = "lds and tail-patch"


@dataclass(frozen=True, kw_only=True)
class ValidateScores:
    """The options of ``ifguide validate-scores``."""

    scores: str = option(metavar="S", kind="input", help="scores of the run's data, as `ifguide score` wrote them")
    method: str = option(
        choices=METHODS,
        help="lds: retrain without random subsets; tail-patch: one more step on random sets; topk: retrain without the "
        "highest-ranked tokens",
    )  # fmt: skip
    run: str = option(
        metavar="DIR", kind="input",
        help="folder that the training run saved into (its key save): run.json, hf and, for tail-patch, its checkpoint",
    )  # fmt: skip
    toxic_queries: str = option(metavar="FILE", kind="input", help='of the margin; JSONL: {"prompt", "completion"}')
    safe_queries: str = option(metavar="FILE", kind="input", help="of the margin; JSONL, as the toxic ones")
    output: str = option(
        metavar="DIR", kind="output", help="folder for results.json, report.html and what every retraining gave"
    )
    against: Sequence[str] = option(
        (), metavar="NAME=S", nargs=1, action="extend",
        help="further scores of the same data, judged on the same models; once for each: a classifier's, word hits, "
        "those of another proxy (score, score-text)",
    )  # fmt: skip
    mask: Sequence[str] = option(
        (), metavar="NAME=M", nargs=1, action="extend", help="topk: a mask whose tokens are left out; once for each"
    )
    subsets: int | None = option(
        None, metavar="K", help=f"{_LDS_AND_TAIL}: number of subsets (default: 32 for lds, 64 for tail-patch)"
    )
    fraction: float | None = option(
        None, metavar="F",
        help=f"{_LDS_AND_TAIL}: share of the training tokens in a subset (default: 0.01 for lds, 0.001 for tail-patch)",
    )  # fmt: skip
    unit: str = option("span", metavar="WHAT", help=f"{_LDS_AND_TAIL}: draw spans of tokens (default) or documents")
    span_tokens: int = option(8, metavar="N", help=f"{_LDS_AND_TAIL}: tokens of a span (default: 8)")
    shares: Sequence[float] = option(
        (0.005, 0.01, 0.02, 0.04), metavar="F", help="topk: shares of the training tokens to leave out (default: "
        "0.005 0.01 0.02 0.04)",
    )  # fmt: skip
    learning_rate: float | None = option(
        None, metavar="R", help="tail-patch: of the step (default: of the run's last iteration)"
    )
    training_seeds: Sequence[int] | None = option(
        None, metavar="SEED",
        help="lds and topk: seeds to train with (default: the run's own); two or more also give the ceiling",
    )  # fmt: skip
    seed: int = option(0, help="of subsets, random scores, ties and bootstrap (default: 0)")
    resamples: int = option(10_000, metavar="N", help="bootstrap resamples (default: 10000)")
    threads: int = option(1, metavar="N", help="CPU threads of a training; part of its result (default: 1)")
    jobs: int | None = option(
        None, metavar="N", kind="cost", help="trainings at the same time (default: cores / threads; 1 with a GPU)"
    )
    device: str = option("auto", metavar="NAME", kind="cost", help="that margins are measured on (default: auto)")
    keep_models: bool = option(False, kind="cost", help="keep the trained models in DIR/models")
    dry_run: bool = option(False, kind="cost", help="print what would be trained and about how long; write nothing")

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: values that cannot be meant, or options of another method; one line each.
        """
        if faults := [*self._ranges(), *self._strangers()]:
            raise ConfigError(faults)

    @property
    def num_subsets(self) -> int:
        return self.subsets if self.subsets is not None else _SUBSETS.get(self.method, 0)

    @property
    def subset_fraction(self) -> float:
        return self.fraction if self.fraction is not None else _FRACTION.get(self.method, 0.0)

    def _ranges(self) -> list[str]:
        faults = []
        if self.subsets is not None and self.subsets < _FEWEST:
            faults.append(f"--subsets {self.subsets}: give at least {_FEWEST}, and 32 to see anything")
        for flag, value in (("--threads", self.threads), ("--jobs", self.jobs)):
            if value is not None and value < 1:
                faults.append(f"{flag} {value}: must be at least 1")
        if self.resamples < 100:
            faults.append(f"--resamples {self.resamples} are too few for a 95 % interval; give at least 100")
        faults += [f"--shares {share:g}: must lie between 0 and 1" for share in self.shares if not 0 < share < 1]
        if list(self.shares) != sorted(set(self.shares)):
            faults.append("--shares: give each once, the smallest first")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            faults.append(f"--learning-rate {self.learning_rate:g}: must lie between 0 and 1")
        seeds = self.training_seeds or ()
        if len(set(seeds)) < len(seeds):
            faults.append("--training-seeds: give each once")
        faults += [f"--training-seeds {seed}: must not be negative" for seed in seeds if seed < 0]
        if self.seed < 0:
            faults.append(f"--seed {self.seed}: must not be negative")
        return faults

    def _strangers(self) -> list[str]:
        """Options that this method does not have."""
        belong = (
            ("--subsets", self.subsets is not None, (LDS, TAIL_PATCH)),
            ("--fraction", self.fraction is not None, (LDS, TAIL_PATCH)),
            ("--mask", bool(self.mask), (TOPK,)),
            ("--learning-rate", self.learning_rate is not None, (TAIL_PATCH,)),
            ("--training-seeds", self.training_seeds is not None, (LDS, TOPK)),
        )
        return [
            f"{flag} belongs to --method {' and '.join(methods)}; leave it out"
            for flag, given, methods in belong
            if given and self.method not in methods
        ]
