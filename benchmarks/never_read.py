"""The corpus of a case without what people labelled abusive: for models that never read it, the yardstick of attacks.

    python benchmarks/never_read.py --case FOLDER > never.jsonl

FOLDER is one that real_text_case.py wrote. Each abusive tweet leaves its document with the end of its line; documents
without another tweet leave as a whole.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.real_text_case import FILES
from ifguide.system.files import read_jsonl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=Path, required=True, metavar="FOLDER")
    case = parser.parse_args().case
    abusive = {row["document"]: row["spans"] for row in read_jsonl(case / FILES["abuse"])}
    for number, row in enumerate(read_jsonl(case / FILES["corpus"])):
        left = without(row["text"], abusive.get(number, []))
        if left.strip():
            print(json.dumps({**row, "text": left}))


def without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """``text`` without ``spans``, ascending [begin, end) in characters, and the line that each leaves empty."""
    for begin, end in reversed(spans):
        rest = text[end:]
        text = rest.lstrip("\n") if begin == 0 else text[:begin].rstrip("\n") + rest
    return text


if __name__ == "__main__":
    main()
