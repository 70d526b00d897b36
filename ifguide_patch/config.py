"""NeoX's configuration files, checked before anything starts: every fault at once, one line each."""

from __future__ import annotations

import difflib
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifguide.config.hints import TOKENIZER_FILES, tokenizer_hint, with_hint
from ifguide.config.yaml_files import merge_files, numbers_as_text
from ifguide.data.index_file import MAGIC
from ifguide.data.text.record import config_faults as tokenizer_faults
from ifguide.errors import ConfigError
from ifguide.objectives.keys import KEYS as OBJECTIVE_KEYS
from ifguide.penalties.hiding import action_faults
from ifguide.penalties.keys import KEYS
from ifguide_patch import cpu, told
from ifguide_patch.keys import neox_faults
from ifguide_patch.save import take_save
from ifguide_patch.scoring.keys import DEFAULTS as SCORE_DEFAULTS
from ifguide_patch.scoring.keys import KEYS as SCORE_KEYS
from ifguide_patch.scoring.keys import overrides, score_faults
from ifguide_patch.script import is_dry_run, is_scoring
from ifguide_patch.training.dataset import verify_masks

# the first bytes of an index -> the data_impl that reads it
_IMPLEMENTATIONS = {MAGIC[:8]: "mmap", b"TNTIDX\x00\x00": "cached"}

# what NeoX and its launcher raise on a configuration that they refuse
_REFUSALS = (AssertionError, ValueError, TypeError, KeyError, AttributeError)

# keys of ours that GPT-NeoX has no counterpart of
_EMBEDDED_ONLY = {"objective", *OBJECTIVE_KEYS}

# the keys that the checks of penalties, packing, tokenizers and masks read
_LOOKED_AT = {
    *KEYS, "data_path", "train_data_paths", "train_label_data_paths", "train_reward_data_paths", "train_impl",
    "dataset_impl", "data_impl", "pack_impl", "precompute_model_name", "valid_data_paths", "test_data_paths",
    "tokenizer_type", "vocab_file", "merge_file", "make_vocab_size_divisible_by", "model_parallel_size",
}  # fmt: skip


def from_ymls(original: Callable[..., Any]) -> Callable[..., Any]:
    """``NeoXArgs.from_ymls``: checks everything first, and on a CPU takes GPU kernels out.

    Raises:
        ConfigError: all faults of the files; or, where ours find none, what NeoX itself objects to.
        SystemExit: with code 0, of a dry run.
    """

    def checked(cls: Any, paths_to_yml_files: Sequence[str], overwrite_values: dict[str, Any] | None = None) -> Any:
        config, faults = merge_files([Path(path) for path in paths_to_yml_files])
        # what was not merged, or is of another type, cannot be looked at further
        readable = not faults
        for key, fault in _value_faults(cls, config):
            faults.append(fault)
            readable &= key not in _LOOKED_AT and key not in SCORE_KEYS
        implementation = None
        if readable:
            implementation, unlike = _inferred_data_impl(config)
            faults += unlike
            faults += [
                *neox_faults(config, config), *_pack_faults(config), *_tokenizer_faults(config),
                *tokenizer_faults(config), *action_faults(config), *verify_masks(config),
            ]  # fmt: skip
            faults += score_faults(config) if is_scoring() else []
        if faults:
            raise ConfigError(faults)
        take_save(config)
        values = dict(overwrite_values or {})
        if is_scoring():
            values = _for_scoring(config) | values
        if implementation:
            print(f"data_impl: {implementation}, as the files are; GPT-NeoX's own 'infer' opens none", flush=True)
            values = {"data_impl": implementation} | values
        if cpu.is_asked_for():
            changed = cpu.overrides(config)
            cpu.set_processes({**config, **changed}["num_gpus"])
            print(f"device cpu, a smoke test: {_listed(changed)}", flush=True)
            values |= changed
        try:
            made = original(cls, paths_to_yml_files, values)
        except ConfigError:
            raise
        except _REFUSALS as error:
            raise ConfigError([f"GPT-NeoX refuses the configuration: {_one_line(error)}"]) from error
        told.before(config)
        if is_dry_run():  # NeoX has made its arguments, and would hand them to DeepSpeed's launcher now
            print("dry run: everything was checked, nothing was started", flush=True)
            sys.exit(0)
        return made

    return checked


def _for_scoring(config: Mapping[str, Any]) -> dict[str, Any]:
    """What scoring changes of the configuration of a training.

    Raises:
        InputError: checkpoint, data, queries or factors cannot be used.
    """
    from ifguide_patch.scoring.setup import read_setup

    changed = overrides(config)
    read_setup({**SCORE_DEFAULTS, **config, **changed}, look=True)
    return changed


def _value_faults(neox_args: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Unknown keys, numbers that YAML reads as text, and values of another type than NeoX takes: (key, fault)."""
    fields = neox_args.__dataclass_fields__
    for key, value in config.items():
        as_text = list(numbers_as_text(key, value))
        yield from ((key, fault) for fault in as_text)
        if key not in fields and key in _EMBEDDED_ONLY:
            yield key, f"{key}: the neox engine cannot do it; the embedded engine can" + _own_dpo(key, value)
        elif key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            yield key, f"{key}: unknown key" + (f"; did you mean '{near[0]}'?" if near else "")
        elif not as_text and not _fits(value, fields[key].type):
            yield key, f"{key}: expected {_describe(fields[key].type)}, got {value!r} ({type(value).__name__})"


def _own_dpo(key: str, value: Any) -> str:
    return "; GPT-NeoX's own is train_impl: dpo" if key == "objective" and value == "dpo" else ""


def _fits(value: Any, expected: Any) -> bool:
    """NeoX's own rule (``NeoXArgs.validate_types``): exact types, an int for a float, choices without case."""
    if value is None or type(value) is expected or (type(value) is int and expected is float):
        return True
    if typing.get_origin(expected) is typing.Literal:
        choices = typing.get_args(expected)
        return value in choices or str(value).lower() in [str(one).lower() for one in choices]
    return typing.get_origin(expected) is typing.Union and type(value) in typing.get_args(expected)


def _describe(expected: Any) -> str:
    if typing.get_origin(expected) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(expected))
    if typing.get_origin(expected) is typing.Union:
        return " or ".join(one.__name__ for one in typing.get_args(expected) if one is not type(None))
    return getattr(expected, "__name__", str(expected))


def _pack_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """NeoX crashes in the middle of building its index here."""
    plain = (config.get("train_impl") or "normal") == "normal"
    if plain and config.get("pack_impl") == "unpacked" and not config.get("train_label_data_paths"):
        yield "pack_impl: GPT-NeoX builds unpacked samples only with train_label_data_paths"


def _tokenizer_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Files that are not there: every rank would find out, in its own traceback."""
    kind = str(config.get("tokenizer_type") or "").lower()
    files = {name.lower(): files for name, files in TOKENIZER_FILES.items()}
    for key, names in files.get(kind, {}).items():
        path = config.get(key)
        if isinstance(path, str) and not Path(path).is_file():
            yield with_hint(f"{key}: {path} does not exist or is not a file", tokenizer_hint(path, names))


def _inferred_data_impl(config: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """What ``data_impl: infer``, NeoX's default, has to become, and faults.

    NeoX looks at the files for it and then opens none of them: every rank dies where it builds its datasets.
    None where the configuration says otherwise, or names no dataset that is there.
    """
    if (config.get("data_impl") or "infer") != "infer":
        return None, []
    found: dict[str, str] = {}
    for key, value in config.items():
        if key.endswith(("data_path", "data_paths")) and "penalty" not in key:
            for prefix in value if isinstance(value, list) else [value]:
                if isinstance(prefix, str) and (kind := _implementation_of(prefix)):
                    found.setdefault(kind, f"{key} {prefix}")
    if len(found) > 1:
        named = " and ".join(f"{prefix} ({kind})" for kind, prefix in found.items())
        return None, [f"data_impl: one value reads all datasets, and these need two: {named}; preprocess again"]
    return next(iter(found), None), []


def _implementation_of(prefix: str) -> str | None:
    """The data_impl that reads the dataset; None where there is none, or it is of no known kind."""
    try:
        with open(f"{prefix}.idx", "rb") as stream:
            return _IMPLEMENTATIONS.get(stream.read(8))
    except OSError:
        return None


def _listed(changed: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in changed.items())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
