"""Losses of other projects, and when their absence is a failure."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ifguide.objectives.base import PairBatch

# set where everything of the lock is installed, as continuous integration does
REQUIRED = "IFGUIDE_TEST_ORACLES"


def require_trl() -> None:
    """Skip without trl; fail where it must be there: it is locked for Python 3.11 and later."""
    try:
        import trl  # noqa: F401
    except ModuleNotFoundError as error:
        if os.environ.get(REQUIRED) and sys.version_info >= (3, 11):
            pytest.fail(f"{REQUIRED} is set and trl cannot be imported: {error}")
        pytest.skip("trl is not installed (extra oracles, Python 3.11 or later)")


def trl_dpo_loss(theta: Any, reference: Any, pairs: PairBatch, beta: float, folder: Path) -> float:
    """What trl's DPOTrainer minimises on these pairs."""
    require_trl()
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from tests.support.tiny_models import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    arguments = DPOConfig(
        output_dir=str(folder), beta=beta, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=1,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=copy.deepcopy(theta),
        ref_model=copy.deepcopy(reference),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=tokenizer,
    )
    half = len(pairs.numbers)
    rows = []
    for number in range(half):
        begin = int(pairs.counts[number].nonzero().min())
        texts = [pairs.tokens[row][begin:][pairs.counts[row][begin:]].tolist() for row in (number, half + number)]
        prompt = pairs.tokens[number, :begin].tolist()
        rows.append({"prompt_ids": prompt, "chosen_ids": texts[0], "rejected_ids": texts[1]})
    inputs = DataCollatorForPreference(pad_token_id=0)(rows)
    with torch.no_grad():
        return trainer.compute_loss(trainer.model, inputs).item()
