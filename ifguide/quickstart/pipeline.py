"""The main job, stage by stage: text -> tokens -> base model -> influence -> mask -> guided model -> report.

Every stage calls what the verbs call. Base, guided and control model share initialisation, sample
order, steps and schedule; they differ in the penalty keys alone. The control's mask has as many
tokens as the guided one's, drawn at random: it shows what is due to WHERE the penalty falls.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ifguide.data.preprocess import PreprocessOptions
from ifguide.data.sources.names import input_hash
from ifguide.errors import InputError
from ifguide.experiments.experiment import Experiment
from ifguide.experiments.judging import Judging
from ifguide.experiments.models import Model
from ifguide.experiments.stages import Stage, Stages
from ifguide.influence.options import FitOptions
from ifguide.quickstart import masking
from ifguide.quickstart.prepare import FILES, write_given_corpus, write_own_corpus
from ifguide.quickstart.settings import QuickstartSettings
from ifguide.system.files import read_json, read_jsonl, write_text
from ifguide.system.processes import release_freed_memory

_DATA = "data/corpus_text_document"
_MASK, _RANDOM_MASK = "data/mask", "data/random_mask"
_CONFIGS = Path(__file__).resolve().parent / "configs"
_SHAPE, _PENALTY = _CONFIGS / "model.yml", _CONFIGS / "penalty.yml"

# own text without a scorer: said before the work, and wherever its results are shown
OWN_JUDGE = (
    "do not rely on the toxicity numbers: without --scorer they come from a small classifier that is trained here, on "
    "half of your own queries and nothing else. It calls toxic whatever looks like the toxic ones (any tweet among "
    "prose, say), and it learned from the very texts that the mask comes from. Use a classifier that was made "
    "elsewhere: give the same command with --overwrite and --scorer hf:FOLDER#LABEL (any Hugging Face text classifier "
    "in a local folder), detoxify:original, toxigen-roberta, or linear:FOLDER (`ifguide train-classifier` on other "
    "queries)"
)
# own text with a classifier that is no other one
OWN_QUERIES = (
    "do not rely on the toxicity numbers: the classifier that --scorer names was trained on the very query files that "
    "the mask comes from, and a model that was kept from what these look like looks good to it. Judge with one that "
    "learned from other queries or from other people's labels"
)

MODELS = (
    Model("base", configs=(_SHAPE,), needs=("dataset",)),
    Model("guided", _MASK, (_SHAPE, _PENALTY), needs=("dataset", "masks")),
    Model("control", _RANDOM_MASK, (_SHAPE, _PENALTY), needs=("dataset", "masks")),
)


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
        if caution := _caution(settings):
            say(f"warning: {caution}")
        return Job(settings, Stages(settings.output.resolve(), say), say).run()
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # not empty: only input refused by the first stage leaves nothing
                settings.output.rmdir()


def _caution(settings: QuickstartSettings) -> str | None:
    """Why the judge's numbers are not to be relied on; None where nothing is known against it."""
    return OWN_JUDGE if settings.judges_itself else OWN_QUERIES if settings.judged_by_its_queries else None


class Job:
    """One quickstart, in the folder of ``stages``."""

    def __init__(self, settings: QuickstartSettings, stages: Stages, say: Callable[[str], None]):
        self.settings, self.stages, self.sizes = settings, stages, settings.sizes
        self.folder = stages.folder
        shared = {
            "data_path": str(self.folder / _DATA),
            "split": "100,0,0",
            "tokenizer_type": "HFTokenizer",
            "vocab_file": str(self.folder / "data/tokenizer.json"),
            "checkpoint_factor": 100_000,  # the last iteration is always saved
            "seed": settings.seed,
        }
        self.experiment = Experiment(stages, MODELS, shared, say, self.sizes.one_process)

    def run(self) -> dict[str, Any]:
        """Run (or resume) every stage; returns what ``results.json`` holds."""
        started = time.monotonic()
        corpus = self.stages.run(self._corpus())
        self.stages.run(self._tokenizer())
        self.stages.run_together([self._dataset(), self._judge()])
        self.experiment.train("base")
        self.stages.run(self._factors())
        self.stages.run(self._scores())
        if self.settings.input:
            self.stages.run(self._suspects())
        mask = self.stages.run(self._masks())
        release_freed_memory()
        self.experiment.train("guided", "control")
        judged = self.experiment.judge(self._judging(), needs=["judge"])
        about = {"mask": mask["mask"], "corpus": corpus, "judge": self._judge_record(), "seed": self.settings.seed}
        results = self.experiment.finish(judged | about, self._report)
        self.experiment.record(asdict(self.settings), FILES.values(), time.monotonic() - started)
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
            key = {"inputs": [input_hash(path) for path in paths], "seed": settings.seed}
            return Stage("corpus", given, key, outputs=names)
        own = replace(self.sizes.corpus, seed=settings.seed)
        key = {**asdict(own), "interpreter": _interpreter()}
        return Stage("corpus", lambda: write_own_corpus(self.folder, own), key, outputs=list(FILES.values()))

    def _tokenizer(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.data.text.bpe import train_bpe

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
                options=PreprocessOptions(append_eod=True),
            )

        return Stage("dataset", work, {}, ("tokenizer",), [f"{_DATA}.{suffix}" for suffix in ("bin", "idx", "json")])

    def _judge(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.scorers.linear import train_linear

            rows = read_jsonl(self.folder / FILES["judge"])
            labels = [row["label"] for row in rows]
            return train_linear([row["text"] for row in rows], labels, self.folder / "judge", seed=self.settings.seed)

        return Stage("judge", work, {}, ("corpus",), ("judge/config.json", "judge/weights.npz"))

    def _factors(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.influence.curvature.job import fit_factors

            options = FitOptions(max_tokens=self.sizes.factor_tokens, seed=self.settings.seed)
            return fit_factors(self.folder / "models/base", self.folder / _DATA, self.folder / "factors", options)

        key = {"max_tokens": self.sizes.factor_tokens, "seed": self.settings.seed}
        return Stage("factors", work, key, ("model base",), ("factors/factors.json", "factors/factors.safetensors"))

    def _scores(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.influence.behaviours import QueryFiles
            from ifguide.influence.job import Inputs
            from ifguide.influence.options import Method, Options
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

    def _suspects(self) -> Stage:
        def work() -> dict[str, Any]:
            queries = self.folder / FILES["toxic_queries"], self.folder / FILES["safe_queries"]
            return masking.find_suspects(self.folder, self.folder / _DATA, *queries, seed=self.settings.seed)

        outputs = [f"{masking.CLASSIFIER}/config.json", *(f"{masking.SUSPECTS}.{name}" for name in ("bin", "json"))]
        return Stage("suspects", work, {"span": masking.SPAN, "seed": self.settings.seed}, ("dataset",), outputs)

    def _masks(self) -> Stage:
        by_spans = self.settings.input is not None

        def work() -> dict[str, Any]:
            built = masking.write_masks(
                self.folder,
                self.folder / "data/scores",
                self.folder / _MASK,
                self.folder / _RANDOM_MASK,
                self.settings.selection,
                self.settings.seed,
                by_spans,
            )
            return {"mask": self._mask_quality() | built}

        key = asdict(self.settings.selection)
        if by_spans:
            key = {"most_suspected": masking.MOST_SUSPECTED, "tokens_within": masking.TOKENS_WITHIN}
        needs = ("scores", "suspects") if by_spans else ("scores",)
        return Stage("masks", work, key, needs, [f"{mask}.bin" for mask in (_MASK, _RANDOM_MASK)])

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
        mask = load_aligned(self.folder / _MASK, tokens, PENALTIES)
        return dict(mask_quality(mask.values > 0, planted)) | {"planted_share": float(planted.inside.mean())}

    def _judging(self) -> Judging:
        return Judging(
            prompts=self.folder / FILES["prompts"],
            heldout=self.folder / FILES["heldout"],
            scorer=self.settings.scorer or f"linear:{self.folder / 'judge'}",
            samples=self.sizes.samples,
            max_new_tokens=self.sizes.max_new_tokens,
            seed=self.settings.seed,
        )

    def _judge_record(self) -> dict[str, Any]:
        """Who judged, and how well the trained judge does on texts that it did not learn from."""
        if self.settings.scorer:
            record = {"scorer": self.settings.scorer, "heldout": None}
        else:
            record = {"scorer": "linear", "heldout": read_json(self.folder / "judge/config.json")["report"]}
        caution = _caution(self.settings)
        return record | ({"warning": caution} if caution else {})

    def _report(self, results: dict[str, Any]) -> Stage:
        def work() -> None:
            from ifguide.quickstart.report import report_page

            write_text(self.folder / "report.html", report_page(self.folder, results))

        return Stage("report", work, {}, ("evaluation", "masks"), ("report.html",))


def _interpreter() -> str:
    """The corpus is text of the running interpreter: another version is another corpus."""
    import platform

    return platform.python_version()
