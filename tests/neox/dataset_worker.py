"""Builds training data as a NeoX worker does, and reads every sample twice: through the patch, and stock.

Started by `tests.neox.test_data_routes`, in a process of its own; imports nothing of `tests`.

    python dataset_worker.py PLAN.json

Writes ``NAME.npz`` for every plan: ``text`` and ``label`` of all samples of the blend, and for each dataset of
it ``equal``, whether text and label were the stock's at every index, wherever the index lay.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    import ifguide_patch

    ifguide_patch.apply(plan["neox"])
    from megatron import mpu, training
    from megatron.initialize import initialize_megatron
    from megatron.neox_arguments import NeoXArgs

    for one in plan["plans"]:
        arguments = NeoXArgs.from_ymls([one["yml"]], {"user_script": "train.py"})
        arguments.configure_distributed_args()
        arguments.build_tokenizer()
        initialize_megatron(neox_args=arguments)
        loaders = training.build_train_valid_test_data_loaders(neox_args=arguments)
        blend = loaders["train"].dataset
        samples = [blend[index] for index in range(len(blend))]
        found = {"text": np.stack([sample["text"] for sample in samples])}
        if "label" in samples[0]:
            found["label"] = np.stack([sample["label"] for sample in samples])
        parts = getattr(blend, "datasets", [blend])
        found["equal"] = np.array([same_as_stock(part) for part in parts])
        found["masked"] = np.array([hasattr(part, "ifguide_source") for part in parts])
        others = [loaders[name].dataset for name in ("valid", "test") if loaders[name] is not None]
        plain = [part for other in others for part in getattr(other, "datasets", [other])]
        found["leaks"] = np.array([hasattr(part, "ifguide_source") for part in plain])
        np.savez(Path(plan["out"]) / f"{one['name']}.npz", **found)
        mpu.destroy_model_parallel()


def same_as_stock(dataset: Any) -> bool:
    """At every index, negative ones and those beyond the end too."""
    kind = type(dataset)
    patched, stock = kind.__getitem__, kind.__getitem__.__wrapped__
    indices = [*range(-3, len(dataset) + 4), 5 * len(dataset) + 1]

    def read(getitem: Any) -> list[dict[str, np.ndarray]]:
        # the stock one calls itself by way of the class
        kind.__getitem__ = getitem
        try:
            return [dataset[index] for index in indices]
        finally:
            kind.__getitem__ = patched

    for ours, theirs in zip(read(patched), read(stock)):
        ours["text"] = ours["text"] & 0xFFFFFFFF
        if ours.keys() != theirs.keys():
            return False
        for key in theirs:
            if ours[key].dtype != theirs[key].dtype or not np.array_equal(ours[key], theirs[key]):
                return False
    return True


if __name__ == "__main__":
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    main()
