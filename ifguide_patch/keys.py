"""The keys of IF-Guide as NeoX arguments: typed, documented, checked, carried to every worker."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from ifguide.errors import ConfigError
from ifguide.penalties.keys import PenaltyKeys, mask_key, mask_pairs, penalty_faults
from ifguide_patch.journal import Journal
from ifguide_patch.scoring.keys import ScoreKeys
from ifguide_patch.script import is_scoring

# their losses are not a cross-entropy of the next token, so (M4) says nothing about them
_OTHER_OBJECTIVES = ("dpo", "rm", "kto", "reinforce")


def neox_faults(config: Any, given: Any = None) -> Iterator[str]:
    """What is wrong with the penalty keys of ``config``: a mapping of all keys of a NeoX configuration.

    Args:
        given: the keys that the YAML files name, where that is known.
    """
    yield from penalty_faults(config, given)
    if not mask_pairs(config):
        return
    key = mask_key(config)
    if config.get("train_impl") in _OTHER_OBJECTIVES:
        yield f"{key}: a penalty acts on cross-entropy; train_impl {config['train_impl']} has another loss"
    if (config.get("dataset_impl") or "gpt2") != "gpt2":
        yield f"{key}: needs dataset_impl gpt2, got {config['dataset_impl']}"
    if (config.get("data_impl") or "infer") not in ("mmap", "infer"):
        yield f"{key}: needs data_impl mmap (a mask is read by offset), got {config['data_impl']}"
    for other in ("train_reward_data_paths", "precompute_model_name"):
        if config.get(other):
            yield f"{other}: cannot be combined with {key}"


def add_keys(journal: Journal, module: Any) -> None:
    """Make `PenaltyKeys`, and for ``score.py`` `ScoreKeys`, groups of keys that ``NeoXArgs`` is composed of.

    ``module`` is ``megatron.neox_arguments.arguments``. The dataclass decorator leaves an existing
    ``__init__`` alone, so the methods it made have to go before it makes them anew with our fields.
    """
    neox_args = module.NeoXArgs
    # every group derives from NeoXArgsTemplate, which `module` itself does not name
    template = module.NeoXArgsTraining.__mro__[1]
    groups = [neox_group(template)]
    if is_scoring():
        groups.append(neox_group(template, ScoreKeys, "NeoXArgsIFGuideScoring"))
    journal.set(module, "BASE_CLASSES", [*module.BASE_CLASSES, *groups])
    journal.set(module, "NEOX_ARG_CLASSES", [*module.NEOX_ARG_CLASSES, *groups])
    journal.set(neox_args, "__bases__", (*neox_args.__bases__, *groups))
    for name in ("__init__", "__repr__", "__eq__", "__match_args__", "__dataclass_fields__"):
        journal.set(neox_args, name, vars(neox_args)[name])
        delattr(neox_args, name)
    dataclasses.dataclass(neox_args)


def validate_values(original: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """``NeoXArgs.validate_values``, and the penalty keys: for configurations that never met the launcher."""

    def validated(self: Any) -> bool:
        faults = list(neox_faults(vars(self)))
        if faults:
            raise ConfigError(faults)
        return original(self)

    return validated


def neox_group(template: type, ours: Any = PenaltyKeys, name: str = "NeoXArgsIFGuide") -> type:
    """The dataclass ``ours`` as one of NeoX's kind, with annotations that ``validate_types`` can read."""
    hints = typing.get_type_hints(ours)
    keys = [(field.name, neox_type(hints[field.name]), field.default) for field in dataclasses.fields(ours)]
    return dataclasses.make_dataclass(name, keys, bases=(template,))


def neox_type(hint: Any) -> Any:
    """An annotation as NeoX checks it: plain types, ``Literal`` and ``typing.Union`` only.

    NeoX lets every key be None and takes an int for ``float``, but not for an optional float; lists
    are not looked into.
    """
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return typing.get_origin(hint) if typing.get_origin(hint) is list else hint
    inner = tuple(neox_type(one) for one in typing.get_args(hint) if one is not type(None))
    return typing.Union[inner]  # noqa: UP007 (the form that NeoX looks into; of one type it is that type)
