"""Fitting the tasks into lm-eval, 0.4.1 (GPT-NeoX's) to 0.4.13: the filter, exact likelihoods, texts without the
special tokens that a tokenizer's template adds, the tasks' names."""

from __future__ import annotations

from ifguide.compat.lm_eval import add_filter, include_tasks, leave_templates_out, make_likelihoods_exact
from ifguide.evaluation.tasks.parts import FILTER, TASKS_FOLDER
from ifguide.evaluation.tasks.scoring import ToxicityFilter

_OWN_TASKS = "ifguide_"


def prepare_lm_eval() -> None:
    """Register the filter of the toxicity tasks and make likelihoods exact; may be called any number of times."""
    add_filter(FILTER, ToxicityFilter)
    make_likelihoods_exact()
    leave_templates_out(_OWN_TASKS)


def register_tasks() -> None:
    """Make the tasks known by name to an lm-eval that has a global registry (0.4.1), as GPT-NeoX's `eval.py` needs."""
    include_tasks(TASKS_FOLDER)
