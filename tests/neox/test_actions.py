"""Dropping and hiding on real GPT-NeoX, one short run a layout: every step is the reference's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.neox.harness import LAYOUTS, PLAIN, Outcome, run_scenarios, scenario
from tests.neox.reference import Reference
from tests.patch.checkouts import configuration, run_python, write_data

pytestmark = pytest.mark.slow

STEPS = 4
HIDDEN = 300  # a spare row of the vocabulary of 512
# weights that never move, so that two runs validate the same ones
STILL = {
    "optimizer": {"type": "Adam", "params": {"lr": 0.0, "betas": [0.9, 0.95], "eps": 1e-5}},
    "min_lr": 0.0, "train_iters": 2, "eval_interval": 1, "eval_iters": 2,
}  # fmt: skip
HIDE = {"penalty_action": "hide", "penalty_hidden_token": HIDDEN, "eod_mask_loss": True}


@pytest.fixture(scope="module")
def outcomes(
    neox: Path, data: dict[str, Any], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    mask = {"train_penalty_data_paths": [f"{corpus}-binary"], "train_iters": STEPS}
    runs = [scenario(f"{layout}-hide", data, keys, HIDE, mask) for layout, keys in LAYOUTS.items()]
    runs += [
        scenario("drop", data, PLAIN, mask, {"penalty_action": "drop"}),
        scenario("zero", data, PLAIN, mask, {"penalty_lambda": 0.0}),
        scenario("held", data, PLAIN, HIDE, mask, STILL),
        scenario("held-plain", data, PLAIN, {"eod_mask_loss": True}, STILL),
    ]
    return run_scenarios(neox, tmp_path_factory.mktemp("actions"), runs, patched=True)


@pytest.mark.parametrize("name", [*(f"{layout}-hide" for layout in LAYOUTS), "drop"])
def test_losses_and_parameters_are_the_references(outcomes: dict[str, Outcome], name: str) -> None:
    """With two tensor-parallel ranks and two pipeline stages too: each rank takes the tokens out by itself."""
    run = outcomes[name]
    reference = Reference(run.config, run.whole("initial"), len(run.ranks), run.uncounted())
    expected = reference.train(STEPS)
    for key in ("objective", "lm_loss", "penalty_ce", "penalty_fraction"):
        assert run.series(key) == pytest.approx([getattr(step, key) for step in expected], abs=1e-5), key
    final = run.whole("final")
    assert max(float((final[key] - value.detach()).abs().max()) for key, value in reference.parameters.items()) < 1e-5


def test_the_reference_tells_hidden_inputs_from_the_text(outcomes: dict[str, Outcome]) -> None:
    run = outcomes["plain-hide"]
    seen = Reference({**run.config, "penalty_action": "drop"}, run.whole("initial"), len(run.ranks)).train(STEPS)
    assert abs(seen[-1].lm_loss - run.series("lm_loss")[-1]) > 1e-4


def test_dropping_is_a_penalty_of_zero_to_the_bit(outcomes: dict[str, Outcome]) -> None:
    dropped, zero = outcomes["drop"], outcomes["zero"]
    for key in ("objective", "lm_loss", "penalty_ce"):
        assert dropped.series(key) == zero.series(key)
    ours, theirs = dropped.whole("final"), zero.whole("final")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_validation_reads_the_text_as_it_is(outcomes: dict[str, Outcome]) -> None:
    hidden, plain = outcomes["held"].ranks[0]["evaluations"], outcomes["held-plain"].ranks[0]["evaluations"]
    assert len(hidden) == 4 and hidden == plain


GENERATES = """
import json, os, sys
import ifguide_patch
from ifguide.system.processes import free_port

os.environ["MASTER_PORT"] = str(free_port())
ifguide_patch.apply()
from megatron import text_generation_utils, training
from megatron.neox_arguments import NeoXArgs

arguments = NeoXArgs.from_ymls([sys.argv[1]])
arguments.configure_distributed_args()
arguments.build_tokenizer()
arguments.initialize_tensorboard_writer()
made = []
setup = training.setup_model_and_optimizer
training.setup_model_and_optimizer = lambda *args, **keys: made.append(setup(*args, **keys)) or made[-1]
training.pretrain(neox_args=arguments)
model = made[0][0]


def said():
    drawn = text_generation_utils.stream_tokens(
        neox_args=arguments, model=model, context_tokens=[[70, 71, 72]], maximum_tokens=4, recompute=True
    )
    for tokens, *_ in drawn:
        pass
    return tokens[0, :7].tolist()


first = said()
arguments.penalty_action, arguments.penalty_hidden_token = "hide", first[3]
print("SAID", json.dumps([first, said()]))
"""


def test_neox_itself_never_generates_the_hidden_token(neox: Path, tmp_path: Path) -> None:
    """What it would say first becomes the hidden token."""
    data = write_data(tmp_path)
    keys = {f"{split}_data_paths": [data] for split in ("train", "valid", "test")}
    keys["train_penalty_data_paths"] = [f"{data}_mask"]
    config = configuration(neox, **keys, train_iters=1, eval_iters=0)
    (tmp_path / "run.yml").write_text(json.dumps(config))
    result = run_python(GENERATES, neox, str(tmp_path / "run.yml"))
    assert result.returncode == 0, result.stderr[-3000:]
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("SAID "))
    before, after = json.loads(line.removeprefix("SAID "))
    assert before[:3] == after[:3] == [70, 71, 72] and before[3] not in after[3:] and 0 not in before[3:4]
