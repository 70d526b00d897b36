"""Which scorers there are. A scorer is named by a spec:

detoxify:original|unbiased|multilingual   Detoxify's checkpoints, fetched once; with @FOLDER from a local folder
toxigen-roberta                           the ToxiGen classifier from the hub; with @FOLDER from a local folder
hf:FOLDER[#LABEL]                         any Hugging Face sequence classifier in a local folder
linear:FOLDER                             a classifier trained by `ifguide.scorers.linear`
lexicon                                   a short list of insults, for tests and first steps
"""

from __future__ import annotations

from ifguide.errors import InputError
from ifguide.scorers.base import Scorer

KNOWN = (
    "detoxify:original|unbiased|multilingual[@FOLDER], toxigen-roberta[@FOLDER], hf:FOLDER[#LABEL], linear:FOLDER, "
    "lexicon"
)


def load_scorer(spec: str, *, device: str = "cpu") -> Scorer:
    """Load the scorer that ``spec`` names. Loading is slow: load once, score often.

    Raises:
        InputError: an unknown kind, an unusable path, or a label that the classifier does not have.
    """
    kind, _, where = spec.partition(":")
    if spec == "lexicon":
        from ifguide.scorers.lexicon import LexiconScorer

        return LexiconScorer()
    if kind == "hf" and where:
        from ifguide.scorers.huggingface import HuggingFaceScorer

        path, _, label = where.partition("#")
        return HuggingFaceScorer(path, label or None, device=device)
    if kind == "linear" and where:
        from ifguide.scorers.linear import LinearScorer

        return LinearScorer(where)
    if kind == "detoxify" and where:
        from ifguide.scorers.detoxify import DetoxifyScorer

        variant, at, folder = where.partition("@")
        if not at or folder:
            return DetoxifyScorer(variant, folder or None, device=device)
    if spec == "toxigen-roberta" or (spec.startswith("toxigen-roberta@") and spec != "toxigen-roberta@"):
        from ifguide.scorers.huggingface import ToxigenScorer

        return ToxigenScorer(spec.partition("@")[2] or None, device=device)
    raise InputError(f"scorer '{spec}' is not known; give {KNOWN}")
