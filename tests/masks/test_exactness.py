"""A mask from a cascade's scores: within its plan, or of exact scores alone."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.sidecar import SCORES
from ifguide.errors import IFGuideWarning, InputError
from ifguide.masks import BehaviourScores, MaskOptions, build_mask, build_masks, merge_masks
from ifguide.selection import ScoredCorpus, SelectionSettings, Source, select
from ifguide.selection.algorithm import unit_starts
from ifguide.selection.exact import AUDITED, CHOSEN, REJECTED, states_from_text, states_to_text
from tests.masks.datasets import EOD, ended_documents, write_scores
from tests.support.datasets import write_tokens
from tests.support.folders import files

PLAN = SelectionSettings(0.9, 1, 0.03, None, 32)
# what goes beyond the plan -> the flag that the refusal names
BEYOND: dict[str, dict[str, Any]] = {
    "--max-fraction 0.2": {"max_fraction": 0.2},
    "--max-tokens 200": {"max_fraction": None, "max_tokens": 200},
    "--threshold-quantile 0.5": {"threshold_quantile": 0.5},
    "--threshold-quantile 0.95": {"threshold_quantile": 0.95},
    "--window 0": {"window": 0},
    "--unit-tokens 16": {"unit_tokens": 16},
    "--include-eod True": {"include_eod": True},
}
WITHIN: list[dict[str, Any]] = [
    {}, {"max_fraction": 0.01}, {"max_fraction": None, "max_tokens": 20}, {"window": 2},
]  # fmt: skip


def record_of(states: np.ndarray | None, plan: SelectionSettings = PLAN) -> dict[str, Any]:
    """The part of a cascade's sidecar that says what is exact."""
    units = {} if states is None else {"exact_units": states_to_text(states.astype(np.uint8))}
    selection = {"settings": {"keep": 0.15, "selection": asdict(plan)}}
    return {**units, "unit_tokens": plan.unit_tokens, "report": selection}


class Scored:
    """A corpus with scores, and which units a cascade has to choose for its plan."""

    def __init__(self, folder: Path, number: int = 0):
        self.folder, self.number = folder, number
        self.tokens = write_tokens(folder / f"d{number}", ended_documents(number), tokenizer={"eod": EOD})
        self.starts = np.append(unit_starts(self.tokens.starts, PLAN.unit_tokens), self.tokens.num_tokens)
        self.values = write_scores(folder / f"plain{number}", self.tokens, number)
        corpus = ScoredCorpus("c", self.values, self.tokens.starts, self.tokens.tokens, EOD)
        centres = select(Source([corpus]), PLAN).centres
        self.planned = np.zeros(len(self.starts) - 1, bool)
        self.planned[np.searchsorted(self.starts, centres, side="right") - 1] = True

    def cascade(self, states: np.ndarray | None, plan: SelectionSettings = PLAN, name: str = "s") -> Path:
        prefix = self.folder / f"{name}{self.number}"
        write_scores(prefix, self.tokens, self.number, cascade=record_of(states, plan))
        return prefix

    def states(self, others: int) -> np.ndarray:
        """The plan's units chosen, ``others`` for all else."""
        return np.where(self.planned, CHOSEN, others)


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scored:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "w").mkdir()
    return Scored(tmp_path / "w")


@pytest.mark.parametrize("changes", WITHIN, ids=str)
def test_within_the_plan_masks_are_as_from_exact_scores(scored: Scored, tmp_path: Path, changes) -> None:
    settings = replace(PLAN, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = build_mask(scored.cascade(scored.states(REJECTED)), tmp_path / "m", settings)
    build_mask(scored.folder / "plain0", tmp_path / "expected", settings)
    assert (tmp_path / "m.bin").read_bytes() == (tmp_path / "expected.bin").read_bytes() and found["selected"]
    sidecar = json.loads((tmp_path / "m.json").read_text())
    assert sidecar["cascade"] == [{"scores": str(scored.folder / "s0"), "proxy_share": 0.0}]
    assert "cascade" not in json.loads((tmp_path / "expected.json").read_text())


@pytest.mark.parametrize("flag", BEYOND)
@pytest.mark.parametrize("others", [REJECTED, AUDITED])
def test_beyond_it_a_proxys_scores_are_refused(scored: Scored, tmp_path: Path, flag: str, others: int) -> None:
    """A unit of the audit too: it stands for others that were not looked at."""
    prefix = scored.cascade(np.full(len(scored.planned), others))
    before = files(scored.folder)
    settings = replace(PLAN, **BEYOND[flag])
    with pytest.raises(InputError) as caught:
        build_mask(prefix, scored.folder / "m", settings)
    message = str(caught.value)
    assert flag in message and "\n" not in message and "a proxy's" in message
    again = {"--include-eod True": "--cascade-include-eod"}.get(flag, flag.replace("--", "--cascade-"))
    assert f"score again with {again}" in message
    assert files(scored.folder) == before


@pytest.mark.parametrize("flag", BEYOND)
def test_beyond_it_exact_scores_are_enough(scored: Scored, tmp_path: Path, flag: str) -> None:
    settings = replace(PLAN, **BEYOND[flag])
    build_mask(scored.cascade(np.full(len(scored.planned), CHOSEN)), tmp_path / "m", settings)
    build_mask(scored.folder / "plain0", tmp_path / "expected", settings)
    assert (tmp_path / "m.bin").read_bytes() == (tmp_path / "expected.bin").read_bytes()


def test_the_first_unit_outside_decides(scored: Scored, tmp_path: Path) -> None:
    """Budgets that grow token by token: refused from the one on that takes from another unit."""
    prefix = scored.cascade(scored.states(REJECTED))
    total, verdicts = scored.tokens.num_tokens, []
    corpus = ScoredCorpus("c", scored.values, scored.tokens.starts, scored.tokens.tokens, EOD)
    for budget in range(PLAN.budget(total), PLAN.budget(total) + 30):
        settings = replace(PLAN, max_fraction=None, max_tokens=budget)
        centres = select(Source([corpus]), settings).centres
        inside = bool(scored.planned[np.searchsorted(scored.starts, centres, side="right") - 1].all())
        try:
            build_mask(prefix, tmp_path / "m", settings)
        except InputError:
            verdicts.append((inside, False))
        else:
            verdicts.append((inside, True))
    assert set(verdicts) == {(True, True), (False, False)}


@pytest.mark.parametrize("method", ["random", "document"])
def test_other_methods_are_held_to_it(scored: Scored, tmp_path: Path, method: str) -> None:
    prefix = scored.cascade(scored.states(REJECTED))
    behaviour = BehaviourScores("", [prefix], replace(PLAN, max_fraction=0.5))
    with pytest.raises(InputError, match=r"--max-fraction 0\.5"):
        build_masks([behaviour], [tmp_path / "m"], MaskOptions(method=method))
    assert build_masks([BehaviourScores("", [prefix], PLAN)], [tmp_path / "m"], MaskOptions(method=method))["tokens"]
    whole = scored.cascade(np.full(len(scored.planned), CHOSEN), name="whole")
    assert build_masks([replace(behaviour, scores=[whole])], [tmp_path / "m"], MaskOptions(method=method))["selected"]


def test_several_corpora_share_a_budget_that_no_plan_knew(scored: Scored, tmp_path: Path) -> None:
    other = Scored(scored.folder, 1)
    pair = [scored.cascade(scored.states(REJECTED)), other.cascade(other.states(REJECTED))]
    # one corpus' scores lie higher: it takes nearly all of the budget, twice what its own plan was
    values = load_aligned(pair[1], other.tokens, SCORES).values * 3
    sidecar = {"cascade": record_of(other.states(REJECTED))}
    write_aligned(pair[1], other.tokens, values.astype(np.float32), np.float32, sidecar)
    with pytest.raises(InputError, match="2 corpora that share one threshold and budget"):
        build_masks([BehaviourScores("", pair, PLAN)], [tmp_path / "a", tmp_path / "b"])
    every = [one.cascade(np.full(len(one.planned), CHOSEN), name="every") for one in (scored, other)]
    assert build_masks([BehaviourScores("", every, PLAN)], [tmp_path / "a", tmp_path / "b"])["selected"]


def test_each_category_has_a_plan_of_its_own(scored: Scored, tmp_path: Path) -> None:
    prefix = scored.cascade(scored.states(REJECTED))
    given = [
        BehaviourScores("a", [prefix], PLAN),
        BehaviourScores("b", [scored.folder / "plain0"], replace(PLAN, max_fraction=0.2)),
    ]
    assert build_masks(given, [tmp_path / "m"])["selected"]
    with pytest.raises(InputError, match=r"s0 are a cascade's scores"):
        build_masks([replace(given[1], scores=[prefix]), replace(given[0], scores=given[1].scores)], [tmp_path / "m"])


def test_a_proxys_share_within_the_plan_is_told(scored: Scored, tmp_path: Path) -> None:
    states = scored.states(REJECTED)
    states[np.flatnonzero(scored.planned)[0]] = REJECTED
    with pytest.warns(
        IFGuideWarning, match=r"of what the mask takes by .*s0 has a proxy's scores; a larger --cascade-k"
    ):
        build_mask(scored.cascade(states), tmp_path / "m", PLAN)
    (record,) = json.loads((tmp_path / "m.json").read_text())["cascade"]
    assert 0 < record["proxy_share"] < 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.update(exact_units="no base64!"),
        lambda record: record.update(exact_units=states_to_text(np.ones(3, np.uint8))),
        lambda record: record.update(exact_units=states_to_text(np.full(10_000_000, 1, np.uint8))),
        lambda record: record.update(exact_units=7),
        lambda record: record["report"]["settings"]["selection"].update(unit_tokens=0),
        lambda record: record["report"]["settings"].pop("selection"),
        lambda record: record.update(report=None),
    ],
)
def test_a_damaged_record_is_refused(scored: Scored, tmp_path: Path, capsys, spoil) -> None:
    record = record_of(scored.states(REJECTED))
    spoil(record)
    write_scores(scored.folder / "s0", scored.tokens, 0, cascade=record)
    assert main(["build-mask", "--scores", str(scored.folder / "s0"), "--output", str(tmp_path / "m")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ifguide build-mask: ")]
    assert "s0.json: its record of the cascade is damaged (" in line and "score again" in line


def test_states_survive_their_text() -> None:
    states = np.array([REJECTED, CHOSEN, AUDITED, CHOSEN], np.uint8)
    assert states_from_text(states_to_text(states), 4).tolist() == states.tolist()
    assert states_from_text(states_to_text(states)).tolist() == states.tolist()
    with pytest.raises(ValueError, match="state 3"):
        states_from_text(states_to_text(states + 1), 4)


def test_merged_scores_would_hide_it(scored: Scored, tmp_path: Path) -> None:
    other = Scored(scored.folder, 1)
    documents = [list(map(int, one.tokens.tokens[a:b])) for one in (scored, other)
                 for a, b in zip(one.tokens.starts[:-1], one.tokens.starts[1:])]  # fmt: skip
    write_tokens(scored.folder / "merged", documents)
    pair = [scored.folder / "plain0", other.cascade(other.states(REJECTED))]
    with pytest.raises(InputError, match=r"s1: a cascade's scores .* build the masks of the parts"):
        merge_masks(pair, tmp_path / "m", scored.folder / "merged", SCORES)
    plain = [scored.folder / "plain0", scored.folder / "plain1"]
    assert merge_masks(plain, tmp_path / "m", scored.folder / "merged", SCORES)["parts"] == 2


def test_moved_scores_keep_the_plan(scored: Scored, tmp_path: Path) -> None:
    """They have no units any more, so nothing beyond the plan is known to be exact."""
    prefix = scored.cascade(None)
    assert build_mask(prefix, tmp_path / "m", PLAN)["selected"]
    for flag, changes in BEYOND.items():
        with pytest.raises(InputError, match=flag):
            build_mask(prefix, tmp_path / "m", replace(PLAN, **changes))
