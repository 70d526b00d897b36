"""Each key of GPT-NeoX has one fate, and its neutral value is one that changes nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_type_hints

from ifguide.config.neox_keys import DERIVED, HARMLESS, NEOX_CHOICES, NEOX_ONLY
from ifguide.engine.arguments import TrainConfig

KEYS = {one.name for one in fields(TrainConfig)}


def test_a_key_is_in_one_table() -> None:
    """In two of them, which one holds would depend on the order of the questions."""
    tables = [KEYS, HARMLESS, NEOX_ONLY.keys(), DERIVED.keys(), {"attention_config"}]
    for place, table in enumerate(tables):
        for other in tables[place + 1 :]:
            assert not set(table) & set(other)


def test_what_a_derived_key_points_to_can_be_set() -> None:
    for key, instead in DERIVED.items():
        assert instead.split(".")[0] in KEYS, key


def test_a_key_that_is_not_set_is_neutral() -> None:
    """None is how a YAML leaves a key open; the sizes of a parallel run have no such value."""
    for key, neutral in NEOX_ONLY.items():
        assert None in neutral or neutral == (0, 1), key


def test_choices_of_neox_alone_are_not_ours_too() -> None:
    hints = get_type_hints(TrainConfig)
    for key, theirs in NEOX_CHOICES.items():
        ours = {
            word for part in (hints[key], *get_args(hints[key])) for word in get_args(part) if isinstance(word, str)
        }
        assert ours and not ours & theirs, key
