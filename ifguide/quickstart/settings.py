"""What a quickstart is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ifguide.config.options import option
from ifguide.errors import InputError
from ifguide.quickstart.sizes import Sizes
from ifguide.scorers.registry import SPECS
from ifguide.selection import SelectionSettings
from ifguide.system.files import hash_unchanged

_OWN = "your own text instead of the built-in corpus"


@dataclass(frozen=True)
class QuickstartSettings:
    """What to run.

    Attributes:
        output: folder for everything.
        seed: of corpus, initialisation, sample order, factors, generation.
        input, toxic_queries, safe_queries: the user's own text instead of the built-in corpus (all or none).
        scorer: a scorer for the evaluation (see `ifguide.scorers.registry`) instead of the trained judge.
        sizes: how much of everything.
        selection: parameters of Algorithm 1.
    """

    output: Path = option(
        Path("quickstart-output"), metavar="DIR", kind="output",
        help="folder for everything; a second call resumes there (default: quickstart-output)",
    )  # fmt: skip
    seed: int = option(1, help="of everything drawn (default: 1)")
    input: Path | None = option(
        None, metavar="FILE", kind="input", group=_OWN, help='JSONL of documents: {"text": ...}'
    )  # fmt: skip
    toxic_queries: Path | None = option(
        None, metavar="FILE", kind="input", group=_OWN, help='JSONL: {"prompt": ..., "completion": ...}'
    )
    safe_queries: Path | None = option(
        None, metavar="FILE", kind="input", group=_OWN, help="JSONL, as the toxic ones"
    )  # fmt: skip
    scorer: str | None = option(
        None, metavar="SPEC", kind="scorer", group=_OWN,
        help=f"judge with {SPECS} (default: a classifier trained here, which of your own text knows your queries "
        "alone: do not rely on its numbers)",
    )  # fmt: skip
    sizes: Sizes = field(default_factory=Sizes)
    selection: SelectionSettings = field(
        default_factory=lambda: SelectionSettings(threshold_quantile=0.99, window=1, max_fraction=0.02)
    )

    @property
    def judges_itself(self) -> bool:
        """Whether the user's own queries are all that the judge learns from: it knows little else than their form."""
        return self.input is not None and not self.scorer

    @property
    def judged_by_its_queries(self) -> bool:
        """Whether the scorer that is given was trained on the very query files that the mask comes from."""
        from ifguide.scorers.linear import learned_from

        queries = [path for path in (self.toxic_queries, self.safe_queries) if path is not None]
        return bool(learned_from(self.scorer) & {hash_unchanged(path) for path in queries})

    def __post_init__(self) -> None:
        given = [self.input, self.toxic_queries, self.safe_queries]
        if any(given) and not all(given):
            raise InputError("own text needs all of --input, --toxic-queries and --safe-queries")
        missing = [str(path) for path in given if path and not path.is_file()]
        if missing:
            raise InputError(f"{', '.join(missing)}: no such file; give JSONL files that exist")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must not be negative")
