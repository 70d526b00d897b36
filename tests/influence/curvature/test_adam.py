"""The second moments of a run as factors of the converted model: a checkpoint whose exp_avg_sq is the square of each
parameter has, in any layout, the squares of Hugging Face's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ifguide.architectures.registry import family_of
from ifguide.checkpoints.reader import NeoxCheckpoint
from ifguide.cli import main
from ifguide.errors import NumericsError
from ifguide.influence.curvature.adam import adam_factors
from ifguide.influence.curvature.store import check_model, load_factors
from ifguide.influence.passes.checks import check_factors
from ifguide.models.tracked import load_model
from tests.checkpoints.test_adam import BETA, STEP, write_states
from tests.checkpoints.tiny import STYLES, architecture_of, checkpoint


@pytest.mark.parametrize("style", STYLES)
def test_converted_factors_are_those_of_the_converted_weights(tmp_path: Path, style: str) -> None:
    # of a summed bias each rank has the whole square, which one rank shows as well as two
    ranks = 1 if STYLES[style].get("gpt_j_residual") else 2
    folder, keys, _ = checkpoint(tmp_path, style, ranks=ranks, sequential=True)
    opened = NeoxCheckpoint.open(folder)
    write_states(folder, [opened.layers], ranks)
    output = tmp_path / "hf"
    command = ["convert", "--from", "neox", "--to", "hf", "--input", str(folder), "--output", str(output)]
    assert main([*command, "--adam-factors"]) == 0
    factors, model = load_factors(output / "adam_factors"), load_model(output, device="cpu")
    check_model(factors, model)
    check_factors(factors, model)
    assert factors.strategy == "diagonal" and factors.record["adam"]["step"] == STEP
    assert list(factors.layers) and set(factors.layers) == set(model.tracked)
    weights = load_file(next(output.glob("*.safetensors")))
    for name, layer in factors.layers.items():
        columns = [weights[f"{name}.weight"]]
        columns += [weights[f"{name}.bias"][:, None]] if f"{name}.bias" in weights else []
        expected = torch.cat(columns, dim=1).float() ** 2 / (1 - BETA**STEP)
        torch.testing.assert_close(layer["Lambda"], expected, msg=name)
    own = adam_factors(NeoxCheckpoint.open(folder), family_of(architecture_of(keys)), architecture_of(keys))
    assert all(torch.equal(own.layers[name]["Lambda"], layer["Lambda"]) for name, layer in factors.layers.items())


def test_a_moment_that_is_no_square_is_told(tmp_path: Path) -> None:
    folder, keys, _ = checkpoint(tmp_path, "pythia", sequential=True)
    opened = NeoxCheckpoint.open(folder)
    write_states(folder, [opened.layers], 1)
    path = opened.folder / "mp_rank_00_model_states.pt"
    content = torch.load(path, weights_only=False)
    for state in content["optimizer"]["state"].values():
        state["exp_avg_sq"].view(-1)[0] = torch.nan
    torch.save(content, path)
    architecture = architecture_of(keys)
    with pytest.raises(NumericsError, match="are no finite squares"):
        adam_factors(NeoxCheckpoint.open(folder), family_of(architecture), architecture)


def test_a_checkpoint_without_an_optimizer_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, *_ = checkpoint(tmp_path, "pythia", sequential=True)
    output = tmp_path / "hf"
    command = ["convert", "--from", "neox", "--to", "hf", "--input", str(folder), "--output", str(output)]
    assert main([*command, "--adam-factors"]) == 2
    assert "holds no states of an optimizer; it was saved without" in capsys.readouterr().err
    assert not output.exists()
