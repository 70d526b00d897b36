"""The ``ifguide`` command: help, version, and one of `ifguide.verbs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import ifguide
from ifguide.system.quiet import end_with_reader
from ifguide.verbs import VERBS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (0 done, 1 the verdict is no, 2 bad input, 130 interrupted, 141 nobody
    reads the output)."""
    return end_with_reader(lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"ifguide {ifguide.__version__}")
        return 0
    if f"{argv[0]}-{''.join(argv[1:2])}" in VERBS:  # `attack gcg` is attack-gcg
        argv = [f"{argv[0]}-{argv[1]}", *argv[2:]]
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        kinds = [name for name in VERBS if name.startswith(f"{verb}-")]
        if len(kinds) > 1:
            print(f"ifguide: '{verb}' needs to know which: {', '.join(kinds)}", file=sys.stderr)
            return 2
        hint = f"; did you mean '{near[0]}'?" if near else f"; verbs: {', '.join(VERBS)}"
        print(f"ifguide: unknown verb '{verb}'{hint}", file=sys.stderr)
        return 2
    from ifguide.verbs.run import run_verb  # help needs none of it

    return run_verb(verb, rest, follow=True)


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {text}" for name, text in VERBS.items()]
    return "\n".join(
        [
            "usage: ifguide VERB [options]    (ifguide VERB --help shows its options and an example)",
            "",
            "Find the training tokens that make a language model toxic; train away from exactly those.",
            "",
            *lines,
            "",
            "Training: python deepy.py train.py -d configs model.yml data.yml [penalty.yml]",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
