"""Specs that name no scorer."""

from __future__ import annotations

import pytest

from ifguide.errors import InputError
from ifguide.scorers.registry import load_scorer


@pytest.mark.parametrize(
    "spec",
    ["", "hf", "hf:", "linear:", "perspective:x", "some/model", "lexicon:x", "detoxify:", "detoxify:unbiased@",
     "toxigen-roberta@", "toxigen-roberta:x"],
)  # fmt: skip
def test_unknown_specs(spec: str) -> None:
    with pytest.raises(InputError, match="is not known"):
        load_scorer(spec)


@pytest.mark.parametrize("spec", ["hf:some-org/some-model", "linear:/nowhere"])
def test_missing_folders(spec: str) -> None:
    with pytest.raises(InputError, match=r"not a folder|does not exist"):
        load_scorer(spec)


@pytest.mark.parametrize("spec", ["perspective", "perspective:KEY", "Perspective:x"])
def test_perspective_says_what_to_use_instead(spec: str) -> None:
    with pytest.raises(InputError, match=r"closes at the end of 2026.*detoxify:unbiased.*guard:FOLDER.*python:MODULE"):
        load_scorer(spec)
