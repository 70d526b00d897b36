"""The settings that decide what a run needs, and the needs as a function of them, so that others can be tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ifguide.data.indexed import TokenDataset
from ifguide.influence.curvature.store import STRATEGIES
from ifguide.influence.passes.method import Method
from ifguide.influence.planning import disk as plan_disk
from ifguide.influence.planning.memory import BatchSize, Peak, direction_peak, fitting_peaks, pass_peak
from ifguide.influence.planning.shape import Shape

JOBS = ("fit-factors", "score", "build-mask")
# a step in the middle of those that are searched: any takes the same time
_ANY_STEP = 1e-2


@dataclass(frozen=True)
class Settings:
    """The options of the jobs that decide what they need.

    Attributes:
        method: of the scoring pass.
        directions: K, how many behaviours or categories one pass scores.
        batch_size: a batch holds as many tokens as this many full windows.
        seq_length: window in tokens (None: the model's, at most 2048).
        context: overlap of a long document's windows (None: a quarter of the window).
        strategy: of the factors.
        factor_tokens: sample that they are fitted on (None: everything).
        query_tokens: of all query sets together.
        modules: regular expression on the layers to track.
        ranks: processes on this machine.
        device: "cpu" or "cuda" (None: the GPU if there is one).
        device_memory: GB, in place of what the device says.
        disk: the folder that the files go to.
        shard_tokens: as `job.Options` has it; batches are formed inside a shard.
    """

    method: Method = field(default_factory=Method)
    directions: int = 1
    batch_size: int = 16
    seq_length: int | None = None
    context: int | None = None
    strategy: str = "ekfac"
    factor_tokens: int | None = None
    query_tokens: int = 100_000
    modules: str | None = None
    ranks: int = 1
    device: str | None = None
    device_memory: float | None = None
    disk: str | Path = "."
    shard_tokens: int = 1 << 18

    def faults(self) -> list[str]:
        """What is wrong with these settings, one line each."""
        faults = self.method.faults()
        for flag, value in (
            ("--directions", self.directions),
            ("--batch-size", self.batch_size),
            ("--ranks", self.ranks),
            ("--query-tokens", self.query_tokens),
            ("--factor-tokens", self.factor_tokens),
            ("--shard-tokens", self.shard_tokens),
        ):
            if value is not None and value < 1:
                faults.append(f"{flag} {value}: must be at least 1")
        if self.strategy not in STRATEGIES:
            faults.append(f"--strategy {self.strategy}: must be one of {', '.join(STRATEGIES)}")
        if self.device not in (None, "cpu", "cuda"):
            faults.append(f"--device {self.device}: must be cpu or cuda")
        if self.device_memory is not None and not self.device_memory > 0:
            faults.append(f"--device-memory {self.device_memory}: must be a positive number of GB")
        return faults


@dataclass(frozen=True, eq=False)
class Needs:
    """What jobs need as a function of their settings, so that other settings can be tried.

    Attributes:
        longest: tokens of the longest document.
        positions: of all windows.
    """

    shape: Shape
    dataset: TokenDataset
    longest: int
    positions: int

    def memory(self, job: str, settings: Settings) -> list[Peak]:
        """The peaks of ``job``'s phases, for one process. ``seq_length`` and ``device`` must be settled."""
        assert settings.seq_length and settings.device
        columns = max(1, min(settings.seq_length, self.longest))
        rows = max(1, min(settings.batch_size * settings.seq_length, self.positions) // columns)
        batch = BatchSize(rows, columns, settings.device)
        if job == "fit-factors":
            return fitting_peaks(self.shape, settings.strategy, batch)
        if job == "score":
            making = direction_peak(self.shape, settings.directions, settings.strategy, batch, settings.query_tokens)
            methods = candidates(settings.method)
            return [making, *(pass_peak(self.shape, method, settings.directions, batch) for method in methods)]
        return []

    def disk(self, job: str, settings: Settings) -> list[plan_disk.File]:
        """The files that ``job`` writes."""
        if job == "fit-factors":
            return plan_disk.fit_files(self.shape, settings.strategy)
        if job == "score":
            return plan_disk.score_files(self.shape, self.dataset, settings.directions)
        return plan_disk.mask_files(self.dataset)


def candidates(method: Method) -> list[Method]:
    """The settled methods that ``method`` may become: both of them for "auto"."""
    jvp = replace(method, method="jvp", one_sided=False, step=None)
    if not method.searches:
        return [jvp]
    difference = replace(method, method="difference", step=method.step or _ANY_STEP)
    return [difference, jvp] if method.method == "auto" else [difference]
