"""Names and folders of several models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ifguide.errors import ConfigError
from ifguide.models.named import named_models


def test_a_folder_has_its_own_name_if_none_is_given() -> None:
    assert named_models(["x=a/b", "a/c", "y=a=b"]) == [("x", Path("a/b")), ("c", Path("a/c")), ("y", Path("a=b"))]
    assert named_models(["."]) == [(Path.cwd().name, Path())]


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        named_models(["=a", "b=", f"a{os.sep}b=c", ".hidden=d", "x=1", "x=2", "x=3"])
    *names, twice = error.value.faults
    assert [name.partition(":")[0] for name in names] == [
        "--models =a",
        "--models b=",
        "--models a/b=c",
        "--models .hidden=d",
    ]
    assert twice == "--models: 3 models are named 'x'; give each a name of its own, NAME=DIR"
