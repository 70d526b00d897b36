"""lm-eval's own command line, importable without network in version 0.4.1 too:

python -m ifguide.evaluation.lm.run_lm_eval --model hf --model_args pretrained=DIR \
    --include_path "$(ifguide tasks-path)" --tasks ifguide
"""

from __future__ import annotations

from ifguide.compat.lm_eval import run_command


def main() -> None:
    """Run it with this process's arguments."""
    run_command()


if __name__ == "__main__":
    main()
