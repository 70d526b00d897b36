"""How `ifguide.masks.build_masks` selects by spans: (M3b), (M3c), combined rankings, restrictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError
from ifguide.masks.inputs import BehaviourScores
from ifguide.selection import PassageSettings, WithinSettings
from ifguide.selection.settings import EACH, HIGHEST, WINDOW

Prefixes = Sequence[str | Path]


@dataclass(frozen=True)
class SpanOptions:
    """What ranks spans, and what of them is taken.

    Attributes:
        span: ``line``, ``sentence`` or ``window:W``.
        shrink: κ.
        span_scores: scores that rank the spans, one a corpus; () for those of the behaviour.
        span_fraction: A; None: the budget through φ.
        tokens_within: φ; None: whole spans, unless A is given.
        rule, order, seed: as in `WithinSettings`.
        combine: instead of ``span_scores``: (weight, scores) of each ranking; spans go by the weighted sum of ranks.
        within: (threshold or None, scores): spans whose score there is not above it are left out.
        reader_of: the text reader of a dataset whose boundaries are not known yet.
    """

    span: str
    shrink: float = 0.0
    span_scores: Prefixes = ()
    span_fraction: float | None = None
    tokens_within: float | None = None
    rule: str = EACH
    order: str = HIGHEST
    seed: int = 0
    combine: Sequence[tuple[float, Prefixes]] = ()
    within: Sequence[tuple[float | None, Prefixes]] = ()
    reader_of: Callable[[str], TextReader] = TextReader.of_data

    @property
    def takes_tokens(self) -> bool:
        """Whether tokens within spans are taken (M3c), not whole spans."""
        return self.span_fraction is not None or self.tokens_within is not None

    @property
    def prefixes(self) -> list[str | Path]:
        """All score datasets beside those of the behaviours."""
        rows = [self.span_scores, *(row for _, row in self.combine), *(row for _, row in self.within)]
        return [prefix for row in rows for prefix in row]

    def passages(self, positive: bool) -> PassageSettings:
        return PassageSettings.parse(self.span, self.shrink, positive)

    def within_settings(self, behaviour: BehaviourScores) -> WithinSettings:
        """A and φ; what is not given follows from the behaviour's share of the tokens, which is A·φ.

        Raises:
            InputError: a share outside of what is possible.
        """
        share, spans, tokens = behaviour.settings.max_fraction, self.span_fraction, self.tokens_within
        if spans is None or tokens is None:
            assert share is not None  # `faults` saw to that
            spans = share / tokens if tokens else spans
            tokens = share / spans if tokens is None and spans else tokens
            given = self.tokens_within if self.span_fraction is None else self.span_fraction
            possible = given is not None and 0 < given <= 1  # else `WithinSettings` says what is wrong with it
            if possible and spans is not None and tokens is not None and (spans > 1 or tokens > 1):
                raise InputError(
                    f"a budget of {share:g} of all tokens needs {spans:g} of them in spans and takes {tokens:g} of "
                    "those: both must be at most 1; give a smaller budget, or more spans or tokens within them"
                )
        assert spans is not None and tokens is not None
        return WithinSettings(spans, tokens, self.rule, self.order, self.seed)

    def faults(self, behaviours: Sequence[BehaviourScores]) -> list[str]:
        """What does not fit together."""
        faults = []
        try:
            window = self.passages(True).kind == WINDOW
        except InputError as error:
            return [str(error)]
        corpora = len(behaviours[0].scores)
        rows = [("--span-scores", self.span_scores)] if self.span_scores else []
        rows += [("--combine", row) for _, row in self.combine] + [("--within", row) for _, row in self.within]
        for option, row in rows:
            if len(row) != corpora:
                faults.append(f"{option} names {len(row)} datasets for {corpora} corpora; give one for each")
        if self.combine and self.span_scores:
            faults.append(
                "--combine ranks spans by several scores; name those of --span-scores there too, or drop them"
            )
        if window and self.takes_tokens:
            faults.append("--tokens-within and --span-fraction take tokens of lines or sentences, not of windows")
        if window and (self.combine or self.within):
            faults.append("--combine and --within rank lines or sentences, not windows")
        if any(not 0 < abs(weight) < float("inf") for weight, _ in self.combine):
            faults.append("--combine: a weight must be a number other than 0")
        # what has no meaning for spans
        for behaviour in behaviours:
            given = behaviour.settings
            if self.takes_tokens and given.max_tokens is not None:
                faults.append("tokens within spans are a share of all tokens; give --max-fraction, not --max-tokens")
            if given.include_eod:
                faults.append("EOD tokens are in no span; leave out --include-eod")
        if not faults and self.takes_tokens:
            for behaviour in behaviours:
                try:
                    self.within_settings(behaviour)
                except InputError as error:
                    faults.append(str(error))
        return list(dict.fromkeys(faults))

    def record(self) -> dict[str, Any]:
        """For a sidecar; the score datasets are named beside it."""
        found: dict[str, Any] = {"span": self.span, "shrink": self.shrink}
        if self.takes_tokens:
            found |= {"within_rule": self.rule, "tokens_within_order": self.order}
            found |= {"seed": self.seed} if self.order == "random" else {}
        if self.combine:
            found["combine"] = [weight for weight, _ in self.combine]
        if self.within:
            found["within"] = [threshold for threshold, _ in self.within]
        return found
