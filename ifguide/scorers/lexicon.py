"""A short list of insults as a scorer: for tests, demonstrations and first steps, and for nothing else.

It knows some words and no meaning: it misses every insult that is not listed, and takes "kill the process" for abuse.
Never report its numbers as toxicity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ifguide.scorers.base import Scorer
from ifguide.system.files import hash_value

# weight: how sure the word alone makes one that somebody is being abused
WEIGHTS = {
    0.9: "asshole assholes bastard bastards bitch bitches bullshit dickhead fuck fucked fucker fuckers fucking "
    "motherfucker prick scumbag shithead slut whore wanker",
    0.7: "crap cretin cretins damn dumbass idiot idiotic idiots imbecile imbeciles jackass moron moronic morons piss "
    "retard retarded scum shit shitty vermin",
    0.5: "brainless despicable disgusting dumb filth filthy freak freaks garbage hate loser losers parasite parasites "
    "pathetic pig pigs stupid stupidity sucks trash ugly useless worthless",
    0.3: "clown clowns die fool fools kill liar liars ridiculous rot sick stink stinks weirdo",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+")
_WEIGHT_OF = {word: weight for weight, words in WEIGHTS.items() for word in words.split()}


class LexiconScorer(Scorer):
    """1 minus the product of (1 - weight) over the listed words of a text, each occurrence counted."""

    name, labels = "lexicon", ("toxicity",)
    warning = (
        "the lexicon counts listed words and understands nothing; its numbers are for tests and first steps, never to "
        "be reported as toxicity"
    )

    def fingerprint(self) -> str | None:
        return hash_value(_WEIGHT_OF)

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        return {"toxicity": np.array([_score(text) for text in texts])}


def _score(text: str) -> float:
    harmless = 1.0
    for word in _WORD.findall(text.lower()):
        harmless *= 1.0 - _WEIGHT_OF.get(word, 0.0)
    return 1.0 - harmless
