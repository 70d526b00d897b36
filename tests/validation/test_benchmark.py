"""What benchmarks/validation.py makes of the results of several quickstarts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.validation.lds import judge

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_folders_are_put_together_with_paired_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module("validation")
    random = np.random.default_rng(0)
    folders: list[dict[str, Any]] = []
    for _ in range(3):
        happened = random.standard_normal(32)
        predictions = {
            "scores": happened + 0.3 * random.standard_normal(32),
            "classifier": happened + 3 * random.standard_normal(32),
        }
        points = [{"share": share, "change": -share * random.uniform()} for share in (0.01, 0.02)]
        folders.append({"lds": judge(predictions, happened, 200), "topk": {"rankings": {"scores": points}}})
    found = benchmark.together(folders)
    own, other = found["lds"]["scores"], found["lds"]["classifier"]
    rhos = {name: [one["lds"]["rankings"][name]["rho"] for one in folders] for name in ("scores", "classifier")}
    assert own["rho"] == pytest.approx(np.mean(rhos["scores"])) and own["lead_interval"] == [0.0, 0.0]
    assert other["lead_of_influence"] == pytest.approx(np.mean(rhos["scores"]) - np.mean(rhos["classifier"]))
    low, high = other["lead_interval"]
    assert 0 < low < other["lead_of_influence"] < high
    # three folders together say more than one
    alone = benchmark.together(folders[:1])["lds"]["classifier"]["lead_interval"]
    assert high - low < alone[1] - alone[0]
    changes = [one["topk"]["rankings"]["scores"][1]["change"] for one in folders]
    assert found["topk"]["scores"][1] == {"share": 0.02, "change": pytest.approx(np.mean(changes))}
    text = benchmark.tables({"together": found})
    assert "| classifier |" in text and "influence minus this" in text and "1.0%" in text
