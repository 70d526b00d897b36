"""One model, one batch: the embedded engine computes the loss that GPT-NeoX trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ifguide.cli import main
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.model import build_model, load_huggingface_weights
from ifguide.engine.settings import resolve
from ifguide.objectives.base import Batch, TokenBatch
from ifguide.objectives.cross_entropy import token_losses
from ifguide.objectives.penalised import Penalised
from ifguide.penalties.keys import PenaltyKeys
from tests.patch.checkouts import configuration, train, write_data

CLIP = 5.0
FIELDS = TrainConfig.__dataclass_fields__


LLAMA = {
    "norm": "rmsnorm", "rms_norm_epsilon": 0.001, "activation": "swiglu", "num_attention_heads": 4, "num_kv_heads": 2,
    "rotary_pct": 1.0, "gpt_j_residual": False, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False,
    "intermediate_size": 96, "mlp_multiple_of": 1,
}  # fmt: skip
MODELS = {"gelu": {}, "tanh-gelu": {"bias_gelu_fusion": True}, "llama": LLAMA}


@pytest.mark.parametrize("keys", MODELS.values(), ids=MODELS.keys())
def test_the_embedded_engine_computes_the_loss_that_neox_trained_on(
    neox: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    data = write_data(tmp_path, encoding="graded")
    seen = train(
        neox, tmp_path, train_iters=1, log_interval=1, save=str(tmp_path / "neox"), extra_save_iters=[0],
        train_data_paths=[data], valid_data_paths=[data], test_data_paths=[data],
        train_penalty_data_paths=[f"{data}_mask"], penalty_lambda=0.6, penalty_form="clipped",
        penalty_clip=CLIP, **keys,
    )  # fmt: skip
    command = ["convert", "--from", "neox", "--to", "hf", "--input", str(tmp_path / "neox" / "global_step0")]
    assert main([*command, "--output", str(tmp_path / "hf"), "--no-tokenizer"]) == 0

    # the model that the embedded engine builds from the same keys, with NeoX's weights
    config = TrainConfig(**{key: value for key, value in configuration(neox, **keys).items() if key in FIELDS})
    model = build_model(resolve(config), vocab_size=512, eod=0)
    load_huggingface_weights(model, tmp_path / "hf")
    (micro,) = seen["steps"][0]["micro"]
    signed = torch.tensor(micro["mask"])
    batch = TokenBatch(
        torch.tensor(micro["tokens"]), torch.tensor(micro["labels"]), (signed != 0).float(),
        (-signed).clamp(min=0).to(torch.uint8),
    )  # fmt: skip
    objective = Penalised(PenaltyKeys(penalty_lambda=0.6, penalty_form="clipped", penalty_clip=CLIP))
    loss, sums = objective.loss(model, Batch(batch), iteration=1)
    ours, theirs = objective.report(sums), seen["steps"][0]["metrics"]
    assert loss.item() == pytest.approx(theirs["objective"], abs=1e-4)
    assert ours == pytest.approx(theirs, abs=1e-4)
    torch.testing.assert_close(token_losses(model, batch), torch.tensor(micro["ce"]), atol=1e-4, rtol=0)
