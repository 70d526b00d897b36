"""From a cell of a plan to the tasks that make and judge it.

text -> tokenizer -> tokens -> base model -> factors -> scores -> mask -> model -> judged; whatever two cells share is
made once. Each task is a command of this program (`ifguide.experiments.plans.commands`) or a training run
(`ifguide.experiments.models`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.experiments.models import Model, Way, model_stage
from ifguide.experiments.plans.commands import Commands, Given, Item, Made, Own, flags
from ifguide.experiments.plans.judged import Judge
from ifguide.experiments.plans.plan import Cell, ModelPlan, Plan, merged_with
from ifguide.experiments.plans.sizes import parameters, trained_tokens
from ifguide.experiments.plans.texts import CLASSIFIER, Texts
from ifguide.system.files import hash_value

_PIECES = 512  # tokens of a document that a filter by a scorer reads at a time
_PROMPTS = 400  # that pairs are drawn from, about
_BY_SCORES = ("influence", "random", "wordlist", "document")
INFLUENCE = "influence"


@dataclass(frozen=True)
class Ready:
    """A cell and its tasks.

    Attributes:
        judge: the task whose summary holds its numbers.
        lambada: the task of its LAMBADA, if there is one.
        model: the task that made its model; None for one that was given.
        trained_tokens: by the trainings of its model, those that it builds on among them.
        extra: what it needs beside the text, in words.
    """

    cell: Cell
    judge: str
    lambada: str | None
    model: str | None
    trained_tokens: float
    extra: tuple[str, ...]


@dataclass(frozen=True)
class _Trained:
    """A model: its folder, the task behind it, and what it took."""

    folder: Made | Given
    task: str | None
    plan: ModelPlan
    tokens: float = 0.0
    extra: tuple[str, ...] = field(default=())


class Recipes:
    """Adds tasks to ``commands`` until every cell can be judged."""

    def __init__(self, plan: Plan, commands: Commands):
        self.plan, self.commands = plan, commands
        self._judge = Judge(plan, commands)
        self.texts = Texts(plan, commands)

    def ready(self, cell: Cell) -> Ready:
        """The tasks of one cell.

        Raises:
            InputError: something that the cell needs is not in the plan.
        """
        below = cell.definition.get("of")
        trained = self._trained(self._of(cell, below) if below else cell)
        decode, extra = self._decoding(cell)
        prompts, heldout = self.texts.file(cell, "prompts"), self.texts.heldout(cell)
        label = f"{self.plan.label(cell).replace('/', '-')}-{cell.seed}"
        scorers = [self.texts.spec(cell, spec) for spec in self.plan.evaluation.scorers]
        numbers = parameters(trained.plan.keys)
        judge = self._judge.task(label, trained.folder, prompts, heldout, scorers, decode, numbers)
        lambada = self._judge.lambada(label, trained.folder, numbers)
        said = cell.definition.get("extra", [])
        needed = tuple(dict.fromkeys([*trained.extra, *extra, *([said] if isinstance(said, str) else said)]))
        return Ready(cell, judge, lambada, trained.task, trained.tokens, needed)

    def _of(self, cell: Cell, method: str) -> Cell:
        """``cell`` of another method, with the same setting where that is for it."""
        changes = self.plan.settings.get(cell.setting, {})
        definition = self.plan.methods[method]
        if method in changes.get("methods", ()):
            changed = {key: value for key, value in changes.items() if key not in ("methods", "curve")}
            return replace(cell, method=method, definition=merged_with(definition, changed))
        return replace(cell, method=method, setting="default", definition=definition)

    # ---- models ----

    def _trained(self, cell: Cell) -> _Trained:
        definition = cell.definition
        model = self._model(definition.get("model"))
        if definition.get("trained") is False:
            if model.load is None:
                raise InputError(f"{self.plan.path}: methods.{cell.method}: trained: false needs a model with load")
            return _Trained(Given(model.load), None, model)
        keys = merged_with(merged_with(model.keys, self.plan.train), definition.get("train") or {})
        data, before = self.texts.tokens(cell, model), 0.0
        extra: list[str] = []
        more: dict[str, Item] = {}
        if definition.get("mask") is not None:
            more["penalty_data_path"], found = self._mask(cell, model)
            extra += found
        for key, make in (("filter", self._filtered), ("tags", self._tagged)):
            if definition.get(key) is not None:
                data, found = make(cell, model)
                extra += found
        if definition.get("tags") is not None:  # a model shall learn from tags, and not to write them
            more["penalty_data_path"] = Made(data.task, "tags")
            keys.setdefault("penalty_lambda", 0.0)
        if definition.get("pairs") is not None:
            more["pairs_data_path"], found = self._pairs(cell, model)
            extra += found
        if (first := self._first(cell)) is not None:
            more["load"], before = first.folder, first.tokens
            extra = [*first.extra, *extra]
        elif model.load is not None:
            more["load"] = Given(model.load)
        if "load" in more:
            keys["finetune"] = True
        task = self._train(cell, model, keys, data, more)
        count = trained_tokens(keys, self.texts.count(cell, model))
        folder = Made(task, "")
        return _Trained(folder, task, model, before + count, tuple(extra))

    def _train(
        self, cell: Cell, model: ModelPlan, keys: Mapping[str, Any], data: Made, more: Mapping[str, Item]
    ) -> str:
        commands = self.commands
        tokenizer = self.texts.tokenizer(cell, model)
        known, needs = commands.identity([data, *more.values(), *tokenizer])
        marked = hash_value([dict(keys), cell.seed, known, sorted(more)])[:8]
        label = f"{self.plan.label(cell).replace('/', '-')}-{cell.seed}"
        name = commands.known("model ", f"-{marked}", label).removeprefix("model ")
        vocabulary = dict(zip(tokenizer[::2], tokenizer[1::2]))
        names = {"--tokenizer-type": "tokenizer_type", "--vocab-file": "vocab_file", "--merge-file": "merge_file"}
        paths = {names[str(flag)]: commands.text(item, Path()) for flag, item in vocabulary.items()}
        paths |= {key: commands.text(item, Path()) for key, item in more.items()}
        whole = {
            "split": "100,0,0", "eval_iters": 0, "checkpoint_factor": 100_000, **keys, **paths,
            "data_path": commands.text(data, Path()), "seed": cell.seed,
        }  # fmt: skip
        way = Way(commands.children.threads, children=commands.children, keeps_weights=False)
        stage = model_stage(Model(name, keys=whole, needs=tuple(needs)), commands.folder, {}, way, commands.say)
        count = trained_tokens(keys, self.texts.count(cell, model))
        said = f"python deepy.py train.py {commands.folder / 'configs' / name}.yml"
        root = commands.folder / "models" / name
        return commands.stage(stage, root, "model", count * parameters(keys), said)

    def _model(self, name: str | None) -> ModelPlan:
        return self.plan.models[name or next(iter(self.plan.models))]

    def _first(self, cell: Cell) -> _Trained | None:
        """The model of another method that the cell's training starts from."""
        below = cell.definition.get("after")
        return self._trained(self._of(cell, below)) if below else None

    def _base(self, cell: Cell, model: ModelPlan) -> _Trained:
        """The model trained on the text alone, which scores, and which makes pairs for a training that starts anew."""
        definition = {"model": model.name}
        # the keys of a training that starts from another model say how long that one is, not the base's
        changed = {} if cell.definition.get("after") else cell.definition.get("train") or {}
        # a sweep over how long is trained is one over the proxy too; how it is guided is not
        keys = {key: value for key, value in changed.items() if key in ("train_iters", "train_epochs")}
        if model.load is not None:
            return _Trained(Given(model.load), None, model)
        return self._trained(replace(cell, method="base", setting="default", definition={**definition, "train": keys}))

    # ---- scores ----

    def _scoring(self, cell: Cell, step: str) -> Mapping[str, Any]:
        return merged_with(self.plan.scoring, cell.definition.get("scoring") or {}).get(step) or {}

    def _scores(self, cell: Cell, model: ModelPlan, toxic_alone: bool = False) -> Made:
        """Influence of the tokens that ``model`` reads, by the proxy."""
        proxy = self._model(cell.definition.get("proxy") or model.name)
        tokens = self.texts.tokens(cell, proxy)
        base = self._base(cell, proxy)
        work = self.texts.count(cell, proxy) * parameters(proxy.keys)
        fit = merged_with({"max_tokens": 40_000, "seed": cell.seed}, self._scoring(cell, "fit"))
        label = f"{cell.corpus}-{proxy.name}-{cell.seed}"
        items: list[Item] = [
            "fit-factors",
            "--model",
            base.folder,
            "--data",
            tokens,
            *flags(fit),
            "--output",
            Own("factors"),
        ]
        outputs = ["factors/factors.json", "factors/factors.safetensors"]
        factors = self.commands.verb("factors", label, items, outputs, fit["max_tokens"] * parameters(proxy.keys))
        items = ["score", "--model", base.folder, "--data", tokens, "--factors", Made(factors, "factors")]
        items += ["--toxic-queries", self.texts.file(cell, "toxic_queries")]
        items += ["--toxic-alone"] if toxic_alone else ["--safe-queries", self.texts.file(cell, "safe_queries")]
        items += [*flags(self._scoring(cell, "score")), "--output", Own("scores")]
        dataset = [f"scores.{end}" for end in ("bin", "idx", "json")]
        scores = Made(self.commands.verb("scores", label, items, dataset, work), "scores")
        if self.texts.tokenizer(cell, proxy) == self.texts.tokenizer(cell, model):
            return scores
        items = ["transfer-scores", "--scores", scores, "--data", tokens, "--to-data", self.texts.tokens(cell, model)]
        items += [*flags(self._scoring(cell, "transfer")), "--output", Own("scores")]
        label = f"{label}-to-{model.name}"
        return Made(self.commands.verb("transfer", label, items, dataset, work), "scores")

    # ---- masks, filters, tags, pairs ----

    def _mask(self, cell: Cell, model: ModelPlan) -> tuple[Made, list[str]]:
        items, extra = self._selection(cell, model, dict(cell.definition["mask"]))
        label = f"{self.plan.label(cell).replace('/', '-')}-{cell.seed}"
        outputs = [f"mask.{end}" for end in ("bin", "idx", "json")]
        items = [*items, "--output", Own("mask")]
        return Made(self.commands.verb("mask", label, items, outputs, self.texts.count(cell, model)), "mask"), extra

    def _filtered(self, cell: Cell, model: ModelPlan) -> tuple[Made, list[str]]:
        items, extra = self._selection(cell, model, {"method": "document", **cell.definition["filter"]})
        label = f"{self.plan.label(cell).replace('/', '-')}-{cell.seed}"
        outputs = [f"left.{end}" for end in ("bin", "idx", "json")]
        items = [*items, "--filtered-output", Own("left")]
        return Made(self.commands.verb("filter", label, items, outputs, self.texts.count(cell, model)), "left"), extra

    def _selection(self, cell: Cell, model: ModelPlan, options: dict[str, Any]) -> tuple[list[Item], list[str]]:
        """``build-mask`` without its outputs, and what it needs beside the text."""
        method = options.get("method", INFLUENCE)
        items: list[Item] = ["build-mask"]
        extra: list[str] = []
        rank_by = options.get("rank_by")
        spec = options.pop("scorer", CLASSIFIER)
        if method == CLASSIFIER:
            items += ["--data", self.texts.tokens(cell, model), "--scorer", self.texts.spec(cell, spec)]
            extra.append("toxic and safe queries" if spec == CLASSIFIER else f"scorer {spec}")
        if rank_by in ("scorer", "words"):  # of words any scores do: they say which tokens are meant
            items += ["--scores", self.texts.suspects(cell, model, spec, f"window:{_PIECES}")]
            if rank_by == "scorer":
                extra.append("toxic and safe queries" if spec == CLASSIFIER else f"scorer {spec}")
        elif method in _BY_SCORES or "tokens_within" in options:
            items += ["--scores", self._scores(cell, model, toxic_alone=rank_by == "toxic")]
            if method not in ("random", "wordlist"):
                extra.append("toxic queries" if rank_by == "toxic" else "toxic and safe queries")
        if method == "wordlist" or rank_by == "words":
            items += ["--wordlist", self.texts.file(cell, "words"), *self.texts.tokenizer(cell, model)]
            extra.append("word list")
        if method in ("random", "wordlist") or options.get("tokens_within_order") == "random":
            options.setdefault("seed", cell.seed)
        for key in ("span_scores", "combine", "within"):
            for words in self._rankings(key, options.pop(key, None)):
                items.append(f"--{key.replace('_', '-')}")
                items += [self._ranking(cell, model, word, options.get("span", "line")) for word in words]
        return [*items, *flags(options)], extra

    def _rankings(self, key: str, given: Any) -> list[list[str]]:
        """Values of an option that names scores, ready to be repeated."""
        if given is None:
            return []
        rows = given if isinstance(given, list) and given and isinstance(given[0], list) else [given]
        return [[str(word) for word in (row if isinstance(row, list) else [row])] for row in rows]

    def _ranking(self, cell: Cell, model: ModelPlan, word: str, span: str) -> Item:
        """``influence`` and ``classifier`` stand for their scores; all else is as it is."""
        if word == INFLUENCE:
            return self._scores(cell, model)
        return self.texts.suspects(cell, model, CLASSIFIER, span) if word == CLASSIFIER else word

    def _tagged(self, cell: Cell, model: ModelPlan) -> tuple[Made, list[str]]:
        options = dict(cell.definition["tags"])
        by = options.pop("scores", CLASSIFIER)
        span = options.setdefault("span", "line")
        scores = self._scores(cell, model) if by == INFLUENCE else self.texts.suspects(cell, model, by, span)
        items: list[Item] = [
            "build-tags",
            "--scores",
            scores,
            "--data",
            self.texts.tokens(cell, model),
            *flags(options),
        ]
        outputs = [f"{name}.{end}" for name in ("tagged", "tags") for end in ("bin", "idx", "json")]
        label = f"{self.plan.label(cell).replace('/', '-')}-{cell.seed}"
        items += ["--output", Own("tagged"), "--mask-output", Own("tags")]
        task = self.commands.verb("tags", label, items, outputs, self.texts.count(cell, model))
        return Made(task, "tagged"), ["toxic and safe queries"]

    def _pairs(self, cell: Cell, model: ModelPlan) -> tuple[Made | Given, list[str]]:
        corpus = self.plan.corpora[cell.corpus]
        if "pairs" in corpus.files:
            return Given(corpus.files["pairs"]), ["pairs"]
        options = dict(cell.definition["pairs"] or {})
        spec = options.pop("scorer", CLASSIFIER)
        drawn = {"samples": 25, "max_new_tokens": 20, "seed": cell.seed, **options.pop("generate", {})}
        # a model is set right by what it says itself
        speaker = self._first(cell) or self._base(cell, model)
        label = f"{cell.corpus}-{model.name}-{cell.seed}"
        items: list[Item] = [
            "generate",
            "--model",
            speaker.folder,
            "--prompts",
            self.texts.file(cell, "pair_prompts"),
            *flags(drawn),
        ]
        work = float(drawn["samples"] * drawn["max_new_tokens"]) * _PROMPTS * parameters(model.keys)
        items += ["--output", Own("said.jsonl")]
        task = self.commands.verb("said", label, items, ["said.jsonl", "said.jsonl.json"], work)
        said = Made(task, "said.jsonl")
        items = ["score-generations", "--generations", said, "--scorer", self.texts.spec(cell, spec)]
        items += ["--output", Own("scored.jsonl")]
        task = self.commands.verb("scored", label, items, ["scored.jsonl", "scored.jsonl.json"], work)
        scored = Made(task, "scored.jsonl")
        items = ["build-pairs", "--generations", scored, "--exclude", self.texts.file(cell, "prompts"), *flags(options)]
        items += ["--output", Own("pairs.jsonl")]
        task = self.commands.verb(
            "pairs", label, items, ["pairs.jsonl", "pairs.jsonl.json"], float(drawn["samples"] * _PROMPTS)
        )
        return Made(task, "pairs.jsonl"), ["pairs of its own texts, by a scorer", "prompts"]

    def _decoding(self, cell: Cell) -> tuple[dict[str, Item], list[str]]:
        """Fields of `GenerateOptions`, and what decoding needs beside the model."""
        options = dict(cell.definition.get("decode") or {})
        if (spec := options.get("rad")) is None:
            return options, []
        return {**options, "rad": self.texts.spec(cell, spec)}, [f"scorer at decoding: {spec}"]
