"""Factors on disk: what does not belong together is refused."""

from __future__ import annotations

import json

import pytest

from ifguide.errors import InputError
from ifguide.influence.curvature.job import fit_factors
from ifguide.influence.curvature.store import load_factors
from ifguide.influence.options import FitOptions


def test_other_files_are_refused(tmp_path, model_folders, dataset):
    fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", FitOptions(strategy="identity"), quiet=True)
    record = json.loads((tmp_path / "f/factors.json").read_text())
    (tmp_path / "f/factors.json").write_text(json.dumps({**record, "tensors": "0" * 64}))
    with pytest.raises(InputError, match="run fit-factors again"):
        load_factors(tmp_path / "f")
    (tmp_path / "f/factors.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(InputError, match="format"):
        load_factors(tmp_path / "f")
    with pytest.raises(InputError, match="does not exist"):
        load_factors(tmp_path / "nothing")
