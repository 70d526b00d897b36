"""The ``ifguide`` command: one verb, one module of ``ifguide.verbs``, imported only when it is used.

A verb module has ``SUMMARY`` (one line), ``EXAMPLE`` (a command that works), ``add_arguments(parser)``
and ``run(args) -> dict | None`` (the result that ``--json`` prints); ``exit_code(result)`` if it is not always 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import ifguide
from ifguide.errors import IFGuideError, IFGuideWarning, InputError, tell
from ifguide.system.processes import let_waiting_threads_sleep
from ifguide.system.provenance import running
from ifguide.system.quiet import end_with_reader

# verb -> its line in `ifguide --help`; kept here so that help imports nothing heavy
VERBS = {
    "preprocess": "text (JSONL) -> indexed dataset of tokens",
    "plan": "what fitting factors and scoring will take, before they start",
    "fit-factors": "model + data -> EK-FAC curvature factors",
    "score": "influence of every training token on the toxic-minus-safe margin",
    "transfer-scores": "scores of one tokenization -> scores of another one of the same documents",
    "build-mask": "scores -> penalty mask (Algorithm 1)",
    "import-mask": "a mask made elsewhere -> one that is known to fit its tokens",
    "merge-masks": "masks or scores of several corpora -> those of the merged corpus",
    "inspect": "documents with coloured tokens, in the terminal or as one HTML page",
    "mask-stats": "what masks select: by document, position, token and phrase; overlap of masks",
    "provenance": "from a mask back to all that it was made of; the commands again",
    "verify": "every fault of a dataset, its masks and its scores",
    "convert": "GPT-NeoX checkpoint <-> Hugging Face folder",
    "tasks-path": "the folder of the lm-eval tasks, for lm-eval's --include_path",
    "fetch-eval-data": "evaluation sets -> local JSON Lines, once; offline from then on",
    "generate": "model + prompts -> continuations, several a prompt; RAD decoding",
    "score-generations": "continuations -> toxicity scores of one classifier or several",
    "build-queries": "scored texts -> toxic and safe queries, apart from the evaluation's prompts",
    "evaluate": "a model's toxicity, LAMBADA and perplexity, by lm-eval; any other of its tasks",
    "compare": "evaluated models side by side: who is better, and how sure",
    "quickstart": "the whole loop on real text, on a CPU, in minutes",
    "doctor": "what is installed here, what was tested, which verbs will work",
}


# what every process of a launcher would do whole, into one output; the others share their work, or write nothing
_ONE_PROCESS = {
    "preprocess", "fit-factors", "transfer-scores", "build-mask", "import-mask", "merge-masks", "convert",
    "fetch-eval-data", "generate", "score-generations", "build-queries", "quickstart",
}  # fmt: skip


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
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; verbs: {', '.join(VERBS)}"
        print(f"ifguide: unknown verb '{verb}'{hint}", file=sys.stderr)
        return 2
    return run_verb(verb, rest)


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """Parse ``argv`` for ``verb`` and run it; every `IFGuideError` becomes one line and exit 2."""
    from ifguide.requirements import needs

    let_waiting_threads_sleep()  # before anything imports torch
    module = _module_of(verb)
    parser = make_parser(verb)
    args = parser.parse_args(argv)
    if not needs.ready(verb, f"ifguide {verb}"):
        return 2
    try:
        _check_processes(verb)
        with _one_line_warnings(verb):
            result, unchanged = _run(module, verb, parser, args, argv)
    except IFGuideError as error:
        tell(f"ifguide {verb}", error)
        return 2
    except (ImportError, AttributeError, TypeError) as error:
        reason = needs.explain(verb, error)
        if reason is None:
            raise
        tell(f"ifguide {verb}", reason)
        return 2
    except KeyboardInterrupt:
        print(f"\nifguide {verb}: interrupted; run the same command again", file=sys.stderr)
        return 130
    if args.json and result is not None:
        print(json.dumps(result, allow_nan=False))
    if unchanged:
        return 0
    return module.exit_code(result) if hasattr(module, "exit_code") else 0


def _check_processes(verb: str) -> None:
    """
    Raises:
        InputError: one of several processes that a launcher started, of a verb that they cannot share.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    # launchers set both; a cluster's scheduler may set WORLD_SIZE alone
    launched = "LOCAL_RANK" in os.environ and size.isdecimal() and int(size) > 1
    if verb in _ONE_PROCESS and launched:
        raise InputError(
            f"this is one of {size} processes (WORLD_SIZE), and each of them would do all the work into the same "
            f"output; run {verb} once, without torchrun (where something else sets WORLD_SIZE, unset it)"
        )


def _run(
    module: ModuleType, verb: str, parser: argparse.ArgumentParser, args: argparse.Namespace, argv: Sequence[str]
) -> tuple[dict[str, Any] | None, bool]:
    """The verb's result, and whether there was nothing to do for it (`ifguide.system.outputs`)."""
    command = ["ifguide", verb, *argv]
    writes = getattr(module, "WRITES", None)
    if writes is None:
        with running(command):
            return module.run(args), False
    from ifguide.system.outputs import SAME, UNFINISHED, claim

    with running(command):
        output = writes.output(args)
        if output is None:
            return module.run(args), False
        request = writes.request(verb, parser, args)
    with running(command, request), claim(output, request, args.overwrite) as state:
        if state == SAME:
            said = f"ifguide {verb}: {output.name} is what this command makes already; nothing to do"
            print(said, file=sys.stderr if args.json else sys.stdout)
            if writes.shows:
                setattr(args, writes.outputs[0], None)
                return {**(module.run(args) or {}), "unchanged": True}, True
            return {**writes.kept_result(args, output), "unchanged": True}, True
        if state == UNFINISHED and os.environ.get("RANK", "0") == "0":
            print(f"ifguide {verb}: going on with {output.name}, which this command left unfinished", file=sys.stderr)
        result = module.run(args)
        if result is not None:
            writes.keep_result(output, result)
        return result, False


@contextmanager
def _one_line_warnings(verb: str) -> Iterator[None]:
    """Our own warnings without Python's source line; everybody else's as they are."""
    plain = warnings.formatwarning

    def formatted(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        if issubclass(category, IFGuideWarning):
            return f"ifguide {verb}: {message}\n"
        return plain(message, category, *place, **more)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = plain


def make_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of ``verb``'s options."""
    module = _module_of(verb)
    parser = argparse.ArgumentParser(
        prog=f"ifguide {verb}",
        description=module.SUMMARY,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    if hasattr(module, "WRITES"):
        from ifguide.system.outputs import add_overwrite

        add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    return parser


def _module_of(verb: str) -> ModuleType:
    return importlib.import_module(f"ifguide.verbs.{verb.replace('-', '_')}")


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
