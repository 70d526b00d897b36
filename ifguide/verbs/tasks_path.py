"""``ifguide tasks-path``; what the tasks are told comes through the environment, see docs/evaluation.md."""

from __future__ import annotations

import argparse
from typing import Any

SUMMARY = "Print the folder of the lm-eval tasks, for lm-eval's --include_path."
EXAMPLE = "ifguide tasks-path"


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.tasks.parts import TASKS_FOLDER

    if not args.json:
        print(TASKS_FOLDER)
    return {"tasks_path": str(TASKS_FOLDER)}
