"""A cascade through the command: exact scores where it says so, one mask nearly like the other, and it resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main, make_parser
from ifguide.data.aligned import load_aligned
from ifguide.errors import ConfigError
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.cascade import run as cascade_run
from ifguide.influence.cascade.choice import REJECTED, CascadeSettings, Choice, states_from_text
from ifguide.influence.cascade.run import Cascade, score_cascade
from ifguide.influence.curvature.fit import fit_factors
from ifguide.influence.job import Inputs, Options
from ifguide.influence.passes.method import Method
from ifguide.influence.score import score
from tests.influence.conftest import WINDOW, random_documents, save_tiny_model, write_tokens

JVP = Options(Method(method="jvp"), shard_tokens=300)
SETTINGS = CascadeSettings(keep=0.4, audit=0.2)


@pytest.fixture(scope="session")
def proxy(tmp_path_factory) -> tuple[Path, Path]:
    """A narrower model with factors of its own."""
    root = tmp_path_factory.mktemp("proxy")
    folder = save_tiny_model(root / "m", "neox", hidden=8)
    dataset = write_tokens(root / "d_text_document", random_documents([30] * 6))
    fit_factors(folder, dataset.prefix, root / "f", strategy="kfac", quiet=True)
    return folder, root / "f"


@pytest.fixture
def job(tmp_path, model_folders, query_files, fitted) -> Inputs:
    lengths = np.random.default_rng(3).integers(3, 2 * WINDOW, 60).tolist()
    dataset = write_tokens(tmp_path / "c_text_document", random_documents(lengths, seed=4))
    return Inputs(model_folders["neox"], dataset.prefix, fitted, [QueryFiles(*query_files)], tmp_path / "s")


def _cascade(proxy) -> Cascade:
    return Cascade(*proxy, settings=SETTINGS)


def test_chosen_documents_have_their_exact_scores(job, proxy):
    exact_job = replace(job, output=f"{job.output}-whole")
    score(exact_job, JVP, quiet=True)
    exact = load_aligned(exact_job.output, None, "scores").values
    result = score_cascade(job, JVP, _cascade(proxy), quiet=True)
    found = load_aligned(job.output, None, "scores")
    states = states_from_text(found.sidecar["cascade"]["exact_units"])
    known = Choice(found.starts, states).exact_tokens(0, len(exact))
    np.testing.assert_allclose(found.values[known], exact[known], rtol=1e-4, atol=1e-6 * np.abs(exact).max())
    assert 0 < (states == REJECTED).sum() < len(states) and 0.4 < known.mean() < 0.75
    assert np.isfinite(found.values).all() and np.abs(found.values[~known]).max() <= np.abs(exact[known]).max()
    assert result["cascade"]["tokens"]["total"] == len(exact) and result["finished"]
    assert result["outputs"][0]["scores"]["max"] == found.values.max()
    left = {path.name for path in Path(job.output).parent.glob("s.*")}
    assert not {name for name in left if name.endswith((".lock", ".parts", ".combined", ".cheap.bin", ".exact.bin"))}


def test_scores_that_exist_choose_as_well(job, proxy):
    """A perfect first pass: the order of the exact scores themselves."""
    exact_job = replace(job, output=f"{job.output}-whole")
    score(exact_job, JVP, quiet=True)
    cascade = Cascade(scores=exact_job.output, settings=SETTINGS)
    result = score_cascade(job, JVP, cascade, quiet=True)
    assert result["cascade"]["calibration"]["correlation"] == pytest.approx(1)
    exact = load_aligned(exact_job.output, None, "scores").values
    found = load_aligned(job.output, None, "scores").values
    assert np.corrcoef(found, exact)[0, 1] > 0.99


def test_it_goes_on_after_a_kill_and_is_not_repeated(job, proxy, monkeypatch):
    whole = replace(job, output=f"{job.output}-whole")
    score_cascade(whole, JVP, _cascade(proxy), quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(cascade_run, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score_cascade(job, JVP, _cascade(proxy), quiet=True)
    resumed = score_cascade(job, JVP, _cascade(proxy), quiet=True)
    assert resumed["resumed_tokens"] > 0 and not resumed["nothing_left"]
    again = score_cascade(job, JVP, _cascade(proxy), quiet=True)
    assert again["nothing_left"] and (again["scored_tokens"], again["tokens_per_second"]) == (0, None)
    assert Path(f"{job.output}.bin").read_bytes() == Path(f"{whole.output}.bin").read_bytes()
    monkeypatch.setattr(cascade_run, "run", lambda *_: pytest.fail("already done"))
    assert score_cascade(job, JVP, _cascade(proxy), quiet=True)["finished"]


def test_what_does_not_go_together(job, proxy):
    with pytest.raises(ConfigError) as caught:
        score_cascade(job, replace(JVP, documents="0:3", per_category=True), Cascade(proxy[0]), quiet=True)
    assert len(caught.value.faults) == 3
    with pytest.raises(ConfigError, match="needs --cascade-model"):
        score_cascade(job, JVP, Cascade(), quiet=True)


def test_the_command_has_the_librarys_defaults():
    parser = make_parser("score")
    found = {name: parser.get_default(f"cascade_{name}") for name in ("keep", "audit", "seed")}
    assert CascadeSettings(**found) == CascadeSettings()


def test_the_command(job, proxy, capsys):
    files = job.queries[0]
    options = {
        "--model": job.model, "--data": job.data, "--factors": job.factors, "--toxic-queries": files.toxic,
        "--safe-queries": files.safe, "--output": job.output, "--method": "jvp", "--cascade-model": proxy[0],
        "--cascade-factors": proxy[1], "--cascade-keep": 0.4, "--cascade-audit": 0.2,
    }  # fmt: skip
    command = ["score", *(str(part) for pair in options.items() for part in pair)]
    assert main(command) == 0
    assert "overlap with the exact mask (Jaccard)" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cascade"]["missed"]["interval"]
    assert main([*command, "--cascade-keep", "2"]) == 2
    assert "--cascade-keep 2" in capsys.readouterr().err
