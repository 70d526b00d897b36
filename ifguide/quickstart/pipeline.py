"""The main job, stage by stage: text -> tokens -> base model -> influence -> mask -> guided model -> report.

Every stage calls what the verbs call. Base, guided and control model share initialisation, sample
order, steps and schedule; they differ in the penalty keys alone. The control's mask has as many
tokens as the guided one's, drawn at random: it shows what is due to WHERE the penalty falls.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.experiments.stages import Stage, Stages
from ifguide.quickstart.prepare import FILES, write_given_corpus, write_own_corpus
from ifguide.quickstart.sizes import Sizes
from ifguide.quickstart.training import CONFIGS, publish_model, train, train_here, write_overlay
from ifguide.selection import SelectionSettings
from ifguide.system.allocator import release_freed_memory
from ifguide.system.files import hash_file, read_json, read_jsonl, write_json, write_jsonl, write_text

MODELS = ("base", "guided", "control")

_DATA = "data/corpus_text_document"
_MODEL_CONFIG = CONFIGS / "model.yml"
_PENALTY_CONFIG = CONFIGS / "penalty.yml"


@dataclass(frozen=True)
class QuickstartSettings:
    """What to run.

    Attributes:
        output: folder for everything.
        seed: of corpus, initialisation, sample order, factors, generation.
        input, toxic_queries, safe_queries: the user's own text instead of the built-in corpus (all or none).
        scorer: a scorer for the evaluation (see `ifguide.scorers.registry`) instead of the trained judge.
        sizes: how much of everything.
        selection: parameters of Algorithm 1.
    """

    output: Path
    seed: int = 1
    input: Path | None = None
    toxic_queries: Path | None = None
    safe_queries: Path | None = None
    scorer: str | None = None
    sizes: Sizes = field(default_factory=Sizes)
    selection: SelectionSettings = field(
        default_factory=lambda: SelectionSettings(threshold_quantile=0.99, window=1, max_fraction=0.02)
    )

    def __post_init__(self) -> None:
        given = [self.input, self.toxic_queries, self.safe_queries]
        if any(given) and not all(given):
            raise InputError("own text needs all of --input, --toxic-queries and --safe-queries")
        missing = [str(path) for path in given if path and not path.is_file()]
        if missing:
            raise InputError(f"{', '.join(missing)}: no such file; give JSONL files that exist")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must not be negative")


def run_quickstart(
    settings: QuickstartSettings, say: Callable[[str], None], check: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Run (or resume) the whole job in ``settings.output``; returns what ``results.json`` holds.

    Args:
        check: called before the first stage, when settings and folder are known to be usable.

    Raises:
        IFGuideError: unusable input, or a stage that failed; finished stages are kept.
    """
    if settings.scorer:
        from ifguide.scorers.registry import load_scorer

        load_scorer(settings.scorer)  # used at the very end: a mistake must not wait for it
    is_new = not settings.output.exists()
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {settings.output}: cannot be made ({error.strerror}); choose another folder"
        ) from None
    try:
        check()
        return Job(settings, Stages(settings.output.resolve(), say), say).run()
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # not empty: only input refused by the first stage leaves nothing
                settings.output.rmdir()


class Job:
    """One quickstart, in the folder of ``stages``."""

    def __init__(self, settings: QuickstartSettings, stages: Stages, say: Callable[[str], None]):
        self.settings, self.stages, self.say = settings, stages, say
        self.sizes, self.folder = settings.sizes, stages.folder
        self.cores = os.cpu_count() or 1
        self.half_cores = max(1, self.cores // 2)

    def run(self) -> dict[str, Any]:
        """Run (or resume) every stage; returns what ``results.json`` holds."""
        started = time.monotonic()
        corpus = self.stages.run(self._corpus())
        self.stages.run(self._tokenizer())
        self.stages.run_together([self._dataset(), self._judge()])
        self.stages.run(self._model("base", threads=self.cores))
        self.stages.run(self._factors())
        self.stages.run(self._scores())
        mask = self.stages.run(self._masks())
        release_freed_memory()
        pair = [self._model(name, self.half_cores) for name in ("guided", "control")]
        if self.sizes.one_process:
            for stage in pair:
                self.stages.run(stage)
        else:
            self.stages.run_together(pair)
        judged = self.stages.run(self._evaluation())
        results = {
            **judged["models"],
            "mask": mask["mask"],
            "corpus": corpus,
            "judge": judged["judge"],
            "seconds": self.stages.seconds,
            "seed": self.settings.seed,
        }
        write_json(self.folder / "results.json", results)
        self.stages.run(self._report(results))
        results["seconds"] = self.stages.seconds
        write_json(self.folder / "results.json", results)
        self._record(time.monotonic() - started)
        return results

    def _corpus(self) -> Stage:
        settings = self.settings
        if settings.input and settings.toxic_queries and settings.safe_queries:
            paths = settings.input, settings.toxic_queries, settings.safe_queries

            def given() -> dict[str, Any]:
                counts = write_given_corpus(self.folder, *paths, settings.seed)
                (self.folder / FILES["planted"]).unlink(missing_ok=True)
                return counts

            names = [name for key, name in FILES.items() if key != "planted"]
            key = {"inputs": [hash_file(path) for path in paths], "seed": settings.seed}
            return Stage("corpus", given, key, outputs=names)
        own = replace(self.sizes.corpus, seed=settings.seed)
        key = {**asdict(own), "interpreter": _interpreter()}
        return Stage("corpus", lambda: write_own_corpus(self.folder, own), key, outputs=list(FILES.values()))

    def _tokenizer(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.quickstart.bpe import train_bpe

            (self.folder / "data").mkdir(exist_ok=True)
            texts = [row["text"] for row in read_jsonl(self.folder / FILES["corpus"])]
            return {"vocab_size": train_bpe(texts, self.sizes.vocab_size, self.folder / "data/tokenizer.json")}

        key = {"vocab_size": self.sizes.vocab_size}
        return Stage("tokenizer", work, key, ("corpus",), ("data/tokenizer.json",))

    def _dataset(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.data.preprocess import preprocess

            return preprocess(
                [self.folder / FILES["corpus"]],
                self.folder / "data/corpus",
                "HFTokenizer",
                self.folder / "data/tokenizer.json",
                append_eod=True,
            )

        return Stage("dataset", work, {}, ("tokenizer",), [f"{_DATA}.{suffix}" for suffix in ("bin", "idx", "json")])

    def _judge(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.scorers.linear import train_linear

            rows = read_jsonl(self.folder / FILES["judge"])
            labels = [row["label"] for row in rows]
            return train_linear([row["text"] for row in rows], labels, self.folder / "judge", seed=self.settings.seed)

        return Stage("judge", work, {}, ("corpus",), ("judge/config.json", "judge/weights.npz"))

    def _model(self, name: str, threads: int) -> Stage:
        """Base: no penalty. Guided and control: the same files and the penalty keys."""
        run = self.folder / "checkpoints" / name
        configs = [_MODEL_CONFIG, self.folder / "configs" / f"{name}.yml"]
        keys = {
            "data_path": str(self.folder / _DATA),
            "split": "100,0,0",
            "tokenizer_type": "HFTokenizer",
            "vocab_file": str(self.folder / "data/tokenizer.json"),
            "save": str(run),
            "checkpoint_factor": 100_000,  # the last iteration is always saved
            "seed": self.settings.seed,
        }
        needs = ["dataset"]
        if name != "base":
            keys["penalty_data_path"] = str(self.folder / "data" / _mask_name(name))
            configs.insert(1, _PENALTY_CONFIG)
            needs += ["masks"]
        shared = {f"quickstart/{path.name}": hash_file(path) for path in configs[:-1]}

        def work() -> dict[str, Any]:
            overlay = self.folder / "configs" / f"{name}.yml"
            write_overlay(overlay, f"What the {name} run adds to {', '.join(shared)}", keys)
            trained = run
            log = self.folder / "logs" / f"{name}.log"
            if name == "base" or not self.sizes.one_process:
                train(configs, log, name, threads, self.say)
            elif name == "guided":
                train_here(configs, log, name, threads, self.say)
            else:  # DeepSpeed lets a process train once; the control differs by the values of its mask alone
                trained = run.with_name("guided")
            publish_model(trained, self.folder / "models" / name)
            return {}

        outputs = (f"models/{name}/config.json", f"models/{name}/model.safetensors")
        return Stage(f"model {name}", work, {"configs": shared, "keys": keys}, needs, outputs)

    def _factors(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.influence.curvature.job import fit_factors

            return fit_factors(
                self.folder / "models/base",
                self.folder / _DATA,
                self.folder / "factors",
                max_tokens=self.sizes.factor_tokens,
                seed=self.settings.seed,
            )

        key = {"max_tokens": self.sizes.factor_tokens, "seed": self.settings.seed}
        return Stage("factors", work, key, ("model base",), ("factors/factors.json", "factors/factors.safetensors"))

    def _scores(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.influence.behaviours import QueryFiles
            from ifguide.influence.job import Inputs, Options
            from ifguide.influence.passes.method import Method
            from ifguide.influence.score import score

            queries = QueryFiles(self.folder / FILES["toxic_queries"], self.folder / FILES["safe_queries"])
            inputs = Inputs(
                self.folder / "models/base",
                self.folder / _DATA,
                self.folder / "factors",
                [queries],
                self.folder / "data/scores",
            )
            return score(inputs, Options(Method(method="jvp")))

        return Stage("scores", work, {}, ("factors",), ("data/scores.bin", "data/scores.idx", "data/scores.json"))

    def _masks(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.masks import build_mask

            scores, selection = self.folder / "data/scores", self.settings.selection
            built = build_mask(scores, self.folder / "data" / _mask_name("guided"), selection)
            build_mask(
                scores,
                self.folder / "data" / _mask_name("control"),
                selection,
                method="random",
                seed=self.settings.seed,
            )
            quality = self._mask_quality()
            quality |= {"fraction": built["fraction"], "tokens": built["selected"], "threshold": built["threshold"]}
            return {"mask": quality}

        outputs = [f"data/{_mask_name(name)}.bin" for name in ("guided", "control")]
        return Stage("masks", work, asdict(self.settings.selection), ("scores",), outputs)

    def _mask_quality(self) -> dict[str, Any]:
        """Precision and recall where the truth is known, else None for both."""
        if self.settings.input:
            return {"precision": None, "recall": None}
        from tokenizers import Tokenizer

        from ifguide.data.aligned import load_aligned
        from ifguide.data.indexed import TokenDataset
        from ifguide.data.sidecar import PENALTIES
        from ifguide.quickstart.truth import mask_quality, planted_tokens

        texts = [row["text"] for row in read_jsonl(self.folder / FILES["corpus"])]
        tokenizer = Tokenizer.from_file(str(self.folder / "data/tokenizer.json"))
        tokens = TokenDataset.open(self.folder / _DATA)
        planted = planted_tokens(texts, read_jsonl(self.folder / FILES["planted"]), tokenizer, tokens.starts)
        mask = load_aligned(self.folder / "data" / _mask_name("guided"), tokens, PENALTIES)
        return dict(mask_quality(mask.values > 0, planted)) | {"planted_share": float(planted.inside.mean())}

    def _evaluation(self) -> Stage:
        scorer = self.settings.scorer or f"linear:{self.folder / 'judge'}"

        def work() -> dict[str, Any]:
            from ifguide.quickstart.judgement import JudgementTask, judge_models

            tasks = [
                JudgementTask(
                    name,
                    self.folder / "models" / name,
                    self.folder / FILES["prompts"],
                    self.folder / FILES["heldout"],
                    scorer,
                    self.settings.seed,
                    self.half_cores,
                    self.sizes.samples,
                    self.sizes.max_new_tokens,
                )
                for name in MODELS
            ]
            judged = judge_models(tasks, self.sizes.one_process)
            write_jsonl(self.folder / "generations.jsonl", [row for _, rows in judged for row in rows])
            report = None if self.settings.scorer else read_json(self.folder / "judge/config.json")["report"]
            return {
                "models": {task.name: numbers for task, (numbers, _) in zip(tasks, judged)},
                "judge": {"scorer": self.settings.scorer or "linear", "heldout": report},
            }

        needs = ("judge", *(f"model {name}" for name in MODELS))
        key = {"scorer": scorer, "seed": self.settings.seed}
        key |= {"samples": self.sizes.samples, "max_new_tokens": self.sizes.max_new_tokens}
        return Stage("evaluation", work, key, needs, ("generations.jsonl",))

    def _report(self, results: dict[str, Any]) -> Stage:
        def work() -> None:
            from ifguide.quickstart.report import report_page

            write_text(self.folder / "report.html", report_page(self.folder, results))

        return Stage("report", work, {}, ("evaluation", "masks"), ("report.html",))

    def _record(self, seconds: float) -> None:
        from ifguide.system.provenance import write_run_record

        settings = {
            key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.settings).items()
        }
        write_run_record(
            self.folder,
            settings=settings,
            stages=self.stages.seconds,
            seconds_of_this_call=round(seconds, 2),
            inputs={name: hash_file(self.folder / name) for name in FILES.values() if (self.folder / name).exists()},
        )


def _mask_name(model: str) -> str:
    return {"guided": "mask", "control": "random_mask"}[model]


def _interpreter() -> str:
    """The corpus is text of the running interpreter: another version is another corpus."""
    import platform

    return platform.python_version()
