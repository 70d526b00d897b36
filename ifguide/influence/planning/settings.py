"""The settings that decide what a run needs: the options of ``ifguide plan`` that are those of the jobs it plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ifguide.config.options import option, part, same_as
from ifguide.influence.options import STRATEGIES, FitOptions, Method, Options


@dataclass(frozen=True, kw_only=True)
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
        shard_tokens: as `Options` has it; batches are formed inside a shard.
    """

    strategy: str = option(
        FitOptions.strategy, metavar="S", help="of the factors: ekfac (default), kfac, diagonal, identity"
    )
    factor_tokens: int | None = option(None, metavar="N", help="fit on a sample of N tokens (default: all)")
    query_tokens: int = option(100_000, metavar="N", help="of all queries (default: 1e5)")
    method: Method = part(Method, texts={"method": "jvp, difference or auto (default: both are planned)"})
    directions: int = option(1, metavar="K", help="behaviours in one pass (default: 1)")
    seq_length: int | None = same_as(FitOptions, "seq_length")
    context: int | None = same_as(FitOptions, "context")
    batch_size: int = same_as(FitOptions, "batch_size")
    shard_tokens: int | None = same_as(Options, "shard_tokens", help="as for score (default: score's own)")
    modules: str | None = same_as(FitOptions, "modules")
    ranks: int = option(1, metavar="N", help="processes on this machine (default: 1)")
    device: str | None = option(None, metavar="D", help="cpu or cuda (default: the GPU if there is one)")
    device_memory: float | None = option(None, metavar="GB", help="plan for a device with so much")
    disk: str | Path = option(".", metavar="DIR", help="folder that the files go to (default: this one)")

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
