"""The tasks that judge a model of a plan: all with the same prompts, samples, scorers and held-out texts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifguide.experiments.judging import Judging, judged_files, write_job
from ifguide.experiments.plans.commands import Commands, Given, Item, Made, Own
from ifguide.experiments.plans.plan import Plan
from ifguide.generation.options import GenerateOptions
from ifguide.system.children import Cost
from ifguide.system.files import read_json

MODEL = "model"  # the name in the files of one evaluation
_PROMPTS = 200  # a guess, where nothing is known yet


class Judge:
    """Adds the tasks."""

    def __init__(self, plan: Plan, commands: Commands):
        self.plan, self.commands = plan, commands

    def task(
        self,
        label: str,
        model: Made | Given,
        prompts: Made | Given,
        heldout: Mapping[str, Made | Given],
        scorers: Sequence[Item],
        decode: Mapping[str, Item],
        parameters: float,
    ) -> str:
        """Judge one model; returns the task's name. Its summary holds the numbers under ``numbers``.

        Args:
            heldout: name -> texts, the first one's perplexity has no name behind it.
            scorers: specs, the main one first.
            decode: fields of `GenerateOptions`.
            parameters: of the model.
        """
        asked = self.plan.evaluation
        specs = self.plan.evaluation.scorers
        first, *others = heldout

        def run(root: Path) -> Cost:
            texts = [self.commands.text(scorer, root) for scorer in scorers]
            judging = Judging(
                prompts=self.commands.path(prompts), heldout=self.commands.path(heldout[first]), scorer=texts[0],
                samples=asked.samples, max_new_tokens=asked.max_new_tokens, seed=asked.seed,
                more_scorers=tuple(texts[1:]),
                more_heldout={name: self.commands.path(heldout[name]) for name in others},
                decoding=GenerateOptions(**_plain(decode, self.commands, root)),
            )  # fmt: skip
            job = root / "job.json"
            write_job(job, MODEL, self.commands.path(model), judging, self.commands.children.threads)
            command = [sys.executable, "-m", "ifguide.experiments.judging", str(job)]
            return self.commands.children.run(command, self.commands.log(f"judge {label}"), f"judge {label}")

        def found(root: Path) -> dict[str, Any]:
            numbers = read_json(root / "numbers.json", "numbers")
            texts = [self.commands.text(scorer, root) for scorer in scorers]
            return {"numbers": _renamed(numbers, dict(zip(texts, specs)))}

        items: list[Item] = [
            *(f"{key} {getattr(asked, key)}" for key in ("samples", "max_new_tokens", "seed")), model, prompts,
        ]  # fmt: skip
        for name, text in heldout.items():
            items += [name, text]
        items += scorers
        for key in sorted(decode):
            items += [key, _item(decode[key])]
        work = float(_PROMPTS * asked.samples * asked.max_new_tokens) * parameters
        generated, scored = (str(path) for path in judged_files(Path(), MODEL))
        outputs = ["numbers.json", generated, scored]
        said = f"(generate, score-generations, perplexities of {label})"
        return self.commands.call("judge", label, items, outputs, work, run, said, found)

    def lambada(self, label: str, model: Made | Given, parameters: float) -> str | None:
        """Its LAMBADA, where the plan names the data; the summary holds the numbers under ``numbers``."""
        folder = self.plan.evaluation.lambada
        if folder is None:
            return None

        def found(root: Path) -> dict[str, Any]:
            task = read_json(root / "lambada/results.json", "results")["tasks"]["ifguide_lambada"]
            return {"numbers": {f"lambada_{one['metric']}": one["value"] for one in task["metrics"]}}

        items: list[Item] = ["evaluate", "--model", model, "--tasks", "ifguide_lambada", "--data", Given(folder)]
        items += ["--output", Own("lambada")]
        work = float((folder / "lambada.jsonl").stat().st_size) * parameters / 4
        return self.commands.verb("lambada", label, items, ["lambada/results.json"], work, found)


def _plain(decode: Mapping[str, Item], commands: Commands, root: Path) -> dict[str, Any]:
    return {
        key: commands.text(value, root) if isinstance(value, Made | Given | Own) else value
        for key, value in decode.items()
    }


def _item(value: Item | Any) -> Item:
    return value if isinstance(value, Made | Given | Own) else str(value)


def _renamed(numbers: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Metrics of further scorers by the names that the plan has for them, not by where their folders lie."""
    found = {}
    for key, value in numbers.items():
        metric, at, behind = key.partition("@")
        interval = "_interval" if behind.endswith("_interval") else ""
        spec = behind.removesuffix("_interval")
        found[f"{metric}@{names.get(spec, spec)}{interval}" if at else key] = value
    return found
