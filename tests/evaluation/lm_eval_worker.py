"""Run tasks in the lm-eval of this Python, also under torchrun, and write the results as JSON. The network is blocked.

python lm_eval_worker.py MODEL OUTPUT TASK[,TASK]...
"""

from __future__ import annotations

import json
import os
import socket
import sys
from types import SimpleNamespace


def _no_network(*args, **kwargs):
    raise OSError("the network is blocked")


if "RANK" not in os.environ:  # ranks find each other through sockets
    socket.socket.connect = _no_network
    socket.getaddrinfo = _no_network
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_EVALUATE_OFFLINE="1", ACCELERATE_USE_CPU="true")

from ifguide.compat.lm_eval import import_lm_eval  # noqa: E402
from ifguide.evaluation.tasks.parts import TASKS_FOLDER  # noqa: E402
from ifguide.evaluation.tasks.registry import register_tasks  # noqa: E402
from ifguide.evaluation.tasks.settings import scorers_from  # noqa: E402
from tests.evaluation.fixed_lm import HashScorer, fixed_lm  # noqa: E402


def main(model: str, output: str, names: str) -> None:
    import_lm_eval()
    from accelerate import Accelerator
    from lm_eval import evaluator, tasks
    from lm_eval.models import huggingface

    evaluator.add_env_info = lambda results: None  # it runs pip
    options = {}
    accelerator = Accelerator(cpu=True)
    if hasattr(tasks, "TaskManager"):
        options["task_manager"] = tasks.TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    else:
        register_tasks()
        huggingface.Accelerator = lambda: SimpleNamespace(num_processes=1)  # each of several would want a GPU
    lm = fixed_lm(model, batch_size=4)
    if accelerator.num_processes > 1:  # which lm-eval does on GPUs only
        lm.accelerator, lm._device = accelerator, accelerator.device
        lm._rank, lm._world_size = accelerator.local_process_index, accelerator.num_processes
    with scorers_from(HashScorer):
        results = evaluator.simple_evaluate(lm, tasks=names.split(","), bootstrap_iters=10, **options)
    if results is not None:
        with open(output, "w") as stream:
            json.dump({"world_size": lm.world_size, "results": results["results"]}, stream, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])
