"""What a run needs as a function of its settings, so that others can be tried."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ifguide.data.indexed import TokenDataset
from ifguide.influence.curvature.partitions import Partitions
from ifguide.influence.options import Method
from ifguide.influence.planning import disk as plan_disk
from ifguide.influence.planning.live import BatchSize
from ifguide.influence.planning.memory import (
    Peak,
    direction_peak,
    fitting_partitions,
    fitting_peaks,
    pass_peak,
)
from ifguide.influence.planning.settings import Settings
from ifguide.influence.planning.shape import Shape

JOBS = ("fit-factors", "score", "build-mask")
# a step in the middle of those that are searched: any takes the same time
_ANY_STEP = 1e-2


@dataclass(frozen=True, eq=False)
class Needs:
    """What jobs need as a function of their settings, so that other settings can be tried.

    Attributes:
        longest: tokens of the longest document.
        positions: of all windows.
        device_memory: bytes of a GPU, by which fits are cut (None: unknown, or a CPU).
    """

    shape: Shape
    dataset: TokenDataset
    longest: int
    positions: int
    device_memory: int | None = None

    def batch(self, settings: Settings) -> BatchSize:
        """The largest batch. ``seq_length`` and ``device`` must be settled."""
        assert settings.seq_length and settings.device
        columns = max(1, min(settings.seq_length, self.longest))
        rows = max(1, min(settings.batch_size * settings.seq_length, self.positions) // columns)
        return BatchSize(rows, columns, settings.device)

    def partitions(self, settings: Settings) -> Partitions:
        """How fit-factors will cut its fit."""
        return fitting_partitions(self.shape, settings.strategy, self.batch(settings), self.device_memory)

    def memory(self, job: str, settings: Settings) -> list[Peak]:
        """The peaks of ``job``'s phases, for one process. ``seq_length`` and ``device`` must be settled."""
        batch = self.batch(settings)
        if job == "fit-factors":
            return fitting_peaks(self.shape, settings.strategy, batch, self.device_memory)
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
            return plan_disk.score_files(self.shape, self.dataset, settings.directions, settings.method.rank)
        return plan_disk.mask_files(self.dataset)


def candidates(method: Method) -> list[Method]:
    """The settled methods that ``method`` may become: both of them for "auto"."""
    jvp = replace(method, method="jvp", one_sided=False, step=None)
    if not method.searches:
        return [jvp]
    difference = replace(method, method="difference", step=method.step or _ANY_STEP)
    return [difference, jvp] if method.method == "auto" else [difference]
