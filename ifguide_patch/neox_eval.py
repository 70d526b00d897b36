"""GPT-NeoX's `eval.py` with the ifguide tasks registered; launch it in place of `eval.py`, in the checkout:

python deepy.py "$(python -c 'import ifguide_patch.neox_eval as e; print(e.__file__)')" \
    -d configs model.yml eval.yml --eval_tasks ifguide_rtp ifguide_lambada

What GPT-NeoX's harness cannot do stays so: it takes the first 10 documents of a task, generates one sequence at a time,
needs GPUs and lm-eval 0.4.1, and has no rolling likelihood, hence no held-out perplexity. For anything but a glance
convert the checkpoint (`ifguide convert`) and evaluate that.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import wraps
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.evaluation.tasks.registry import register_tasks
from ifguide_patch.cpu import is_asked_for


def main() -> None:
    """Register the tasks, then run the checkout's own `eval.py` with this process's arguments.

    Raises:
        InputError: neither GPT_NEOX_PATH nor the working directory is a GPT-NeoX checkout.
    """
    checkout = Path(os.environ.get("GPT_NEOX_PATH") or Path.cwd()).expanduser().resolve()
    if not (checkout / "eval.py").is_file() or not (checkout / "eval_tasks").is_dir():
        raise InputError(f"{checkout} is not a GPT-NeoX checkout; start there, or name it with GPT_NEOX_PATH")
    # a script's own folder comes first on its path, and the modules beside this one are not for all to see
    own = Path(__file__).resolve().parent
    sys.path[:] = [str(checkout), *(entry for entry in sys.path if Path(entry).resolve() != own)]
    register_tasks()
    _forget_between_prompts()
    _keep_logits()
    if is_asked_for():
        _use_cpu()
    importlib.import_module("eval").main()


def _forget_between_prompts() -> None:
    """Empty the cache of keys and values after each prompt: GPT-NeoX's `generate.py` does, `eval.py` does not.

    What comes next, a prompt or a likelihood, would be read after this one, and the text soon be too long.
    """
    module: Any = importlib.import_module("eval_tasks.eval_adapter")
    generate = getattr(module, "generate_samples_from_prompt", None)
    if generate is None:
        raise InputError(f"{module.__file__} generates in a way that is not known here; convert the checkpoint instead")

    @wraps(generate)
    def forgetful(*args: Any, model: Any, **options: Any) -> Any:
        try:
            return generate(*args, model=model, **options)
        finally:
            model.module.clear_cache()

    module.generate_samples_from_prompt = forgetful


def _keep_logits() -> None:
    """Let a pipeline's loss work on a copy: in fp32 it turns the logits into probabilities where they lie, and those
    would then be taken for logits."""
    adapter: Any = importlib.import_module("eval_tasks.eval_adapter").EvalHarnessAdapter
    prepare = adapter.__init__

    @wraps(prepare)
    def keeping(self: Any, model: Any, *args: Any, **options: Any) -> None:
        loss = getattr(model.module, "loss_fn", None)
        if loss is not None:
            model.module.loss_fn = lambda output, labels: loss(output.clone(), labels)
        prepare(self, model, *args, **options)

    adapter.__init__ = keeping


def _use_cpu() -> None:
    """Its adapter puts tokens on ``cuda:N`` by name, also in a smoke test without a GPU (``deepy.py --device cpu``)."""
    import torch

    adapter: Any = importlib.import_module("eval_tasks").EvalHarnessAdapter
    adapter.device = property(lambda _: torch.device("cpu"))


if __name__ == "__main__":
    main()
