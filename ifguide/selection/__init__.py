"""Which tokens to penalise (M3, Algorithm 1 of IF-Guide), from scores alone, at any size.

1. τ is the q-quantile of all scores; a token above it is *toxic*. Per ranking unit (a document, or a
   piece of one of ``unit_tokens`` tokens): c = number of toxic tokens, f = sum of their scores.
2. R = harmonic mean of the min-max normalised c and f.
3. Units by descending R; within a unit each toxic token, in order, adds itself and ``window``
   neighbours on each side, until the first window that does not fit the budget whole.

The scores stay on disk and are read once, chunk by chunk; the tokens, which say where documents end,
thrice. Memory grows with the toxic tokens and the ranking units, not with the corpus. The literal loop
that the result must equal is in the tests.

Beside it stand selection by lines, sentences and windows (`passages`, `by_passages`: M3b) and of tokens within them
(M3c). In the code such a span of text is a *passage*; a `Span` is the chunk of tokens that is read at a time.
"""

from ifguide.selection.algorithm import Selection, select
from ifguide.selection.by_passages import Chosen, paint_chosen, select_passages, select_within
from ifguide.selection.controls import random_positions, ranked_documents
from ifguide.selection.paint import graded_strengths, paint_documents, paint_positions, paint_windows, strengths_of
from ifguide.selection.passages import Passages, Tally, scan
from ifguide.selection.settings import PassageSettings, SelectionSettings, WithinSettings
from ifguide.selection.source import ScoredCorpus, Source, Span

__all__ = [
    "Chosen",
    "PassageSettings",
    "Passages",
    "ScoredCorpus",
    "Selection",
    "SelectionSettings",
    "Source",
    "Span",
    "Tally",
    "WithinSettings",
    "graded_strengths",
    "paint_chosen",
    "paint_documents",
    "paint_positions",
    "paint_windows",
    "random_positions",
    "ranked_documents",
    "scan",
    "select",
    "select_passages",
    "select_within",
    "strengths_of",
]
