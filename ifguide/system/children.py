"""Commands run as processes of their own that end with this one, however it ends, and what they took.

Between this process and the command stands a small one that holds the end of a pipe from here. When the pipe closes (a
return, an exception, a SIGKILL of this process), it kills the command with all that the command started: a job that is
run again never meets a writer that the killed one left behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifguide.errors import IFGuideError

_PACKAGES = Path(__file__).resolve().parents[2]  # where `ifguide` is imported from
_TAIL_LINES = 5
# as the installed command: nothing is imported from the folder that it is typed in
_VERB = "import sys; sys.path.pop(0); from ifguide.cli import main; raise SystemExit(main(sys.argv[1:]))"
_TETHER = """
import os, resource, signal, subprocess, sys, threading
def watch():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
code = subprocess.call(sys.argv[2:], stdin=subprocess.DEVNULL)
# asked here: what this process forked for the tether was as large as this process
os.write(int(sys.argv[1]), str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss).encode())
os._exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: from start to end.
        memory: bytes of the largest of its processes at its largest; None where the system does not say.
    """

    seconds: float
    memory: int | None


def verb_command(arguments: Sequence[str]) -> list[str]:
    """``ifguide VERB ...`` by the running interpreter."""
    return [sys.executable, "-c", _VERB, *arguments]


class Children:
    """The running commands of one job.

    Args:
        threads: CPU threads of each.
        without: variables of this process that they do not inherit.
    """

    def __init__(self, threads: int = 1, without: Sequence[str] = ()):
        self.threads, self.without = threads, without
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def run(
        self, command: Sequence[str], log: Path, name: str, say: Callable[[str], None] | None = None, what: str = ""
    ) -> Cost:
        """Run ``command`` with its output in ``log``.

        Args:
            name: stands before every line that is told.
            say: hears every line of the output.
            what: what a failure is told of; default ``name``.

        Raises:
            IFGuideError: it failed; ends with its last lines.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(_PACKAGES))))
        inherited = {key: value for key, value in os.environ.items() if key not in self.without}
        environment = inherited | {
            "OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1", "PYTHONPATH": path,
        }  # fmt: skip
        started = time.monotonic()
        heard, tells = os.pipe()
        with open(log, "w", encoding="utf-8") as record, open(heard, "rb") as memory_of:
            process = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", _TETHER, str(tells), *command], pass_fds=[tells],
                # Python imports from the current folder first, and the one of the logs holds no modules
                cwd=log.parent, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            os.close(tells)
            self._enter(process)
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    record.write(line)
                    if say is not None and line.strip():
                        say(f"  {name}: {line.rstrip()}")
                process.wait()
                memory = _bytes(memory_of.read())
            except BaseException:
                _release(process)
                process.wait()
                raise
            finally:
                self._leave(process)
        if process.returncode:
            said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            told = " | ".join(said[-_TAIL_LINES:]) or "it said nothing"
            raise IFGuideError(f"{what or name} failed (exit {process.returncode}, log {log}): {told}")
        return Cost(round(time.monotonic() - started, 2), memory)

    def end(self) -> None:
        """End all that run, and whatever is started from now on at once."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for process in running:
            _release(process)

    def _enter(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.add(process)
            ended = self._ended
        if ended:
            _release(process)

    def _leave(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.discard(process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _release(process: subprocess.Popen[str]) -> None:
    """Close the pipe, which ends the command and all of its processes."""
    if process.stdin is not None:
        process.stdin.close()


def _bytes(told: bytes) -> int | None:
    """What the system counts, in bytes; None where the command was ended before it was asked."""
    return int(told) * (1 if sys.platform == "darwin" else 1024) if told else None
