"""One model, one batch: the embedded engine computes the loss that GPT-NeoX trained on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ifguide.cli import main
from ifguide.engine.packing import Batch
from ifguide.engine.training import Trainer
from ifguide.objectives.penalised import reported
from tests.patch.checkouts import train, write_data

CLIP = 5.0


@pytest.mark.parametrize("tanh_gelu", [False, True], ids=["gelu", "tanh-gelu"])
def test_the_embedded_engine_computes_the_loss_that_neox_trained_on(
    neox: Path, tmp_path: Path, tanh_gelu: bool
) -> None:
    data = write_data(tmp_path, encoding="graded")
    seen = train(
        neox, tmp_path, train_iters=1, log_interval=1, save=str(tmp_path / "neox"), extra_save_iters=[0],
        train_data_paths=[data], valid_data_paths=[data], test_data_paths=[data], bias_gelu_fusion=tanh_gelu,
        train_penalty_data_paths=[f"{data}_mask"], penalty_lambda=0.6, penalty_form="clipped", penalty_clip=CLIP,
    )  # fmt: skip
    command = ["convert", "--from", "neox", "--to", "hf", "--input", str(tmp_path / "neox" / "global_step0")]
    assert main([*command, "--output", str(tmp_path / "hf"), "--no-tokenizer"]) == 0

    trainer = embedded(tmp_path / "hf")
    (micro,) = seen["steps"][0]["micro"]
    signed = torch.tensor(micro["mask"])
    batch = Batch(
        torch.tensor(micro["tokens"]), torch.tensor(micro["labels"]), (signed != 0).float(),
        (-signed).clamp(min=0).to(torch.uint8),
    )  # fmt: skip
    loss = trainer._loss(batch, 0.6)
    ours, theirs = reported(trainer._sums), seen["steps"][0]["metrics"]
    assert loss.item() == pytest.approx(theirs["objective"], abs=1e-4)
    assert ours == pytest.approx(theirs, abs=1e-4)
    ce = trainer._cross_entropy(batch)
    torch.testing.assert_close(ce, torch.tensor(micro["ce"]), atol=1e-4, rtol=0)


def embedded(folder: Path) -> Any:
    """A `Trainer` that has all its loss needs: the model of ``folder`` and the penalty's keys."""
    from transformers import AutoModelForCausalLM

    trainer = Trainer.__new__(Trainer)
    trainer.engine = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer.config = SimpleNamespace(penalty_form="clipped", penalty_clip=CLIP)  # type: ignore[assignment]
    trainer.encoding = "graded"
    trainer._sums = torch.zeros(5, dtype=torch.float64)
    return trainer
