"""Train models, judge them all with one evaluation, collect the results: the part that all experiments share.

A plan (the quickstart is one) makes data and penalties by stages of its own, and says which models there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ifguide.experiments.judging import Judging, collect_generations, judge_models, judged_files
from ifguide.experiments.models import Model, Way, check_models, model_stage
from ifguide.experiments.stages import Stage, Stages
from ifguide.system.files import hash_file, write_json, write_jsonl

EVALUATION = "evaluation"  # the stage, and the folder of its files
_TOGETHER = 2  # trainings, or evaluations, at the same time
_RESULTS, _GENERATIONS = "results.json", "generations.jsonl"


class Experiment:
    """Models trained on the same data and judged by one evaluation, in the folder of ``stages``.

    Attributes:
        models: in the order of the results.
        stages: that run here; a plan adds its own.
        folder: of everything.
    """

    def __init__(
        self,
        stages: Stages,
        models: Sequence[Model],
        shared: Mapping[str, Any],
        say: Callable[[str], None],
        one_process: bool = False,
    ):
        """
        Args:
            shared: training keys of all models.
            say: hears the lines of the trainings.
            one_process: everything in the calling process, but for the first model's training, which is started as
                ever. Of the others the first is trained here and the rest take its result: a toy of the job.

        Raises:
            InputError: models that cannot be told apart.
        """
        check_models(models)
        self.stages, self.models, self.folder = stages, tuple(models), stages.folder
        self._shared, self._say = shared, say
        self._one_process = one_process
        self._cores = os.cpu_count() or 1

    def train(self, *names: str) -> None:
        """Train the models of these names, or keep them; two at a time share the cores."""
        by_name = {model.name: model for model in self.models}
        chosen = [by_name[name] for name in names]
        together = 1 if self._one_process else _TOGETHER
        for start in range(0, len(chosen), together):
            some = [self._training(model, len(chosen)) for model in chosen[start : start + together]]
            if len(some) == 1:
                self.stages.run(some[0])  # in the caller's thread
            else:
                self.stages.run_together(some)

    def judge(self, judging: Judging, needs: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Judge all models, each of which `train` must have made, and write ``generations.jsonl``.

        Args:
            needs: stages that made the prompts, the held-out text and the scorer.

        Returns:
            The numbers of each model by its name, as they stand in ``results.json``.
        """
        folder, names = self.folder / EVALUATION, [model.name for model in self.models]

        def work() -> dict[str, Any]:
            models = {model.name: model.folder(self.folder) for model in self.models}
            processes = 0 if self._one_process else _TOGETHER
            judged = judge_models(models, judging, folder, self._threads(_TOGETHER), processes)
            write_jsonl(self.folder / _GENERATIONS, collect_generations(names, folder))
            return {"models": judged}

        needs = (*needs, *(model.stage for model in self.models))
        made = [path for name in names for path in judged_files(folder, name)]
        outputs = [_GENERATIONS, *(str(path.relative_to(self.folder)) for path in made)]
        return self.stages.run(Stage(EVALUATION, work, judging.key(), needs, outputs))["models"]

    def finish(self, results: Mapping[str, Any], page: Callable[[dict[str, Any]], Stage]) -> dict[str, Any]:
        """Write ``results.json`` of ``results`` and the seconds of all stages.

        Args:
            page: the stage that shows the results; it finds them written, its own seconds missing.

        Returns:
            What the file holds.
        """
        results = {**results, "seconds": self.stages.seconds}
        write_json(self.folder / _RESULTS, results)
        self.stages.run(page(results))
        results["seconds"] = self.stages.seconds
        write_json(self.folder / _RESULTS, results)
        return results

    def record(self, settings: Mapping[str, Any], inputs: Iterable[str], seconds: float) -> None:
        """Write ``run.json``, last of all: it says that everything is there.

        Args:
            settings: of the plan.
            inputs: files of the folder that the stages read; those that are missing are left out.
            seconds: that this call took.
        """
        from ifguide.system.provenance import write_run_record

        present = [name for name in inputs if (self.folder / name).exists()]
        write_run_record(
            self.folder,
            settings={key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
            stages=self.stages.seconds,
            seconds_of_this_call=round(seconds, 2),
            inputs={name: hash_file(self.folder / name) for name in present},
        )

    def _training(self, model: Model, beside: int) -> Stage:
        """The stage of ``model``, one of ``beside`` that are to be trained."""
        way = Way(self._threads(beside))
        place = self.models.index(model)
        if self._one_process and place:
            # DeepSpeed lets a process train once; the others would run the same code on other values
            way = replace(way, here=place == 1, copy_of=self.models[1].name if place > 1 else None)
        return model_stage(model, self.folder, self._shared, way, self._say)

    def _threads(self, count: int) -> int:
        """CPU threads of each of ``count`` processes, of which at most `_TOGETHER` run at the same time."""
        return max(1, self._cores // min(count, _TOGETHER))
