"""Penalty masks on disk: built from scores (M3), adopted from elsewhere, merged as their tokens were.

build       scores -> mask, by Algorithm 1 or a control of the same size
arguments   whether the arguments of `build` fit together
inputs      what `build` reads, checked
exactness   whether a cascade has scored exactly what a mask takes
spans       masks of lines, sentences, windows, and of tokens within them
ignoring    tokens that a pattern leaves out
sanity      what is odd about a mask
shortfall   why a mask ends under its budget
outcome     what a method decided
words       the control that a list of words gives
documents   which documents document-level removal drops
filtering   the tokens without the documents that document-level removal drops
tagging     the tokens with a tag before every span
importing   a mask made elsewhere -> one with a sidecar
merging     masks or scores of several corpora -> those of the merged corpus
"""

from ifguide.masks.arguments import MaskOptions
from ifguide.masks.build import build_mask, build_masks
from ifguide.masks.ignoring import Ignoring
from ifguide.masks.importing import import_mask
from ifguide.masks.inputs import BehaviourScores
from ifguide.masks.merging import merge_masks
from ifguide.masks.spans.options import SpanOptions
from ifguide.masks.words import WordList

__all__ = [
    "BehaviourScores",
    "Ignoring",
    "MaskOptions",
    "SpanOptions",
    "WordList",
    "build_mask",
    "build_masks",
    "import_mask",
    "merge_masks",
]
