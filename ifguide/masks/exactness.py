"""Masks from a cascade's scores: what they take has to be scored exactly, and not by the cascade's proxy.

A cascade scores exactly what can make one mask, its *plan*, and an audit of the rest; every other score is a proxy's on
the exact ones' scale. A mask that stays within the plan is what the cascade's report describes. One that goes beyond it
(a larger budget, another quantile, other ranking units) is built only if all that it takes lies in units that were
chosen for their exact scores: a unit of the audit would stand for many that were not looked at.

Shapes: U ranking units of the plan, C centres of a mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned
from ifguide.errors import ConfigError, IFGuideWarning, InputError
from ifguide.selection import SelectionSettings, Source
from ifguide.selection.algorithm import unit_starts
from ifguide.selection.exact import CHOSEN, REJECTED, states_from_text

# field of the settings -> flag of `build-mask`; the same flag of `score` begins with --cascade-
_FLAGS = {
    "threshold_quantile": "--threshold-quantile",
    "window": "--window",
    "max_fraction": "--max-fraction",
    "max_tokens": "--max-tokens",
    "unit_tokens": "--unit-tokens",
    "include_eod": "--include-eod",
}


@dataclass(frozen=True, eq=False)
class CascadeScores:
    """What a cascade made exact of one corpus.

    Attributes:
        prefix: of the scores.
        plan: the mask that they are for.
        starts: int64[U + 1], first token of each unit, and the number of tokens.
        states: uint8[U]; None where the scores were moved to other tokens, which have no such units.
    """

    prefix: str
    plan: SelectionSettings
    starts: NDArray[np.int64]
    states: NDArray[np.uint8] | None

    @classmethod
    def of(cls, scores: Aligned) -> CascadeScores | None:
        """None for scores that are no cascade's.

        Raises:
            InputError: the record of the cascade is damaged.
        """
        record = scores.sidecar.get("cascade")
        if record is None:
            return None
        try:
            plan = SelectionSettings(**record["report"]["settings"]["selection"])
            starts = np.append(unit_starts(scores.starts, plan.unit_tokens), scores.starts[-1])
            text = record.get("exact_units")
            states = None if text is None else states_from_text(text, len(starts) - 1)
        except (KeyError, TypeError, AttributeError, ValueError, InputError) as error:
            raise InputError(
                f"{scores.prefix}.json: its record of the cascade is damaged ({error}); score again"
            ) from None
        return cls(str(scores.prefix), plan, starts, states)

    def beyond(self, settings: SelectionSettings, num_tokens: int, corpora: int) -> list[str]:
        """The flags by which a mask of these ``settings``, over so many tokens and corpora, goes beyond the plan."""
        plan, found = self.plan, []
        if settings.threshold_quantile != plan.threshold_quantile:  # another order of the units
            found.append("threshold_quantile")
        if settings.window < plan.window:  # narrower windows fill the budget with more units
            found.append("window")
        if settings.budget(num_tokens) > plan.budget(int(self.starts[-1])):
            found.append("max_fraction" if settings.max_tokens is None else "max_tokens")
        found += [key for key in ("unit_tokens", "include_eod") if getattr(settings, key) != getattr(plan, key)]
        shown = [f"{_FLAGS[key]} {getattr(settings, key)}" for key in found]
        return shown + ([f"{corpora} corpora that share one threshold and budget"] if corpora > 1 else [])

    def states_at(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8[C]: the states of the units that hold these tokens."""
        assert self.states is not None
        return self.states[np.searchsorted(self.starts, positions, side="right") - 1]

    def refusal(self, settings: SelectionSettings, beyond: Sequence[str], why: str) -> str:
        """In one line: what is asked for, what is there, what to do."""
        plan = self.plan
        size = f"{plan.max_fraction:.2%} of the tokens" if plan.max_tokens is None else f"{plan.max_tokens} tokens"
        eod = ", EOD included" if plan.include_eod else ""
        wanted = {key: flag.replace("--", "--cascade-") for key, flag in _FLAGS.items()}
        again = [
            wanted[key] + ("" if key == "include_eod" else f" {getattr(settings, key)}")
            for key in _FLAGS
            if getattr(settings, key) != getattr(plan, key)
            if getattr(settings, key) is not None and getattr(settings, key) is not False
        ]
        remedy = f"score again with {' '.join(again)}" if again else "score this corpus without a cascade"
        return (
            f"{self.prefix} are a cascade's scores, exact where a mask of {size} above the {plan.threshold_quantile} "
            f"quantile (window {plan.window}, units of {plan.unit_tokens}{eod}) can reach; {why} with "
            f"{', '.join(beyond)}: those scores are a proxy's. Ask for no more than that, or {remedy}"
        )


@dataclass(frozen=True, eq=False)
class Exactness:
    """The cascades among the scores that masks are built from: by behaviour, then by corpus (None: exact scores).

    Attributes:
        settings: of Algorithm 1, by behaviour.
        sources: by behaviour.
    """

    cascades: list[list[CascadeScores | None]]
    settings: list[SelectionSettings]
    sources: list[Source]

    @classmethod
    def of(
        cls, scores: Sequence[Sequence[Aligned]], settings: Sequence[SelectionSettings], sources: Sequence[Source]
    ) -> Exactness:
        """
        Raises:
            InputError: a damaged record, or scores that are known to have no exact units for what is asked.
        """
        found = cls([[CascadeScores.of(one) for one in row] for row in scores], list(settings), list(sources))
        faults = []
        for _, cascade, given, beyond in found._each():
            if cascade.states is None and beyond:
                faults.append(cascade.refusal(given, beyond, "they were moved to other tokens and used"))
        if faults:
            raise ConfigError(dict.fromkeys(faults))
        return found

    def __bool__(self) -> bool:
        """Whether any scores are a cascade's."""
        return any(cascade is not None for row in self.cascades for cascade in row)

    def check(self, positions: Sequence[NDArray[np.int64]]) -> list[dict[str, Any]]:
        """Refuse what rests on a proxy's scores beyond the plan, and warn of what does within it.

        Args:
            positions: by behaviour: ascending global positions of the tokens whose scores decide, int64[C].

        Returns:
            For the mask's record: of each cascade the ``scores`` and which share of those tokens a proxy scored.

        Raises:
            InputError: a mask beyond what its cascade made exact.
        """
        faults: list[str] = []
        records: list[dict[str, Any]] = []
        for (behaviour, corpus), cascade, given, beyond in self._each():
            if cascade.states is None:
                records.append({"scores": str(Path(cascade.prefix).absolute()), "proxy_share": None})
                continue
            offsets = self.sources[behaviour].offsets
            first, last = np.searchsorted(positions[behaviour], offsets[corpus : corpus + 2])
            states = cascade.states_at(positions[behaviour][first:last] - offsets[corpus])
            outside = float((states != CHOSEN).mean()) if len(states) else 0.0
            share = float((states == REJECTED).mean()) if len(states) else 0.0
            if beyond and outside:
                faults.append(cascade.refusal(given, beyond, f"{outside:.1%} of the mask would lie elsewhere"))
            elif share:
                warnings.warn(
                    f"{share:.1%} of what the mask takes by {cascade.prefix} has a proxy's scores; a larger "
                    "--cascade-keep lowers that",
                    IFGuideWarning,
                    stacklevel=2,
                )
            records.append({"scores": str(Path(cascade.prefix).absolute()), "proxy_share": share})
        if faults:
            raise ConfigError(dict.fromkeys(faults))
        return records

    def _each(self) -> list[tuple[tuple[int, int], CascadeScores, SelectionSettings, list[str]]]:
        """((behaviour, corpus), cascade, settings, what is beyond its plan) of every cascade."""
        return [
            ((i, k), cascade, given, cascade.beyond(given, source.num_tokens, len(row)))
            for i, (row, given, source) in enumerate(zip(self.cascades, self.settings, self.sources))
            for k, cascade in enumerate(row)
            if cascade is not None
        ]
