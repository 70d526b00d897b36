"""Runs in a process of its own: trains through the patched ``pretrain`` and writes what happened as JSON.

It listens only where stock GPT-NeoX and the patch both pass: per-token losses from
``vocab_parallel_cross_entropy``, masks and labels from ``_get_batch``, numbers from ``train_step``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def record(config: str, output: str) -> None:
    """Train as ``config`` says; ``output`` gets steps, validation batches, printed lines and samples."""
    import os

    from ifguide.system.processes import free_port
    from ifguide_patch import apply

    os.environ["MASTER_PORT"] = str(free_port())

    apply()
    from megatron import mpu, training
    from megatron.neox_arguments import NeoXArgs

    seen: dict[str, Any] = {"steps": [], "validation": [], "printed": [], "samples": []}
    micro: list[dict[str, Any]] = []
    in_step = False

    plain_batch, plain_ce, plain_step = training._get_batch, mpu.vocab_parallel_cross_entropy, training.train_step

    def get_batch(*args: Any, **kwargs: Any) -> Any:
        tokens, labels, mask, *rest = plain_batch(*args, **kwargs)
        micro.append({"tokens": tokens.tolist(), "labels": labels.tolist(), "mask": mask.tolist()})
        return tokens, labels, mask, *rest

    def cross_entropy(logits: Any, target: Any) -> Any:
        losses = plain_ce(logits, target)
        micro[-1]["ce"] = losses.detach().tolist()
        if not in_step:
            seen["validation"].append(micro.pop())
        return losses

    def train_step(*args: Any, **kwargs: Any) -> Any:
        nonlocal in_step
        in_step = True
        metrics, skipped = plain_step(*args, **kwargs)
        in_step = False
        seen["steps"].append({"micro": list(micro), "metrics": {key: float(metrics[key]) for key in metrics}})
        micro.clear()
        return metrics, skipped

    training._get_batch, training.train_step = get_batch, train_step
    mpu.vocab_parallel_cross_entropy = cross_entropy

    arguments = NeoXArgs.from_ymls([config])
    arguments.configure_distributed_args()
    arguments.build_tokenizer()
    arguments.initialize_tensorboard_writer()
    training.pretrain(neox_args=arguments)
    seen["samples"] = _samples(arguments)
    try:
        from megatron.logging import lines

        seen["printed"] = lines
    except ImportError:
        pass
    Path(output).write_text(json.dumps(seen))


def _samples(arguments: Any) -> list[dict[str, Any]]:
    """Samples of the training data, some from beyond its end, as the patch reads them and as NeoX does."""
    from megatron.data import data_utils

    loaders = data_utils.build_train_valid_test_data_loaders(neox_args=arguments)
    blend = loaders["train"].dataset
    dataset = blend.datasets[0] if hasattr(blend, "datasets") else blend
    indices = [*range(min(len(dataset), 40)), len(dataset) - 1, len(dataset), len(dataset) + 3]
    masked = [dataset[index] for index in indices]
    del dataset.ifguide_source  # without a mask, GPT-NeoX's own method reads
    rows = []
    for index, ours in zip(indices, masked):
        theirs = dataset[index]
        row = {"index": index, "values": ours["text"].tolist(), "text": theirs["text"].tolist()}
        if "label" in theirs:
            row |= {"label": ours["label"].tolist(), "stock_label": theirs["label"].tolist()}
        rows.append(row)
    return rows
