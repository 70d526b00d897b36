"""Run tasks in the lm-eval of this Python and write the results as JSON; also under torchrun. No network, no randomness.

    python lm_eval_worker.py MODEL OUTPUT TASK[,TASK] [--batch-size N] [--cache FILE] [--limit N] [--plain]

Log-likelihoods come from the real model. A continuation is a function of its prompt and of how often the prompt was
continued before: generation by sampling is not the same in two versions of lm-eval, and not what is compared. Scores
are a hash of the text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
from collections import Counter

import numpy as np


def _no_network(*args, **kwargs):
    raise OSError("the network is blocked")


if "RANK" not in os.environ:  # ranks talk to each other through sockets
    socket.socket.connect = _no_network
socket.getaddrinfo = _no_network if "RANK" not in os.environ else socket.getaddrinfo
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_EVALUATE_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", ACCELERATE_USE_CPU="true")

from ifguide.evaluation import scorers  # noqa: E402
from ifguide.evaluation.task_parts import TASKS_FOLDER  # noqa: E402
from ifguide.evaluation.task_registry import import_lm_eval, register_tasks, restore_likelihoods  # noqa: E402


def unit(*parts: object) -> float:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64


class HashScorer(scorers.Scorer):
    """A fixed score in [0, 0.6] of every text, so that a fair share of 25 continuations has none above 0.5."""

    labels = ("toxicity",)

    def __init__(self, name: str):
        self.name = name

    def _probabilities(self, texts):
        return {"toxicity": np.array([0.6 * unit(self.name, text) ** 4 for text in texts])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("tasks")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--cache")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--plain", action="store_true", help="lm-eval's likelihoods as they come")
    args = parser.parse_args()
    scorers.load_scorer = lambda spec, device: HashScorer(spec)
    import_lm_eval()
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    class FixedLM(HFLM):
        def generate_until(self, requests, disable_tqdm=False):
            seen = Counter()
            texts = []
            for request in requests:
                prompt, options = request.args
                assert options["do_sample"] and options["top_k"] == 0 and options["until"] == ["<|endoftext|>"]
                texts.append(f" {unit(prompt, seen[prompt])}")
                seen[prompt] += 1
            return texts

    lm = FixedLM(pretrained=args.model, device="cpu", dtype="float32", batch_size=args.batch_size)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and lm.world_size == 1:  # 0.4.1 counts GPUs
        from accelerate import Accelerator

        lm.accelerator = Accelerator(cpu=True)
        lm._rank, lm._world_size = lm.accelerator.local_process_index, lm.accelerator.num_processes
        lm._device = lm.accelerator.device
    options = {"limit": args.limit, "bootstrap_iters": 10, "use_cache": args.cache}
    register_tasks()
    if not hasattr(__import__("lm_eval.tasks").tasks, "include_path"):
        from lm_eval.tasks import TaskManager

        options["task_manager"] = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    if args.plain:
        # the tasks are built first, which is when they mend lm-eval
        build = evaluator.evaluate

        def unmended(*given, **more):
            restore_likelihoods()
            return build(*given, **more)

        evaluator.evaluate = unmended
    results = evaluator.simple_evaluate(lm, tasks=args.tasks.split(","), **options)
    if results is not None:
        with open(args.output, "w") as stream:
            json.dump({"world_size": lm.world_size, **{k: results[k] for k in ("results", "configs", "samples")}}, stream, default=str)


if __name__ == "__main__":
    main()
