"""An option is stated once: as a field of a dataclass that says its default, its text and what it names.

    @dataclass(frozen=True, kw_only=True)
    class Generate:
        model: str = option(help="Hugging Face folder", metavar="DIR", kind="input")
        sampling: Sampling = part(Sampling)
        batch_size: int = option(16, help="rows at once (default: 16)", metavar="B", kind="cost")

`add_options` fills a parser from the fields, `options_of` makes the dataclass from the parsed arguments, and `named`
says which options name inputs and outputs, and which change only the cost. The flag is the field's name and the type
is its annotation: `bool` is a switch, a sequence takes several words, ``T | None`` is a T that may be left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, TypeVar

Kind = Literal["setting", "input", "output", "scorer", "cost"]
T = TypeVar("T")

_KEY = "ifguide option"


@dataclass(frozen=True)
class Named:
    """What the options of a command name, by their names in its parsed arguments.

    Attributes:
        inputs: files, folders or datasets that are read, or lists of them.
        outputs: where the products go.
        words: input -> how many words of each of its lists come before the paths.
        scorers: the spec of a scorer, which may name a folder.
        costs: what changes no product, only what it takes.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    words: Mapping[str, int] = field(default_factory=dict)
    scorers: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Option:
    help: str
    kind: Kind
    flags: tuple[str, ...]
    group: str | None
    one_of: str | None
    words: int
    keywords: dict[str, Any]


@dataclass(frozen=True)
class _Part:
    options: type
    prefix: str
    group: str | None
    texts: Mapping[str, str]


@dataclass(frozen=True)
class _Stated:
    """One option, as a command has it: ``name`` is its field, ``dest`` where the parsed arguments keep it."""

    name: str
    flags: tuple[str, ...]
    dest: str
    option: _Option
    default: Any
    hint: Any


def option(
    default: Any = MISSING,
    *,
    help: str,
    metavar: str | tuple[str, ...] | None = None,
    kind: Kind = "setting",
    flags: Sequence[str] = (),
    group: str | None = None,
    one_of: str | None = None,
    words: int = 0,
    **keywords: Any,
) -> Any:
    """A field that is an option of a command.

    Args:
        default: without one the option must be given. Of a switch, what it is until the switch is given.
        help: its line in ``--help``.
        kind: ``input`` and ``output`` name files, ``scorer`` a scorer, ``cost`` changes no product.
        flags: instead of the field's name; the first is where the parsed arguments keep it. One without dashes is the
            name of a positional argument.
        group: the heading that it stands under.
        one_of: options of one class with the same word here exclude each other. A default holds where none of them is
            given; where none has a default, one must be given. Those that are not given are None.
        words: of each list, how many words come before the paths.
        keywords: of `argparse.ArgumentParser.add_argument` (``choices``, ``nargs``, ``action``, ``type``).
    """
    if metavar is not None:
        keywords["metavar"] = metavar
    metadata = {_KEY: _Option(help, kind, tuple(flags), group, one_of, words, keywords)}
    return _field(default, metadata)


def same_as(options: type, name: str, *, help: str | None = None) -> Any:
    """A field that is the option ``name`` of another dataclass once more, with the text ``help`` where it differs."""
    (first,) = (one for one in dataclasses.fields(options) if one.name == name)
    about = first.metadata[_KEY]
    return _field(first.default, {_KEY: about if help is None else dataclasses.replace(about, help=help)})


def part(
    options: type,
    *,
    prefix: str = "",
    group: str | None = None,
    texts: Mapping[str, str] | None = None,
) -> Any:
    """A field that is a dataclass of options, which are options of the command too.

    Args:
        prefix: before each of their names.
        group: the heading that those stand under that have none of their own.
        texts: option -> its line in ``--help``, where the command has more or less to say.
    """
    metadata = {_KEY: _Part(options, prefix, group, texts or {})}
    required = any(one.default is MISSING and one.default_factory is MISSING for one in dataclasses.fields(options))
    return field(metadata=metadata) if required else field(default_factory=options, metadata=metadata)


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """The options of the dataclass ``options``, in the order of its fields."""
    groups: dict[str | None, Any] = {None: parser}
    exclusive: dict[tuple[str | None, str], Any] = {}
    for stated in _all(options):
        about = stated.option
        if about.group not in groups:
            groups[about.group] = parser.add_argument_group(about.group)
        place = groups[about.group]
        if about.one_of:
            key = (about.group, about.one_of)
            if key not in exclusive:
                exclusive[key] = place.add_mutually_exclusive_group(required=stated.default is MISSING)
            place = exclusive[key]
        place.add_argument(*stated.flags, help=about.help, **_keywords(stated))


def options_of(args: argparse.Namespace, options: type[T]) -> T:
    """The dataclass ``options`` of parsed arguments.

    Raises:
        InputError: what the dataclass itself refuses.
    """
    return _made(vars(args), options, "")


def given(args: argparse.Namespace, options: type, field_name: str = "") -> list[str]:
    """The flags, of all options or of the part ``field_name``, whose values are not their defaults."""
    return [
        stated.flags[0]
        for stated in _all(options)
        if field_name in ("", stated.name.partition(".")[0]) and getattr(args, stated.dest) != _parsed_default(stated)
    ]


def named(options: type) -> Named:
    """What the options of the dataclass ``options`` name."""
    kinds: dict[str, list[str]] = {}
    words = {}
    for stated in _all(options):
        kinds.setdefault(stated.option.kind, []).append(stated.dest)
        if stated.option.words:
            words[stated.dest] = stated.option.words
    inputs, outputs, scorers, costs = (tuple(kinds.get(kind, ())) for kind in ("input", "output", "scorer", "cost"))
    return Named(inputs, outputs, words, scorers, costs)


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def _all(options: type, prefix: str = "", group: str | None = None, above: str = "") -> Iterator[_Stated]:
    """Every option of ``options`` and of its parts, in order."""
    hints = typing.get_type_hints(options)
    for one in dataclasses.fields(options):
        about = one.metadata.get(_KEY)
        name = f"{above}{one.name}"
        if isinstance(about, _Part):
            for stated in _all(about.options, prefix + about.prefix, about.group or group, f"{name}."):
                inner = stated.name.removeprefix(f"{name}.")
                text = about.texts.get(inner, stated.option.help)
                yield dataclasses.replace(stated, option=dataclasses.replace(stated.option, help=text))
        elif isinstance(about, _Option):
            flags = _flags(one.name, about, prefix)
            yield _Stated(
                name, flags, _dest(flags), dataclasses.replace(about, group=about.group or group), one.default,
                hints[one.name],
            )  # fmt: skip


def _flags(name: str, about: _Option, prefix: str) -> tuple[str, ...]:
    names = about.flags or (f"--{name.replace('_', '-')}",)
    return tuple(f"--{prefix}{flag.removeprefix('--')}" if flag.startswith("-") else flag for flag in names)


def _dest(flags: Sequence[str]) -> str:
    """As argparse names it."""
    return flags[0].lstrip("-").replace("-", "_")


def _keywords(stated: _Stated) -> dict[str, Any]:
    """Of `add_argument`, from the field's annotation and default, where the option does not state them."""
    keywords: dict[str, Any] = dict(stated.option.keywords)
    if stated.default is MISSING and not stated.option.one_of:
        if stated.flags[0].startswith("-"):  # argparse itself asks for a positional argument
            keywords["required"] = True
    elif stated.default is not MISSING:
        keywords["default"] = _parsed_default(stated)
    hint = _without_none(stated.hint)
    if hint is bool:
        return {"action": "store_true", **keywords}
    while typing.get_origin(hint) is not None:
        if "action" not in keywords:
            keywords.setdefault("nargs", "+")
        hint = _without_none(typing.get_args(hint)[0])
    if hint is not str and "type" not in keywords:
        keywords["type"] = hint
    return keywords


def _parsed_default(stated: _Stated) -> Any:
    """What a parser holds where an option is not given: a switch is off, a list is a new one."""
    if _without_none(stated.hint) is bool:
        return None if stated.default is None else False
    if stated.default is MISSING or stated.option.one_of:
        return None
    return list(stated.default) if isinstance(stated.default, tuple) else stated.default


def _without_none(hint: Any) -> Any:
    """T of ``T | None``."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kept = [one for one in typing.get_args(hint) if one is not type(None)]
        return kept[0]
    return hint


def _made(values: Mapping[str, Any], options: type[T], prefix: str) -> T:
    filled: dict[str, Any] = {}
    chosen = set()  # of what excludes each other: the words of which one is given
    fields = dataclasses.fields(typing.cast(Any, options))
    for one in fields:
        about = one.metadata.get(_KEY)
        if isinstance(about, _Part):
            filled[one.name] = _made(values, about.options, prefix + about.prefix)
        elif isinstance(about, _Option):
            value = values[_dest(_flags(one.name, about, prefix))]
            # the flag of what is on by default switches it off
            filled[one.name] = not value if one.default is True else value
            if about.one_of and value is not None:
                chosen.add(about.one_of)
    for one in fields:
        about = one.metadata.get(_KEY)
        excluding = isinstance(about, _Option) and about.one_of
        if excluding and excluding not in chosen and one.default is not MISSING:
            filled[one.name] = one.default
    return options(**filled)
