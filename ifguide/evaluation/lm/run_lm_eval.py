"""lm-eval's own command line, importable without network in version 0.4.1 too:

python -m ifguide.evaluation.lm.run_lm_eval --model hf --model_args pretrained=DIR \
    --include_path "$(ifguide tasks-path)" --tasks ifguide
"""

from __future__ import annotations

import importlib
from typing import Any

from ifguide.evaluation.tasks.registry import import_lm_eval


def main() -> None:
    """Run it with this process's arguments."""
    import_lm_eval()
    command: Any = importlib.import_module("lm_eval.__main__")
    command.cli_evaluate()


if __name__ == "__main__":
    main()
