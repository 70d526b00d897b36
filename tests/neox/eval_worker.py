"""GPT-NeoX's own ``eval.py`` on a CPU, in this process, as its launcher would start it.

It imports nothing of `tests`: a checkout has a folder of that name.

    python eval_worker.py CHECKOUT CONFIG.yml
"""

from __future__ import annotations

import importlib
import sys

import torch


def main(checkout: str, config: str) -> None:
    import ifguide_patch

    # before NeoX: it imports lm-eval too, and that asks the hub for a metric
    from ifguide_patch import neox_eval

    ifguide_patch.apply(checkout)
    # NeoX makes an optimizer that it never uses; DeepSpeed would compile its own for minutes
    importlib.import_module("deepspeed.ops.adam").FusedAdam = torch.optim.Adam
    neox_args = importlib.import_module("megatron.neox_arguments").NeoXArgs
    encoded = neox_args.from_ymls([config], {"user_script": "eval.py"}).get_deepspeed_main_args()
    sys.argv = ["eval.py", *encoded[encoded.index("--megatron_config") :]]
    neox_eval.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
