"""Which scorers there are. A scorer is named by a spec:

detoxify:MODEL             Detoxify's checkpoints (original, unbiased, multilingual, original-small, unbiased-small),
                           fetched once; with @FOLDER from a local folder
toxigen-roberta            the ToxiGen classifier from the hub; with @FOLDER from a local folder
hf:FOLDER[#LABEL]          any Hugging Face sequence classifier in a local folder
guard:FOLDER[#FAMILY]      a guard model in a local folder, which is asked and answers: `ifguide.scorers.guards`
linear:FOLDER              a classifier trained by `ifguide.scorers.linear`
python:MODULE:FUNCTION     a function of the user's own
lexicon                    a short list of insults, for tests and first steps
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ifguide.errors import InputError
from ifguide.scorers.base import Scorer

KNOWN = (
    "detoxify:original|unbiased|multilingual|original-small|unbiased-small[@FOLDER], toxigen-roberta[@FOLDER], "
    "hf:FOLDER[#LABEL], guard:FOLDER[#FAMILY], linear:FOLDER, python:MODULE:FUNCTION, lexicon"
)
# for the help of an option
SPECS = (
    "detoxify:unbiased, toxigen-roberta, hf:FOLDER#LABEL, guard:FOLDER (a guard model), linear:FOLDER, "
    "python:MODULE:FUNCTION (your own), lexicon"
)
NO_PERSPECTIVE = "the Perspective API closes at the end of 2026 and is no scorer"
_INSTEAD = (
    "detoxify:unbiased and toxigen-roberta run on your machine, guard:FOLDER asks a guard model, and "
    "python:MODULE:FUNCTION calls a service or classifier of yours"
)


def load_scorer(spec: str, *, device: str = "cpu") -> Scorer:
    """Load the scorer that ``spec`` names. Loading is slow: load once, score often.

    Raises:
        InputError: an unknown kind, an unusable path, or a label that the classifier does not have.
    """
    kind = re.split("[:@]", spec, maxsplit=1)[0]
    if kind.lower() in ("perspective", "perspectiveapi", "perspective-api"):
        raise InputError(f"scorer '{spec}' is not known: {NO_PERSPECTIVE}; {_INSTEAD}")
    scorer = SCORERS[kind](spec[len(kind) :], device) if kind in SCORERS else None
    if scorer is None:
        raise InputError(f"scorer '{spec}' is not known; give {KNOWN}")
    return scorer


def _lexicon(rest: str, device: str) -> Scorer | None:
    from ifguide.scorers.lexicon import LexiconScorer

    return None if rest else LexiconScorer()


def _huggingface(rest: str, device: str) -> Scorer | None:
    from ifguide.scorers.huggingface import HuggingFaceScorer

    path, _, label = rest[1:].partition("#")
    return HuggingFaceScorer(path, label or None, device=device) if _names_something(rest) else None


def _linear(rest: str, device: str) -> Scorer | None:
    from ifguide.scorers.linear import LinearScorer

    return LinearScorer(rest[1:]) if _names_something(rest) else None


def _guard(rest: str, device: str) -> Scorer | None:
    from ifguide.scorers.guards.scorer import GuardScorer

    path, _, family = rest[1:].partition("#")
    return GuardScorer(path, family or None, device=device) if _names_something(rest) else None


def _python(rest: str, device: str) -> Scorer | None:
    from ifguide.scorers.plugin import PluginScorer

    return PluginScorer(rest[1:]) if _names_something(rest) else None


def _detoxify(rest: str, device: str) -> Scorer | None:
    from ifguide.scorers.detoxify import DetoxifyScorer

    variant, at, folder = rest[1:].partition("@")
    usable = _names_something(rest) and (not at or folder)
    return DetoxifyScorer(variant, folder or None, device=device) if usable else None


def _toxigen(rest: str, device: str) -> Scorer | None:
    from ifguide.scorers.huggingface import ToxigenScorer

    usable = not rest or (rest[0] == "@" and len(rest) > 1)
    return ToxigenScorer(rest[1:] or None, device=device) if usable else None


def _names_something(rest: str) -> bool:
    return rest[:1] == ":" and len(rest) > 1


SCORERS: dict[str, Callable[[str, str], Scorer | None]] = {
    "lexicon": _lexicon,
    "hf": _huggingface,
    "guard": _guard,
    "linear": _linear,
    "python": _python,
    "detoxify": _detoxify,
    "toxigen-roberta": _toxigen,
}
"""Kind -> loader of (what follows the kind in a spec, from its ``:`` or ``@`` on; device); None: not of its form."""
