"""The tasks of a plan's texts: files, tokenizers, tokens, and what a classifier says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ifguide.data.text.tags import BAD, GOOD
from ifguide.errors import InputError
from ifguide.experiments.plans.commands import Commands, Given, Item, Made, Own
from ifguide.experiments.plans.plan import QUICKSTART, Cell, ModelPlan, Plan
from ifguide.experiments.plans.sizes import file_bytes, tokens_in
from ifguide.system.files import read_json

CLASSIFIER = "classifier"
# what `ifguide quickstart --corpus-only` writes, by the keys of a corpus
_QUICKSTART_FILES = {
    "text": "corpus.jsonl", "toxic_queries": "toxic_queries.jsonl", "safe_queries": "safe_queries.jsonl",
    "prompts": "prompts.jsonl", "heldout": "heldout_clean.jsonl", "judge": "judge",
}  # fmt: skip


class Texts:
    """Adds the tasks of texts to ``commands``."""

    def __init__(self, plan: Plan, commands: Commands):
        self.plan, self.commands = plan, commands

    def file(self, cell: Cell, key: str) -> Made | Given:
        corpus = self.plan.corpora[cell.corpus]
        if key in corpus.files and not (
            corpus.source == QUICKSTART and key in ("text", "toxic_queries", "safe_queries")
        ):
            return Given(corpus.files[key])
        if key == "pair_prompts":  # apart from the prompts of the evaluation, as the queries are
            return self.file(cell, "toxic_queries")
        if corpus.source != QUICKSTART or key not in _QUICKSTART_FILES:
            raise InputError(
                f"{self.plan.path}: method {cell.method} needs {key} of corpus {corpus.name}; add it there, or leave "
                "the method out with --without"
            )
        items: list[Item] = ["quickstart", "--corpus-only", *(["--small"] if corpus.small else [])]
        for flag, name in (
            ("--input", "text"),
            ("--toxic-queries", "toxic_queries"),
            ("--safe-queries", "safe_queries"),
        ):
            if name in corpus.files:
                items += [flag, Given(corpus.files[name])]
        outputs = ["corpus.json", *(name for name in _QUICKSTART_FILES.values() if "." in name), "judge/config.json"]
        task = self.commands.verb("text", corpus.name, [*items, "--output", Own()], outputs, file_bytes(corpus))
        return Made(task, _QUICKSTART_FILES[key])

    def heldout(self, cell: Cell) -> dict[str, Made | Given]:
        given: dict[str, Made | Given] = {k: Given(path) for k, path in self.plan.corpora[cell.corpus].heldout.items()}
        return given or {"heldout": self.file(cell, "heldout")}

    def tokenizer(self, cell: Cell, model: ModelPlan) -> list[Item]:
        """Options of preprocess and others."""
        about = model.tokenizer or self.plan.tokenizer
        if "type" in about:
            files: list[Item] = ["--tokenizer-type", about["type"]]
            for flag, key in (("--vocab-file", "file"), ("--merge-file", "merges")):
                if key in about:
                    files += [flag, Given(Path(about[key]))]
            return files
        text, size = self.file(cell, "text"), int(about["vocab_size"])
        # also without a method of tags, so that one more or less changes no other's tokens
        special = [GOOD, BAD]

        def run(root: Path) -> None:
            from ifguide.data.text.bpe import train_bpe
            from ifguide.system.files import read_jsonl

            texts = [row["text"] for row in read_jsonl(self.commands.path(text))]
            train_bpe(texts, size, root / "tokenizer.json", special)

        said = f"(a byte-level BPE of {size} tokens)"
        work = file_bytes(self.plan.corpora[cell.corpus])
        items: list[Item] = [str(size), *special, text]
        task = self.commands.call("tokenizer", cell.corpus, items, ["tokenizer.json"], work, run, said)
        return ["--tokenizer-type", "HFTokenizer", "--vocab-file", Made(task, "tokenizer.json")]

    def tokens(self, cell: Cell, model: ModelPlan) -> Made:
        """The training text's tokens, with the boundaries of its spans."""
        items: list[Item] = ["preprocess", "--input", self.file(cell, "text"), *self.tokenizer(cell, model)]
        items += ["--append-eod", "--spans", "--output-prefix", Own("corpus")]
        prefix = "corpus_text_document"
        outputs = [f"{prefix}.{end}" for end in ("bin", "idx", "json", "spans.bin")]

        def counted(root: Path) -> dict[str, Any]:
            return {"tokens": read_json(root / f"{prefix}.json")["counts"]["tokens"]}

        work = file_bytes(self.plan.corpora[cell.corpus])
        return Made(self.commands.verb("tokens", cell.corpus, items, outputs, work, counted), prefix)

    def count(self, cell: Cell, model: ModelPlan) -> float:
        """Training tokens: as counted, or guessed before they are."""
        known = self.commands.stages.records.get(self.tokens(cell, model).task, {}).get("summary", {})
        return float(known.get("tokens") or tokens_in(self.plan.corpora[cell.corpus]))

    def classifier(self, cell: Cell) -> Made:
        items: list[Item] = ["train-classifier", "--toxic-queries", self.file(cell, "toxic_queries")]
        items += ["--safe-queries", self.file(cell, "safe_queries"), "--output", Own("classifier")]
        outputs = ["classifier/config.json", "classifier/weights.npz"]
        task = self.commands.verb("classifier", cell.corpus, items, outputs, file_bytes(self.plan.corpora[cell.corpus]))
        return Made(task, "classifier")

    def spec(self, cell: Cell, spec: str) -> Item:
        """A scorer: ``classifier`` is the one trained on the queries, ``judge`` the quickstart's."""
        if spec == CLASSIFIER:
            return replace(self.classifier(cell), before="linear:")
        if spec == "judge":
            found = self.file(cell, "judge")
            assert isinstance(found, Made)  # `Plan` allows it for the quickstart's corpora only
            return replace(found, before="linear:")
        kind, colon, rest = spec.partition(":")
        path = Path(rest.partition("#")[0])
        return Given(path, f"{kind}:") if colon and path.exists() and "#" not in rest else spec

    def suspects(self, cell: Cell, model: ModelPlan, spec: str, span: str) -> Made:
        """A scorer's aligned scores of the spans."""
        items: list[Item] = ["score-text", "--data", self.tokens(cell, model), "--scorer", self.spec(cell, spec)]
        outputs = [f"suspects.{end}" for end in ("bin", "idx", "json")]
        items += ["--span", span, "--output", Own("suspects")]
        task = self.commands.verb("suspects", cell.corpus, items, outputs, self.count(cell, model))
        return Made(task, "suspects")
