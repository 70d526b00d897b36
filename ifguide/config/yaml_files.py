"""NeoX-style configuration files: several YAML files that together set each key once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ifguide.config.hints import with_hint, yaml_hint
from ifguide.errors import ConfigError

# what YAML 1.1 takes for text although its writer meant a number: 1e-8, 6E-4, .5e3
_NUMBER_AS_TEXT = re.compile(r"^[-+]?(\d+|\d*\.\d*)[eE][-+]?\d+$")


def config_paths(names: Sequence[str], folder: str | None = None) -> list[Path]:
    """The files that ``names`` mean, as NeoX reads its command line: below ``folder``, `.yml` may be left out.

    A file that is not there and is in the current folder is that one.
    """
    return [fallback(name, folder) or Path(folder or "", _with_suffix(name)) for name in names]


def fallback(name: str, folder: str | None) -> Path | None:
    """The file ``name`` of the current folder, where it stands for one that is not in ``folder``; else None."""
    here = Path(_with_suffix(name))
    return here if folder and here.is_file() and not Path(folder, here).is_file() else None


def _with_suffix(name: str) -> str:
    return name if Path(name).suffix in (".yml", ".yaml", ".json") else f"{name}.yml"


class _Loader(yaml.SafeLoader):
    """SafeLoader that remembers keys given twice in one mapping (YAML would keep the last silently)."""

    repeated: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if isinstance(key, str) and key in seen:
                self.repeated.append(f"{key} (line {key_node.start_mark.line + 1})")
            seen.add(key if isinstance(key, str) else str(key))
        return super().construct_mapping(node, deep)


def merge_files(paths: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """All files as one mapping, `-` in keys read as `_`, and the faults met on the way.

    Raises:
        ConfigError: a file has no content; every key that it should hold would be reported as missing.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    faults: list[str] = []
    names: dict[str, Path] = {}
    unread = False
    for path in paths:
        if path.name in names:
            faults.append(f"{path}: has the same file name as {names[path.name]}; rename one")
        names[path.name] = path
        content, problem = _read(path)
        faults += problem
        unread |= bool(problem and not content)
        for key, value in content.items():
            key = str(key).replace("-", "_")
            if key in origin:
                faults.append(f"{path}: key '{key}' is already set in {origin[key]}")
                continue
            merged[key], origin[key] = value, path
    if unread:
        raise ConfigError(faults)
    return merged, faults


def key_lines(keys: Mapping[str, Any]) -> list[str]:
    """Each of ``keys`` as GPT-NeoX's own files write it, which are YAML in the form of JSON: ``"key": value,``."""
    return [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in keys.items()]


def _read(path: Path) -> tuple[Mapping[Any, Any], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, [with_hint(f"{path}: does not exist", yaml_hint(path))]
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{path}: cannot be read ({error})"]
    loader = _Loader(text)
    loader.repeated = []
    try:
        content = loader.get_single_data()
    except yaml.YAMLError as error:
        return {}, [f"{path}: not valid YAML: {' '.join(str(error).split())}"]
    finally:
        loader.dispose()
    repeated = [f"{path}: key '{key}' appears twice" for key in loader.repeated]
    if content is None:
        return {}, [f"{path}: is empty"]
    if not isinstance(content, dict):
        return {}, [f"{path}: must hold `key: value` lines, not {type(content).__name__}"]
    return content, repeated


def numbers_as_text(key: str, value: Any) -> Iterable[str]:
    """Faults for numbers that YAML 1.1 read as text, at any depth."""
    if isinstance(value, str) and _NUMBER_AS_TEXT.match(value):
        yield f"{key}: YAML reads {value} as text, not as a number; write {_with_point(value)}"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from numbers_as_text(f"{key}.{name}", item)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from numbers_as_text(f"{key}[{position}]", item)


def _with_point(number: str) -> str:
    """1e-8 -> 1.0e-8, 1e5 -> 1.0e+5: the form that YAML 1.1 takes for a float."""
    mantissa, exponent = re.split("[eE]", number)
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"
