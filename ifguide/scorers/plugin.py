"""A function of the user's own as a scorer: ``python:MODULE:FUNCTION``.

The function takes a list of texts and returns one probability of being toxic a text: a list or an array of numbers in
[0, 1]. MODULE is looked for where Python looks, and then in the current folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError, NumericsError, first_line
from ifguide.scorers.base import Scorer
from ifguide.system.files import hash_file, hash_value

_FORM = "python:MODULE:FUNCTION, a function from a list of texts to one probability a text"


class PluginScorer(Scorer):
    """One label, ``toxicity``. The function runs as it is, with all that it may do.

    Args:
        place: ``MODULE:FUNCTION``.

    Raises:
        InputError: not of this form, a module that cannot be found or imported, or no function of that name.
    """

    labels = ("toxicity",)

    def __init__(self, place: str):
        module, function = _parts(place)
        self.name = f"python:{place}"
        self._function = _load(self.name, module, function)
        self._fingerprint = _identity(self.name, module, self._function)

    def fingerprint(self) -> str | None:
        """Hash of the source file of the module, and of the file that the function stands in where that is another."""
        return self._fingerprint

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        return {"toxicity": _numbers(self.name, self._function(list(texts)))}


def source_of(place: str) -> Path | None:
    """The file of the module in ``MODULE:FUNCTION``, without running it; None where there is none."""
    try:
        module, _ = _parts(place)
        _look_here()
        found = importlib.util.find_spec(module)
    except Exception:  # a package that cannot be imported: loading the scorer says so
        return None
    return Path(found.origin) if found and found.has_location and found.origin else None


def _parts(place: str) -> tuple[str, str]:
    module, colon, function = place.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), function)):
        raise InputError(f"scorer 'python:{place}': give {_FORM}")
    return module, function


def _look_here() -> None:
    """Let modules of the current folder be found, after all others, also those that a function imports later."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def _load(name: str, module: str, function: str) -> Callable[[list[str]], Any]:
    _look_here()
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # the module itself or a package around it; else it is one that the module imports
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"scorer {name}: there is no module '{error.name}'; put its folder into PYTHONPATH, or start the "
                "command there"
            ) from error
        raise InputError(f"scorer {name}: module '{module}' imports '{error.name}', which is not there") from error
    except (Exception, SystemExit) as error:  # it is the user's code that runs
        raise InputError(
            f"scorer {name}: module '{module}' cannot be imported: {type(error).__name__}: {_line(error)}"
        ) from error
    if not hasattr(found, function):
        raise InputError(f"scorer {name}: module '{module}' ({_file(found)}) has no '{function}'")
    called = getattr(found, function)
    if not callable(called) or isinstance(called, type):
        what = "a class" if isinstance(called, type) else f"a {type(called).__name__}"
        raise InputError(f"scorer {name}: '{function}' of '{module}' is {what}; give {_FORM}")
    return called


def _identity(name: str, module: str, function: Callable[..., Any]) -> str:
    file = _file(sys.modules[module])
    if file is None or not Path(file).is_file():
        raise InputError(f"scorer {name}: module '{module}' has no source file that results could be told apart by")
    try:
        defined = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # an object that can be called, or a function in C
        defined = None
    files = dict.fromkeys([file, *([defined] if defined and Path(defined).is_file() else [])])
    hashes = [hash_file(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hash_value(hashes)


def _numbers(name: str, result: Any) -> np.ndarray:
    """The result as an array of numbers; shape and range are for `Scorer.score` to check."""
    wanted = "it must return one number from 0 to 1 a text, as a list or an array"
    try:
        values = np.asarray(result)
    except Exception as error:  # ragged lists, tensors on a device: each library has its own
        raise NumericsError(
            f"scorer {name} returned a {type(result).__name__} that is no array of numbers ({_line(error)}); {wanted}"
        ) from error
    if values.size and values.dtype.kind not in "fiu":
        what = f"a {type(result).__name__}"
        if values.ndim:
            strange = next(one for one in values.ravel().tolist() if not _is_number(one))
            what += f" with {strange!r:.40} in it, a {type(strange).__name__}"
        raise NumericsError(f"scorer {name} returned {what}; {wanted}")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _file(module: Any) -> str | None:
    return getattr(module, "__file__", None)


def _line(error: BaseException) -> str:
    return first_line(error)
