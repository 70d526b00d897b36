"""One part of a dependency that is used although it is not public or not settled, and what is expected of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

AS_EXPECTED, CHANGED, MISSING, NOT_INSTALLED = "as expected", "changed", "missing", "not installed"

# what the table was walked with, the oldest and the newest; None: it belongs to Python
TESTED: dict[str, tuple[str, str] | None] = {
    "argparse": None,
    "datasets": ("5.2.0", "5.2.0"),
    "deepspeed": ("0.19.8", "0.19.8"),
    "detoxify": ("0.5.4", "0.5.4"),
    "evaluate": ("0.4.6", "0.4.6"),
    "huggingface_hub": ("1.33.0", "2.4.0"),
    "kronfluence": ("1.0.1", "1.0.1"),
    "lm_eval": ("0.4.13", "0.4.13"),
    "megatron-core": ("0.16.1", "0.16.1"),
    "PyYAML": ("6.0.4", "6.0.4"),
    "transformers": ("5.0.0", "5.24.0"),
}


@dataclass(frozen=True)
class Use:
    """One part of a dependency.

    Attributes:
        dependency: the distribution, a key of `TESTED`.
        what: its dotted name.
        where: files of ours that use it.
        why: what for, and what is counted on.
        parameters: names that it must take, or that its constructor must.
        attributes: names that it must have.
        behaves: a small trial of the part; returns what is wrong, None if nothing is.
        of_instances: the last name of ``what`` is an attribute of instances alone, which ``behaves`` tries.
        loads: imports the part as we do where that is not a plain import; called before it is looked for.
    """

    dependency: str
    what: str
    where: tuple[str, ...]
    why: str
    parameters: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    behaves: Callable[[Any], str | None] | None = field(default=None, repr=False)
    of_instances: bool = False
    loads: Callable[[], Any] | None = field(default=None, repr=False)

    def find(self) -> Any:
        """The part itself, or the class whose instances have it.

        Raises:
            ImportError, AttributeError: it is not there.
        """
        if self.loads:
            self.loads()
        names = self.what.split(".")[: -1 if self.of_instances else None]
        for length in range(len(names), 0, -1):
            module = ".".join(names[:length])
            try:
                found: Any = importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                    raise  # it is there, but something that it needs is not
                continue
            for name in names[length:]:
                found = getattr(found, name)
            return found
        raise ImportError(f"no module {names[0]}")

    def state(self) -> tuple[str, str | None]:
        """`AS_EXPECTED`, `CHANGED`, `MISSING` or `NOT_INSTALLED`, and the reason."""
        if TESTED[self.dependency] is not None and version_of(self.dependency) is None:
            return NOT_INSTALLED, None
        try:
            found = self.find()
        except (ImportError, AttributeError) as error:
            return MISSING, str(error)
        reason = self._difference(found)
        return (CHANGED, reason) if reason else (AS_EXPECTED, None)

    def _difference(self, found: Any) -> str | None:
        try:
            takes = inspect.signature(found).parameters if self.parameters else {}
            for name in self.parameters:
                if name not in takes:
                    return f"it does not take {name}"
            for name in self.attributes:
                if not hasattr(found, name):
                    return f"it has no {name}"
            return self.behaves(found) if self.behaves else None
        except Exception as error:  # whatever a part that has changed does
            return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def version_of(dependency: str) -> str | None:
    """The installed version, None without one."""
    try:
        return importlib.metadata.version(dependency)
    except importlib.metadata.PackageNotFoundError:
        return None
