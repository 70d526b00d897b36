"""One verb, run from its command line: what it needs, its output claimed first, every fault as one line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ifguide import verbs
from ifguide.errors import IFGuideError, IFGuideWarning, tell
from ifguide.system.processes import let_waiting_threads_sleep
from ifguide.system.progress import silenced
from ifguide.system.provenance import running
from ifguide.system.run_process import require_one_process
from ifguide.verbs.following import next_command
from ifguide.verbs.log_file import LogError, logged
from ifguide.verbs.tokenizer_files import name_tokenizer_files

# what every process of a launcher would do whole, into one output; the others share their work, or write nothing
_ONE_PROCESS = {
    "mask",
    "preprocess", "fit-factors", "transfer-scores", "train-classifier", "build-mask", "import-mask", "merge-masks",
    "convert", "fetch-eval-data", "generate", "score-generations", "build-queries", "quickstart",
    "audit-mask",
    "validate-scores",
    "attack-gcg", "attack-relearn", "attack-orthogonalise", "attack-prompts",
    "analyse",
    "build-tags", "build-pairs",
    "experiment",
    "preprocess-pairs",
    "train-tokenizer",
}  # fmt: skip


def run_verb(verb: str, argv: Sequence[str], follow: bool = False) -> int:
    """Parse ``argv`` for ``verb`` and run it; every `IFGuideError` becomes one line and exit 2.

    Args:
        follow: say at the end which command usually comes next.
    """
    let_waiting_threads_sleep()  # before anything imports torch
    module = verbs.module_of(verb)
    parser = verbs.make_parser(verb)
    args = parser.parse_args(argv)
    try:
        with logged(args.log, ["ifguide", verb, *argv]) as log, silenced(args.quiet):
            code = _run_parsed(module, verb, parser, args, argv, follow)
            if log:
                log.finish()
                log.line(f"exit {code}")
            return code
    except LogError as error:
        tell(f"ifguide {verb}", error)
        return 2


def _run_parsed(
    module: ModuleType,
    verb: str,
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    argv: Sequence[str],
    follow: bool,
) -> int:
    """The exit code."""
    from ifguide.requirements import needs

    if not needs.ready(verb, f"ifguide {verb}"):
        return 2
    try:
        name_tokenizer_files(args)
        if verb in _ONE_PROCESS:
            why = "each of them would do all the work into the same output"
            require_one_process(why, verb, launched=True)
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
    code = module.exit_code(result) if hasattr(module, "exit_code") else 0
    if follow and code == 0 and not args.json and (line := next_command(verb, args, result)):
        print(f"next: {line}")
    return code


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
                setattr(args, writes.named.outputs[0], None)
                return {**(module.run(args) or {}), "unchanged": True}, True
            return {**writes.kept_result(args, output), "unchanged": True}, True
        if state == UNFINISHED and os.environ.get("RANK", "0") == "0":
            said = f"ifguide {verb}: going on with {output.name}, which this command left unfinished"
            if not args.quiet:
                print(said, file=sys.stderr)
        result = module.run(args)
        if result is not None:
            writes.keep_result(output, result)
        return result, False


def state_of(verb: str, argv: Sequence[str]) -> tuple[str, list[str]] | None:
    """What lies where ``verb`` would write, and what differs, as `ifguide.system.outputs.look`; None of a command that
    writes nothing.

    Raises:
        InputError: an output that is an input.
    """
    from ifguide.system.outputs import look

    writes = getattr(verbs.module_of(verb), "WRITES", None)
    if writes is None:
        return None
    parser = verbs.make_parser(verb)
    args = parser.parse_args(argv)
    name_tokenizer_files(args)
    output = writes.output(args)
    return None if output is None else look(output, writes.request(verb, parser, args))


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
