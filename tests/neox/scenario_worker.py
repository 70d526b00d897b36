"""One process of several GPT-NeoX runs after each other, recording what a comparison needs.

Started by `tests.neox.harness.run_scenarios`, once per rank: importing NeoX takes far longer than training
a tiny model, so the runs share it. With ``patched`` false nothing of the patch is active but the answers
to ``torch.cuda`` that NeoX needs on a CPU. It imports nothing of `tests`: a checkout has a folder of that
name.

    python scenario_worker.py PLAN.json

Writes ``NAME.RANK.pt`` for every scenario: ``initial`` and ``final`` parameters, ``steps`` (what
``train_step`` returned), ``rates`` (learning rate of each step), ``evaluations``, ``batches`` (the ``text``
of each micro-batch as the loader gave it), ``masks`` (the loss mask of each micro-batch).
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    rank = int(os.environ["RANK"])
    if plan["patched"]:
        import ifguide_patch

        if any("score_output" in scenario["config"] for scenario in plan["scenarios"]):
            # its keys are NeoX's from the start, or never
            os.environ["IFGUIDE_SCRIPT"] = "score.py"
        ifguide_patch.apply(plan["neox"])
    else:
        stock(Path(plan["neox"]))
    # it refuses the key of a curriculum, which DeeperSpeed knows
    importlib.import_module("deepspeed.runtime.config")._reject_removed_config_keys = lambda *_: None
    for scenario in plan["scenarios"]:
        record: dict[str, Any] = {}
        print(f"=== {scenario['name']} ===", flush=True)
        try:
            run(scenario, record, plan["patched"])
        except BaseException:
            record["error"] = traceback.format_exc()
            traceback.print_exc()
        torch.save(record, Path(plan["out"]) / f"{scenario['name']}.{rank}.pt")
        if "error" in record:
            # the other rank may wait for this one: no later scenario can be trusted
            sys.stdout.flush()
            os._exit(1)
        forget()


def stock(root: Path) -> None:
    """NeoX as it is, on a CPU."""
    from ifguide_patch import checkout, cpu
    from ifguide_patch.journal import Journal

    checkout.make_importable(root)
    cpu.use_cpu(Journal())
    initialize = importlib.import_module("megatron.initialize")
    training = importlib.import_module("megatron.training")
    original = initialize.initialize_megatron
    training.initialize_megatron = lambda neox_args: original(neox_args, allow_no_cuda=True)


def run(scenario: dict[str, Any], record: dict[str, Any], patched: bool) -> None:
    """What the checkout's ``train.py`` does, with hooks."""
    from megatron import training
    from megatron.neox_arguments import NeoXArgs

    from ifguide_patch import cpu

    config = scenario["config"]
    os.environ["IFGUIDE_SCRIPT"] = "score.py" if "score_output" in config else ""
    # the patch does this by itself
    values = None if patched else cpu.overrides(config)
    path = Path(scenario["yml"])
    launcher = NeoXArgs.from_ymls([str(path)], {**(values or {}), "user_script": "train.py"})
    # through the encoding that carries the arguments from the launcher to the workers
    encoded = launcher.get_deepspeed_main_args()
    arguments = NeoXArgs.consume_neox_args(input_args=encoded[encoded.index("--megatron_config") :])
    arguments.configure_distributed_args()
    arguments.build_tokenizer()
    if "score_output" in config:
        import scoring_probe

        record["scored"] = scoring_probe.run(arguments, probe=scenario["name"].endswith("-probe"))
        return
    arguments.initialize_tensorboard_writer()
    with Hooks(training, record) as hooks:
        try:
            training.pretrain(neox_args=arguments)
        except SystemExit as exit_:
            # the end of a run with exit_interval
            if exit_.code:
                raise
    record["final"] = hooks.parameters()
    if arguments.tensorboard_writer is not None:
        arguments.tensorboard_writer.close()


class Hooks:
    """Wraps functions of ``megatron.training``, whatever they are by now, for the length of a run."""

    def __init__(self, training: Any, record: dict[str, Any]):
        self.training, self.record = training, record
        self.saved: dict[str, Any] = {}
        self.model: Any = None
        record |= {"steps": [], "rates": [], "evaluations": [], "batches": [], "masks": []}

    def __enter__(self) -> Hooks:
        for name in ("setup_model_and_optimizer", "train_step", "evaluate", "_get_batch"):
            original = getattr(self.training, name)
            self.saved[name] = original
            hook = functools.partial(getattr(self, name.removeprefix("_")), original)
            setattr(self.training, name, functools.wraps(original)(hook))
        return self

    def __exit__(self, *_: Any) -> None:
        for name, original in self.saved.items():
            setattr(self.training, name, original)

    def parameters(self) -> dict[str, torch.Tensor]:
        module = self.model.module
        return {name: value.detach().clone() for name, value in module.named_parameters()}

    def setup_model_and_optimizer(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        self.model = result[0]
        if kwargs["neox_args"].curriculum_learning:
            grow_sequences(self.model, kwargs["neox_args"])
        self.record["initial"] = self.parameters()
        return result

    def train_step(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self.record["rates"].append(kwargs["optimizer"].param_groups[0]["lr"])
        metrics, skipped = original(*args, **kwargs)
        kept = {key: torch.as_tensor(value).detach().clone().cpu() for key, value in metrics.items()}
        self.record["steps"].append({**kept, "skipped": skipped})
        return metrics, skipped

    def evaluate(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self.record["evaluations"].append(original(*args, **kwargs))
        return self.record["evaluations"][-1]

    def get_batch(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        data = kwargs["data"] if "data" in kwargs else args[3]
        result = original(*args, **kwargs)
        if self.model.module.training:
            self.record["batches"].append(None if data is None else data["text"].clone())
            self.record["masks"].append(result[2].clone())
        return result


def grow_sequences(model: Any, neox_args: Any) -> None:
    """A curriculum's length for every step, as DeeperSpeed hands it to the model; DeepSpeed no longer does."""
    from deepspeed.runtime.data_pipeline.curriculum_scheduler import CurriculumScheduler

    scheduler = CurriculumScheduler(neox_args.curriculum_learning)
    if neox_args.is_pipe_parallel:
        # the batch is cut by NeoX itself; the buffers between stages must follow
        train_batch = model.train_batch

        def fresh(*args: Any, **kwargs: Any) -> Any:
            model.reset_activation_shape()
            return train_batch(*args, **kwargs)

        model.train_batch = fresh
        return
    forward = model.module.forward

    def cut(*args: Any, **kwargs: Any) -> Any:
        length = scheduler.update_difficulty(neox_args.iteration + 1)
        return forward(*args, curriculum_seqlen=length, **kwargs)

    model.module.forward = cut


def forget() -> None:
    """Let the next run build its own process groups and start its own numbers."""
    from deepspeed.utils import groups
    from megatron import mpu

    mpu.destroy_model_parallel()
    for name, value in vars(groups).items():
        if name.isupper() and name.endswith("GROUP") and value is not None:
            setattr(groups, name, {} if isinstance(value, dict) else None)
    groups.mpu = None


if __name__ == "__main__":
    main()
