"""Labels for an audit on real text, from what people labelled before: so that no person has to do it again.

    python benchmarks/label_spans.py --case FOLDER --data PREFIX --tokenizer tokenizer.json --audit DIR > labels.jsonl

FOLDER is one that real_text_case.py wrote, PREFIX its corpus as tokens, DIR what `ifguide audit-mask` drew from them. A
span is abuse if more than half of its tokens stand in a tweet that people labelled hateful or offensive.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tokenizers import Tokenizer

from benchmarks.real_text_case import FILES
from ifguide.data.indexed import TokenDataset
from ifguide.quickstart.truth import planted_tokens
from ifguide.system.files import read_jsonl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data", required=True, metavar="PREFIX")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE")
    parser.add_argument("--audit", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    tokens = TokenDataset.open(args.data)
    texts = [row["text"] for row in read_jsonl(args.case / FILES["corpus"])]
    abuse = read_jsonl(args.case / FILES["abuse"])
    labelled = planted_tokens(texts, abuse, Tokenizer.from_file(str(args.tokenizer)), tokens.starts).inside
    for span in read_jsonl(args.audit / "spans.jsonl"):
        first = int(tokens.starts[span["document"]])
        share = labelled[first + span["begin"] : first + span["end"]].mean()
        print(json.dumps({"id": span["id"], "label": "abuse" if share > 0.5 else "not"}))


if __name__ == "__main__":
    main()
