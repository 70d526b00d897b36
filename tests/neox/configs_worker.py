"""One process that loads the shipped configurations in a GPT-NeoX checkout and builds a layer of each model.

    python configs_worker.py CHECKOUT < PLAN.json

PLAN: ``configs`` (folder), ``combinations`` (lists of files, the model first), ``gpus`` {model: how many it is
meant for}. The last line printed is JSON: ``combinations`` {files: fault or null}, ``layers`` {model:
parameters of one transformer layer}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

# none of these is built on a machine without CUDA; loading only asks for their version
KERNELS = "2.6.3"


def main() -> None:
    plan = json.load(sys.stdin)
    os.environ["DS_ACCELERATOR"] = "cpu"
    import ifguide_patch

    ifguide_patch.apply(sys.argv[1])
    import torch

    gpus = 1
    torch.cuda.device_count = lambda: gpus
    arguments = importlib.import_module("megatron.neox_arguments.arguments")
    arguments.version = lambda _: KERNELS
    folder = Path(plan["configs"])
    results: dict[str, Any] = {"combinations": {}, "layers": {}}
    for names in plan["combinations"]:
        gpus = plan["gpus"][names[0]]
        try:
            loaded = arguments.NeoXArgs.from_ymls([str(folder / name) for name in names])
            fault = None if loaded.precision == "bfloat16" else f"precision {loaded.precision}"
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        results["combinations"][" ".join(names)] = fault
    start_parallelism()
    gpus = 1
    for name in plan["gpus"]:
        names = (name, "training/pretrain.yml", "data/corpus.yml")
        # a whole layer, not a rank's share of one
        whole = {"model_parallel_size": 1}
        results["layers"][name] = layer_parameters(
            arguments.NeoXArgs.from_ymls([str(folder / one) for one in names], whole)
        )
    print(json.dumps(results))


def start_parallelism() -> None:
    """A world of one, and tensors without storage: a layer of 12B would not be small."""
    import torch
    from deepspeed.runtime.activation_checkpointing import checkpointing
    from megatron import mpu

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    mpu.initialize_model_parallel(1)
    torch.cuda.current_device = lambda: "meta"
    checkpointing.CudaRNGStatesTracker.fork = lambda *_: nullcontext()


def layer_parameters(neox_args: Any) -> int:
    import torch
    from megatron.model.init_functions import get_init_methods
    from megatron.model.transformer import ParallelTransformerLayer

    init_method, output_init_method = get_init_methods(neox_args)
    with torch.device("meta"):
        layer = ParallelTransformerLayer(
            neox_args=neox_args, attention_mask_func=None, init_method=init_method,
            output_layer_init_method=output_init_method, layer_number=0, rotary=True,
        )  # fmt: skip
    return sum(parameter.numel() for parameter in layer.parameters())


if __name__ == "__main__":
    main()
