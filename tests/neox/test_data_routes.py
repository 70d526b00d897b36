"""Every way in which NeoX reads training data carries the codes of the very tokens that it reads.

The expected samples are `tests.neox.reference`'s: tokens, labels and mask walked one by one through the files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from ifguide.errors import InputError
from ifguide.system.processes import free_port
from tests.neox.corpora import write_corpus
from tests.neox.harness import (
    LAYOUTS,
    PIPE,
    PLAIN,
    Outcome,
    Scenario,
    environment_of,
    run_scenarios,
    scenario,
)
from tests.neox.reference import Blend, Reference, Sample

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("dataset_worker.py")
STEPS = 6
# NeoX cannot pack no samples until overflow; and of a few, the last may have no replacement
VALIDATION = {"eval_iters": 4}

Route = Callable[["Corpora"], dict[str, Any]]


class Corpora:
    """Three corpora of different sizes, each with its masks and labels."""

    def __init__(self, folder: Path):
        self.paths = [str(write_corpus(folder, f"c{n}", documents=60 + 70 * n, seed=n)) for n in range(3)]

    def keys(self, use: tuple[int, ...], masks: tuple[str, ...], labels: bool = False, **more: Any) -> dict[str, Any]:
        paths = [self.paths[number] for number in use]
        keys: dict[str, Any] = {
            "train_data_paths": paths, "valid_data_paths": paths[:1], "test_data_paths": paths[:1],
            "train_penalty_data_paths": [mask and f"{path}-{mask}" for path, mask in zip(paths, masks)],
        }  # fmt: skip
        if labels:
            keys["train_label_data_paths"] = [f"{path}-labels" for path in paths]
            keys["valid_label_data_paths"] = keys["test_label_data_paths"] = [f"{paths[0]}-labels"]
        return keys | more

    def split(self, **more: Any) -> dict[str, Any]:
        path = self.paths[2]
        return {"data_path": path, "penalty_data_path": f"{path}-graded", "split": "70,20,10", **more}


# with several epochs of the smaller corpora
ROUTES: dict[str, Route] = {
    "one path": lambda c: c.keys((0,), ("binary",)),
    "weights": lambda c: c.keys((0, 1), ("binary", "graded"), train_data_weights=[1.0, 3.5]),
    "a path without a mask": lambda c: c.keys((0, 1, 2), ("graded", "", "binary"), train_data_weights=[2.0, 1.0, 1.0]),
    "the first path without a mask": lambda c: c.keys((0, 1), ("", "binary")),
    "by number of documents": lambda c: c.keys(
        (0, 1, 2), ("binary", "graded", ""), weight_by_num_documents=True, weighted_sampler_alpha=0.4
    ),
    "split": lambda c: c.split(),
    "split, until overflow": lambda c: c.split(pack_impl="pack_until_overflow"),
    "split into one": lambda c: c.split(split="1"),
    "labels": lambda c: c.keys((0, 1), ("graded", "binary"), labels=True),
    "labels, one without a mask": lambda c: c.keys((0, 1), ("", "graded"), labels=True),
    "until overflow": lambda c: c.keys((1,), ("graded",), pack_impl="pack_until_overflow"),
    "until overflow, labels": lambda c: c.keys((0,), ("binary",), labels=True, pack_impl="pack_until_overflow"),
    "unpacked, labels": lambda c: c.keys((0, 1), ("binary", "graded"), labels=True, pack_impl="unpacked"),
    "unpacked, nothing chopped": lambda c: c.keys(
        (0,), ("graded",), labels=True, pack_impl="unpacked", allow_chopped=False
    ),
    "until overflow, nothing chopped": lambda c: c.keys(
        (2,), ("graded",), pack_impl="pack_until_overflow", allow_chopped=False
    ),
    "another seed": lambda c: c.keys((1,), ("graded",), seed=77),
}  # fmt: skip
TRAINED = {
    "weights": PLAIN, "a path without a mask": LAYOUTS["tp2"], "by number of documents": PLAIN, "split": PIPE,
    "labels": LAYOUTS["tp2"], "until overflow, labels": PIPE, "unpacked, labels": PLAIN,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpora(neox: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    return Corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def configs(corpora: Corpora) -> dict[str, dict[str, Any]]:
    alone = {"num_gpus": 1, "train_iters": 20, "train_micro_batch_size_per_gpu": 4, **VALIDATION}
    return {name: scenario(name, route(corpora), PLAIN, alone).config for name, route in ROUTES.items()}


@pytest.fixture(scope="module")
def read(
    neox: Path, configs: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, np.ndarray]]:
    """What a worker's datasets gave, by route."""
    folder = tmp_path_factory.mktemp("read")
    plans = []
    for number, (name, config) in enumerate(configs.items()):
        path = folder / f"{number}.yml"
        path.write_text(yaml.safe_dump(config))
        plans.append({"name": str(number), "yml": str(path), "route": name})
    (folder / "plan.json").write_text(json.dumps({"neox": str(neox), "out": str(folder), "plans": plans}))
    result = subprocess.run(
        [sys.executable, str(WORKER), str(folder / "plan.json")],
        env=environment_of(1) | {"MASTER_PORT": str(free_port()), "IFGUIDE_CPU_PROCESSES": "1"},
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    return {plan["route"]: dict(np.load(folder / f"{plan['name']}.npz")) for plan in plans}


@pytest.mark.parametrize("route", ROUTES)
def test_tokens_and_labels_are_the_stocks_at_every_index(
    read: dict[str, dict[str, np.ndarray]], configs: dict[str, dict[str, Any]], route: str
) -> None:
    found, config = read[route], configs[route]
    assert found["equal"].all()
    masks = config.get("train_penalty_data_paths") or [config.get("penalty_data_path")]
    assert found["masked"].tolist() == [bool(mask) for mask in masks]
    assert not found["leaks"].any()


@pytest.mark.parametrize("route", ROUTES)
def test_codes_are_those_of_the_tokens(
    read: dict[str, dict[str, np.ndarray]], configs: dict[str, dict[str, Any]], route: str
) -> None:
    text = read[route]["text"]
    blend = Blend(configs[route], 1)
    assert len(blend.order) == len(text) >= 79
    expected = [blend.sample(index) for index in range(len(text))]
    assert (text & 0xFFFFFFFF).tolist() == [sample.tokens for sample in expected]
    assert (text >> 32).tolist() == [codes_of(sample) for sample in expected]
    assert ((text >> 32) > 0).mean() > 0.03
    if "label" in read[route]:
        assert read[route]["label"].tolist() == [sample.labels for sample in expected]


def codes_of(sample: Sample) -> list[int]:
    return [round(255 * strength) for strength in sample.strengths]


@pytest.fixture(scope="module")
def trained(neox: Path, corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    scenarios = [scenario_of(name, corpora) for name in TRAINED]
    return run_scenarios(neox, tmp_path_factory.mktemp("trained"), scenarios, patched=True)


def scenario_of(name: str, corpora: Corpora) -> Scenario:
    # another number of iterations than `configs`: an index map of its own
    return scenario(file_name(name), ROUTES[name](corpora), TRAINED[name], {"train_iters": STEPS}, VALIDATION)


def file_name(route: str) -> str:
    return route.replace(", ", "-").replace(" ", "-")


@pytest.mark.parametrize("route", TRAINED)
def test_training_takes_these_samples_and_penalises_them(trained: dict[str, Outcome], route: str) -> None:
    run = trained[file_name(route)]
    reference = Reference(run.config, run.whole("initial"), 2, run.uncounted())
    expected = reference.train(STEPS)
    for key in ("objective", "lm_loss", "penalty_ce", "penalty_fraction"):
        assert run.series(key) == pytest.approx([getattr(step, key) for step in expected], abs=1e-5), key
    # every rank that computes a loss signs the same tokens
    for batch in range(STEPS):
        masks = [rank["masks"][batch] for rank in run.ranks]
        micro = list(reference.blend.micro_batches(batch))
        if run.config["model_parallel_size"] == 2 or run.config["pipe_parallel_size"] == 2:
            assert masks[0].equal(masks[1])
        else:
            for mask, samples in zip(masks, micro):
                codes = np.array([codes_of(sample)[1:] for sample in samples])
                assert np.array_equal(np.where(mask.numpy() < 0, -mask.numpy(), 0), codes * (mask.numpy() != 0))


def test_data_without_one_whole_sample_is_an_error_not_a_loop() -> None:
    """Every sample that NeoX would take instead of one that runs over the end runs over it itself."""
    from ifguide_patch.training.dataset import getitem

    class Short:
        seq_length = 8
        shuffle_idx = np.array([1, 0])
        sample_idx = np.array([[0, 0], [5, 0], [9, 0]])
        doc_idx = np.array([0])

        def __len__(self) -> int:
            return 2

    short: Any = Short()
    short.ifguide_source = SimpleNamespace(data_prefix="tokens", sample=None)
    with pytest.raises(InputError, match="tokens is too small"):
        getitem(lambda *_: {})(short, 0)
