"""``--limit`` draws from all of a task's documents, and a larger limit holds what a smaller one does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ifguide.evaluation.sampled_docs import draw, sampled_documents


def test_every_document_is_as_likely() -> None:
    counts = np.zeros(20)
    for seed in range(4000):
        counts[draw("task", 20, 5, seed)] += 1
    # binomial, p = 1/4: standard deviation 27
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


def test_a_sorted_set_gives_of_every_kind() -> None:
    """BOLD is sorted by domain: the first 50 of its 7,201 prompts are all of one."""
    kinds = {number * 5 // 7201 for number in draw("ifguide_bold", 7201, 50, 0)}
    assert kinds == {0, 1, 2, 3, 4}


def test_ascending_repeatable_nested_and_of_each_task_by_itself() -> None:
    small, large = draw("task", 100, 10, 3), draw("task", 100, 30, 3)
    assert small == sorted(set(small)) == draw("task", 100, 10, 3) and len(small) == 10
    assert set(small) < set(large)
    assert small != draw("task", 100, 10, 4) and small != draw("other", 100, 10, 3)
    assert draw("task", 7, 10, 0) == draw("task", 7, 7, 0) == list(range(7))


def test_of_loaded_tasks() -> None:
    tasks = {name: SimpleNamespace(eval_docs=range(size)) for name, size in (("a", 50), ("b", 3))}
    assert sampled_documents(tasks, None, 0) is None
    assert sampled_documents(tasks, 5, 1) == {"a": draw("a", 50, 5, 1), "b": [0, 1, 2]}
