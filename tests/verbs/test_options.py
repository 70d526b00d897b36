"""An option is stated once, and the parser, what a command names, and the settings are filled from that."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from ifguide.config.options import Named, add_options, given, named, option, options_of, part, same_as
from ifguide.errors import InputError
from ifguide.verbs import VERBS, make_parser, module_of


@dataclass(frozen=True)
class Inner:
    size: int = option(3, metavar="N", help="how large (default: 3)")
    hidden: int = 7
    exact: bool = option(True, flags=["--coarse"], help="less exactly")
    share: float | None = option(0.5, one_of="budget", help="as a share (default: 0.5)")
    count: int | None = option(None, one_of="budget", help="as a number")

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"--size {self.size}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Outer:
    source: Path = option(metavar="FILE", kind="input", help="what to read")
    output: str = option(metavar="DIR", kind="output", help="what to write")
    parts: Sequence[Sequence[str]] = option(
        (), nargs="+", action="append", metavar=("NAME F", "F"), kind="input", words=1, help="a name and its files"
    )
    names: Sequence[str] | None = option(None, group="more", help="several")
    scorer: str | None = option(None, kind="scorer", group="more", help="a scorer")
    rows: int = option(16, kind="cost", help="rows at once (default: 16)")
    size: int = same_as(Inner, "size", help="another text")
    inner: Inner = part(Inner, prefix="in-", group="inside", texts={"count": "the number"})


@dataclass(frozen=True)
class Positional:
    one: str = option(flags=["first"], metavar="FILE", kind="input", help="what comes first")
    others: Sequence[str] = option(flags=["rest"], metavar="REST", kind="input", help="what comes after it")
    last: str | None = option(None, help="a flag among them")


def parse(*words: str, options: type = Outer) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, options)
    return parser.parse_args(words)


NEEDED = ("--source", "s", "--output", "o")


def test_defaults_are_those_of_the_dataclass() -> None:
    assert options_of(parse(*NEEDED), Outer) == Outer(source=Path("s"), output="o", parts=[])
    assert options_of(parse(*NEEDED), Outer).inner == Inner()


def test_every_kind_of_value_comes_through() -> None:
    words = ("--parts", "x", "a", "b", "--parts", "y", "c", "--names", "p", "q", "--rows", "2", "--size", "9",
             "--in-size", "4", "--in-coarse", "--scorer", "lexicon")  # fmt: skip
    found = options_of(parse(*NEEDED, *words), Outer)
    assert found == Outer(
        source=Path("s"), output="o", parts=[["x", "a", "b"], ["y", "c"]], names=["p", "q"], rows=2, size=9,
        scorer="lexicon", inner=Inner(size=4, exact=False),
    )  # fmt: skip


def test_a_list_is_not_shared_between_calls() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Outer)
    first = parser.parse_args([*NEEDED, "--parts", "x", "a"])
    assert parser.parse_args(NEEDED).parts == [] and first.parts == [["x", "a"]]


def test_of_what_excludes_each_other_the_default_holds_only_alone(capsys: Any) -> None:
    assert options_of(parse(*NEEDED, "--in-count", "5"), Outer).inner == Inner(share=None, count=5)
    assert options_of(parse(*NEEDED, "--in-share", "0"), Outer).inner == Inner(share=0.0)
    with pytest.raises(SystemExit):
        parse(*NEEDED, "--in-count", "5", "--in-share", "0.1")
    assert "not allowed with" in capsys.readouterr().err


def test_one_of_several_may_be_required(capsys: Any) -> None:
    @dataclass(frozen=True)
    class Either:
        masks: Sequence[str] | None = option(one_of="what", help="masks")
        scores: Sequence[str] | None = option(one_of="what", help="scores")

    # `get_type_hints` looks for names in the module
    assert options_of(parse("--scores", "a", options=Either), Either) == Either(None, ["a"])
    with pytest.raises(SystemExit):
        parse(options=Either)
    assert "one of the arguments --masks --scores is required" in capsys.readouterr().err


def test_a_flag_without_dashes_is_positional(capsys: Any) -> None:
    found = options_of(parse("a", "--last", "z", "b", "c", options=Positional), Positional)
    assert found == Positional("a", ["b", "c"], "z")
    assert named(Positional) == Named(inputs=("first", "rest"))
    with pytest.raises(SystemExit):
        parse("a", options=Positional)
    assert "required: REST" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--source", "--output"])
def test_what_has_no_default_must_be_given(missing: str, capsys: Any) -> None:
    place = NEEDED.index(missing)
    with pytest.raises(SystemExit):
        parse(*NEEDED[:place], *NEEDED[place + 2 :])
    assert f"required: {missing}" in capsys.readouterr().err


def test_what_the_dataclass_refuses_is_bad_input() -> None:
    with pytest.raises(InputError, match="--size 0: must be at least 1"):
        options_of(parse(*NEEDED, "--in-size", "0"), Outer)


def test_what_options_name() -> None:
    assert named(Outer) == Named(("source", "parts"), ("output",), {"parts": 1}, ("scorer",), ("rows",))
    assert named(Inner) == Named()


def test_the_flags_that_were_given() -> None:
    args = parse(*NEEDED, "--in-coarse", "--in-count", "3", "--rows", "16", "--parts", "x", "a")
    assert given(args, Outer) == ["--source", "--output", "--parts", "--in-coarse", "--in-count"]
    assert given(args, Outer, "inner") == ["--in-coarse", "--in-count"]
    assert given(parse(*NEEDED), Outer, "inner") == []


def test_help_keeps_the_order_the_headings_and_the_texts() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Outer)
    text = parser.format_help()
    places = [text.index(f"\n  {flag}") for flag in ("--source", "--output", "--parts", "--rows", "--size")]
    assert places == sorted(places)
    assert text.index("\nmore:") < text.index("\n  --names") < text.index("\ninside:") < text.index("\n  --in-size")
    assert "another text" in text and "how large (default: 3)" in text and "the number" in text
    assert "hidden" not in text and "as a number" not in text


def _values(asked: Any) -> dict[str, Any]:
    """Of its fields; a parser's list is the dataclass's tuple."""
    found = {one.name: getattr(asked, one.name) for one in fields(asked)}
    found = {name: _values(value) if is_dataclass(value) else value for name, value in found.items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _some_value(action: argparse.Action) -> str:
    return str(next(iter(action.choices or ("1" if action.type in (int, float) else "x"))))


STATED = [verb for verb in VERBS if hasattr(module_of(verb), "OPTIONS")]


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_states_an_option_in_its_parser(verb: str) -> None:
    """What the dataclass does not say is the same for many verbs, and the launcher's --local_rank."""
    parser = make_parser(verb)
    stated = argparse.ArgumentParser()
    if verb in STATED:
        add_options(stated, module_of(verb).OPTIONS)
    more = {action.dest for action in parser._actions} - {action.dest for action in stated._actions}
    assert more <= {"json", "quiet", "log", "overwrite", "local_rank"}
    assert verb in STATED or verb == "tasks-path", "which has no options"


@pytest.mark.parametrize("verb", STATED)
def test_a_verb_without_options_is_what_its_dataclass_says(verb: str) -> None:
    """No default is stated a second time: the dataclass of the required options alone equals the parsed one."""
    options = module_of(verb).OPTIONS
    parser = make_parser(verb)
    one_of = [group._group_actions for group in parser._mutually_exclusive_groups if group.required]
    required = [action for action in parser._actions if action.required] + [first for first, *_ in one_of]
    words = [word for action in required for word in (*action.option_strings[:1], _some_value(action))]
    found = options_of(parser.parse_args(words), options)
    needed = [one.name for one in fields(options) if one.default is MISSING and one.default_factory is MISSING]
    by_hand = options(**{name: getattr(found, name) for name in needed})
    assert _values(found) == _values(by_hand)


@pytest.mark.parametrize("verb", [verb for verb in STATED if hasattr(module_of(verb), "WRITES")])
def test_what_a_verb_writes_is_told_by_its_options(verb: str) -> None:
    module = module_of(verb)
    assert module.WRITES.named == named(module.OPTIONS)
    assert module.WRITES.named.outputs or verb == "import-mask", "which writes beside its input"


def test_scoring_says_of_a_mask_what_building_it_says() -> None:
    """The cascade's options are those of build-mask, with the same defaults."""
    mask = {action.dest: action.default for action in make_parser("build-mask")._actions}
    score = {action.dest: action.default for action in make_parser("score")._actions}
    for name in ("threshold_quantile", "window", "max_fraction", "max_tokens", "unit_tokens", "include_eod"):
        assert score[f"cascade_{name}"] == mask[name], name
