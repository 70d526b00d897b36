"""Inspected documents and lineages as lines for a terminal.

A selected run of tokens stands in ⟦double brackets⟧, so that it reads without colour; the colour is the score's.
"""

from __future__ import annotations

import os
import shlex
from itertools import groupby
from typing import TextIO

from ifguide.inspection.lineage import CHANGED, MISSING, Node
from ifguide.pages.document import ShownDocument
from ifguide.pages.environment import shade
from ifguide.pages.inspection import Inspection
from ifguide.pages.text import visible
from ifguide.system.progress import counted

_WORST = (224, 217, 210, 203, 196, 160)  # of the 256 colours, from pale to full red
_BEST = (189, 153, 111, 75, 33, 27)  # blue
_WHITE_ON = (196, 160, 33, 27)
_RESET = "\x1b[0m"


def wants_colour(stream: TextIO) -> bool:
    """A terminal that was not told otherwise (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def document_lines(inspection: Inspection, colour: bool) -> list[str]:
    """The documents, each under a heading, after two lines on the whole."""
    share = inspection.num_selected / inspection.num_tokens
    lines = [
        f"{inspection.num_selected:,} of {counted(inspection.num_tokens, 'token')} selected ({share:.2%}), in "
        f"{counted(inspection.num_documents, 'document')}"
    ]
    if inspection.threshold is not None:
        lines.append(f"threshold τ = {inspection.threshold:.4g}; ⟦selected⟧; red: learning the token adds toxicity")
    for place, document in enumerate(inspection.documents, 1):
        lines += ["", _heading(place, document, inspection.threshold is not None)]
        lines += _text(document, inspection.full_colour, colour).split("\n")
    return lines


def tree_lines(root: Node) -> list[str]:
    """A lineage as an indented tree; what was shown before is only named again."""
    lines: list[str] = []
    shown: set[int] = set()

    def add(node: Node, first: str, rest: str) -> None:
        fault = f": {node.note}" if node.note else ""
        again = " (see above)" if id(node) in shown and node.inputs else ""
        lines.append(f"{first}{node.role}  {node.path or '(path not recorded)'}  [{node.status}{fault}]{again}")
        if again:
            return
        shown.add(id(node))
        bar = "│  " if node.inputs else "   "
        lines.extend(f"{rest}{bar}{fact}" for fact in node.facts)
        if node.command:
            lines.append(f"{rest}{bar}$ {shlex.join(node.command)}")
        for number, source in enumerate(node.inputs, 1):
            last = number == len(node.inputs)
            add(source, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")

    add(root, "", "")
    faults = [node for node in root.walk() if node.status in (CHANGED, MISSING)]
    lines += ["", f"{len(faults)} of {len(list(root.walk()))} files changed or missing"]
    return lines


def _heading(place: int, document: ShownDocument, scored: bool) -> str:
    measure = f"R {document.measure:.3f}, " if scored else ""
    selected = f"{document.num_selected:,} of {counted(document.num_tokens, 'token')} selected"
    text = f"{place}. document {document.index}: {measure}{selected}"
    shown = len(document.strengths)
    if shown < document.num_tokens:
        text += f"; tokens {document.first} to {document.first + shown - 1} are shown"
    return text


def _text(document: ShownDocument, full: float, colour: bool) -> str:
    """All pieces; a colour never spans a line end, where a terminal would fill the line with it."""
    parts = []
    for selected, run in groupby(document.spans(), key=lambda span: bool(document.strengths[span[1]].any())):
        inner = ""
        for text, at in run:
            score = 0.0 if document.scores is None else max(document.scores[at].tolist(), key=abs)
            inner += _coloured(visible(text), score, full, selected) if colour else visible(text)
        parts.append(f"⟦{inner}⟧" if selected else inner)
    return "".join(parts)


def _coloured(text: str, score: float, full: float, selected: bool) -> str:
    palette = _WORST if score > 0 else _BEST
    step = abs(shade(score, full, len(palette)))
    codes = ["1", "4"] if selected else []
    if step:
        background = palette[step - 1]
        codes += [f"48;5;{background}", f"38;5;{231 if background in _WHITE_ON else 16}"]
    if not codes:
        return text
    start = f"\x1b[{';'.join(codes)}m"
    return "\n".join(f"{start}{line}{_RESET}" if line else "" for line in text.split("\n"))
