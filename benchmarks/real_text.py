"""What masks do to a model on real text, by judges from outside.

    python benchmarks/real_text.py --workdir DIR --data FOLDER --seeds 11 12 13 [--recipes none "classifier b=0.05"]
        [--sets headline curves proxies penalties] [--jobs 2] [--output FILE.json] [--picture FILE.png]

FOLDER holds tweets.jsonl (``text``, ``label``: ``neither`` is harmless) and wikitext2-valid.txt and -test.txt. For each
seed a corpus of articles and threads of tweets is made (real_text_case.py), a base model and proxies are trained,
influence is scored, every mask is built by `ifguide build-mask` and trained with (real_text_masks.py), and every
model's continuations are judged (real_text_judges.py). Stages are kept: a killed run goes on, a further recipe costs
its own training only. Prints JSON, and tables on stderr. Skips, with the reason, without the data.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import report
from benchmarks.real_text_case import FILES, CaseSettings, write_case
from benchmarks.real_text_judges import JUDGES, make_environment
from benchmarks.real_text_masks import MORE_QUERIES, PENALTIES, PROXIES, Recipe, file_name
from benchmarks.real_text_quality import judge_seed, mask_quality, ranking_quality, write_labels
from benchmarks.real_text_sets import SETS
from benchmarks.real_text_tables import summary, tables
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.experiments.models import Model, Way, model_stage
from ifguide.experiments.stages import Stage, Stages
from ifguide.system.files import hash_file, read_json, read_jsonl, write_text

_SHAPE = Path(__file__).resolve().parent.parent / "ifguide/quickstart/configs/model.yml"
_DATA = "data/corpus_text_document"
_DATASET = [f"{_DATA}.{suffix}" for suffix in ("bin", "idx", "json")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="kept between calls")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of the labelled tweets and the articles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13], metavar="N")
    parser.add_argument("--recipes", nargs="+", default=[], metavar="TEXT", help="see real_text_masks.py")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[], help="named lists of recipes")
    parser.add_argument("--judges", nargs="+", choices=JUDGES, default=list(JUDGES))
    parser.add_argument("--words", type=Path, metavar="FILE", help="a word list; without it no recipe words")
    parser.add_argument("--jobs", type=int, default=2, help="models at the same time, one thread each (default: 2)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON here")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="TP against perplexity")
    args = parser.parse_args()
    data = args.data
    if data is None or not all((data / name).is_file() for name in ("tweets.jsonl", "wikitext2-valid.txt")):
        print("skipped: --data must name a folder with tweets.jsonl and wikitext2-*.txt", file=sys.stderr)
        return
    texts = [*args.recipes, *(text for name in args.sets for text in SETS[name])] or SETS["headline"]
    recipes = {recipe.text: recipe for recipe in map(Recipe.parse, texts) if args.words or recipe.kind != "words"}
    pythons = {name: make_environment(args.workdir.resolve() / "judges", name) for name in args.judges}
    found = {}
    for seed in args.seeds:
        run = Run(args.workdir.resolve() / f"seed-{seed}", data, seed, args.words)
        run.prepare([proxy for recipe in recipes.values() for proxy in recipe.proxies])
        with ThreadPoolExecutor(args.jobs) as pool:
            models = dict(zip(recipes, pool.map(run.model, recipes.values())))
        judged = judge_seed(run.folder, {text: recipe.file for text, recipe in recipes.items()}, pythons, args.words)
        found[seed] = run.about() | {"models": {text: models[text] | judged["models"][text] for text in models}}
        found[seed]["judges"] = judged["judges"]
    result = {"seeds": found, "judges": {name: vars(JUDGES[name]) for name in args.judges}, "summary": summary(found)}
    for line in tables(result):
        print(line, file=sys.stderr)
    report("real_text", result, args.output)
    if args.picture:
        from benchmarks.real_text_picture import picture

        picture(result, args.picture)


class Run:
    """All models of one seed, in a folder of its own."""

    def __init__(self, folder: Path, data: Path, seed: int, words: Path | None):
        self.folder, self.data, self.seed, self.words = folder, data.resolve(), seed, words
        folder.mkdir(parents=True, exist_ok=True)
        self.stages = Stages(folder, lambda line: print(f"seed {seed}: {line}", file=sys.stderr, flush=True))
        self._shared = {
            "data_path": str(folder / _DATA),
            "split": "100,0,0",
            "tokenizer_type": "HFTokenizer",
            "vocab_file": str(folder / "data/tokenizer.json"),
            "checkpoint_factor": 100_000,
            "seed": seed,
        }

    def prepare(self, proxies: list[str]) -> None:
        """Corpus, tokens, classifier, and the influence of each proxy."""
        self.stages.run(self._case())
        self.stages.run(self._tokens())
        self.stages.run(self._classifier())
        for name in dict.fromkeys(proxies):
            self.stages.run(self._trained(self._proxy(name)))
            self.stages.run(self._influence(name))

    def model(self, recipe: Recipe) -> dict[str, Any]:
        """Build, train and measure; returns perplexities and what the mask is like."""
        found: dict[str, Any] = {"share": 0.0}
        needs = ["classifier", *(f"influence {name}" for name in recipe.proxies)]
        keys: dict[str, Any] = {}
        penalty_data = None
        if recipe.kind == "document":
            self._run_once(recipe, f"filter {recipe.mask}", needs)
            keys["data_path"] = str(self.folder / f"data/kept-{recipe.file}_text_document")
            needs = [f"filter {recipe.mask}"]
        elif recipe.kind != "none":
            stage = f"mask {recipe.mask}"
            self._run_once(recipe, stage, needs)
            penalty_data = self._mask(recipe)
            keys, needs = PENALTIES[recipe.penalty], [stage]
            found = mask_quality(self.folder, self.folder / penalty_data)
        else:
            needs = ["tokens"]
        model = Model(recipe.file, penalty_data, (_SHAPE,), keys, tuple(needs))
        self.stages.run(self._trained(model))
        return found | self.stages.run(self._measured(recipe, model))

    def about(self) -> dict[str, Any]:
        """The case, the rankings, and the seconds of all stages."""
        return {
            "case": read_json(self.folder / "case.json"),
            "rankings": ranking_quality(self.folder),
            "seconds": self.stages.seconds,
        }

    def _mask(self, recipe: Recipe) -> str:
        return f"data/mask-{file_name(recipe.mask)}"

    def _run_once(self, recipe: Recipe, stage: str, needs: list[str]) -> None:
        output = self._mask(recipe)
        arguments = recipe.arguments(self.folder, self.words or Path())
        if recipe.kind == "document":
            arguments = [*arguments, "--data", str(self.folder / _DATA)]
            outputs = [f"data/kept-{recipe.file}_text_document.bin"]
        else:
            arguments, outputs = [*arguments, "--output", str(self.folder / output)], [f"{output}.bin"]
        words = [hash_file(self.words)] if recipe.kind == "words" and self.words else []

        def work() -> None:
            _ifguide("build-mask", *arguments, "--seed", str(self.seed), "--overwrite")

        self.stages.run(Stage(stage, work, {"arguments": arguments, "words": words}, needs, outputs))

    def _case(self) -> Stage:
        def work() -> dict[str, Any]:
            return dict(write_case(self.folder, self.data, self.seed, CaseSettings()))

        settings = {"data": hash_file(self.data / "tweets.jsonl"), "seed": self.seed, "sizes": vars(CaseSettings())}
        return Stage("case", work, settings, outputs=[*FILES.values(), "case.json"])

    def _tokens(self) -> Stage:
        def work() -> dict[str, Any]:
            from ifguide.data.text.bpe import train_bpe

            (self.folder / "data").mkdir(exist_ok=True)
            corpus, tokenizer = self.folder / FILES["corpus"], self.folder / "data/tokenizer.json"
            train_bpe([row["text"] for row in read_jsonl(corpus)], 4096, tokenizer)
            options = PreprocessOptions(append_eod=True)
            counts = preprocess([corpus], self.folder / "data/corpus", "HFTokenizer", tokenizer, options=options)
            write_labels(self.folder)
            return counts

        return Stage("tokens", work, {}, ("case",), [*_DATASET, "data/tokenizer.json", "data/labels.bin"])

    def _classifier(self) -> Stage:
        def work() -> None:
            queries = ["--toxic-queries", str(self.folder / FILES["toxic_queries"]),
                       "--safe-queries", str(self.folder / FILES["safe_queries"])]  # fmt: skip
            classifier = str(self.folder / "classifier")
            _ifguide("train-classifier", *queries, "--output", classifier, "--overwrite")
            _ifguide("score-text", "--data", str(self.folder / _DATA), "--scorer", f"linear:{classifier}",
                     "--output", str(self.folder / "data/suspects"), "--overwrite")  # fmt: skip

        return Stage("classifier", work, {}, ("tokens",), ["classifier/config.json", "data/suspects.bin"])

    def _proxy(self, name: str) -> Model:
        """The model without a mask is a proxy too: the small one."""
        if not PROXIES[name]:
            return Model("none", None, (_SHAPE,), needs=("tokens",))
        # an overlay may not set a key again, so the proxy has a shape of its own
        shape = self.folder / f"shape-{name}.yml"
        write_text(shape, yaml.safe_dump(yaml.safe_load(_SHAPE.read_text(encoding="utf-8")) | PROXIES[name]))
        return Model(f"proxy-{name}", None, (shape,), needs=("tokens",))

    def _trained(self, model: Model) -> Stage:
        return model_stage(model, self.folder, self._shared, Way(1), lambda line: None)

    def _influence(self, name: str) -> Stage:
        more = "more_" if name in MORE_QUERIES else ""
        proxy = self._proxy(name)

        def work() -> None:
            model, factors = str(proxy.folder(self.folder)), str(self.folder / f"factors-{name}")
            data = ["--data", str(self.folder / _DATA)]
            queries = ["--toxic-queries", str(self.folder / FILES[f"{more}toxic_queries"]),
                       "--safe-queries", str(self.folder / FILES[f"{more}safe_queries"])]  # fmt: skip
            _ifguide("fit-factors", "--model", model, *data, "--output", factors, "--max-tokens", "40000",
                     "--seed", str(self.seed), "--overwrite")  # fmt: skip
            _ifguide("score", "--model", model, *data, "--factors", factors, *queries, "--method", "jvp",
                     "--output", str(self.folder / f"data/scores-{name}"), "--overwrite")  # fmt: skip

        outputs = [f"data/scores-{name}.{suffix}" for suffix in ("bin", "idx", "json")]
        return Stage(f"influence {name}", work, {"queries": f"{more}queries"}, (proxy.stage,), outputs)

    def _measured(self, recipe: Recipe, model: Model) -> Stage:
        def work() -> dict[str, Any]:
            script = Path(__file__).resolve().parent / "real_text_measure.py"
            arguments = [str(self.folder), str(model.folder(self.folder)), recipe.file, str(self.seed)]
            return json.loads(_python(str(script), *arguments).strip().splitlines()[-1])

        return Stage(f"measure {recipe.file}", work, {}, (model.stage,), [f"measured/{recipe.file}.jsonl"])


def _ifguide(*arguments: str) -> None:
    _python("-m", "ifguide.cli", *arguments)


def _python(*arguments: str) -> str:
    """A command of its own with one thread; returns what it printed.

    Raises:
        RuntimeError: it failed; ends with its last line.
    """
    here = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    command = [sys.executable, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if found.returncode:
        raise RuntimeError(f"{' '.join(arguments[:3])} ... failed: {found.stderr.strip().splitlines()[-1]}")
    return found.stdout


if __name__ == "__main__":
    main()
