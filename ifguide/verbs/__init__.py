"""The verbs of the ``ifguide`` command: one module each, imported only when it is used.

A verb module has ``SUMMARY`` (one line), ``EXAMPLE`` (a command that works), its options and
``run(args) -> dict | None`` (the result that ``--json`` prints); ``exit_code(result)`` if it is not always 0. The
options are the fields of its dataclass ``OPTIONS`` (`ifguide.config.options`); a verb without it has none. A verb that
writes has ``WRITES`` (`ifguide.verbs.writes`). ``SHARES_WORK = True`` where the processes of a launcher share the work.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from ifguide.config.options import Named

# verb -> its line in `ifguide --help`; kept here so that help imports nothing heavy
VERBS = {
    "mask": "text + proxy + queries -> mask, by one command that resumes",
    "train-tokenizer": "text -> a byte-level BPE tokenizer with GPT-NeoX's special tokens",
    "preprocess": "text (JSON lines, plain, Parquet, data sets) -> indexed dataset of tokens",
    "preprocess-pairs": "pairs (JSONL) -> datasets of GPT-NeoX's own DPO",
    "plan": "what fitting factors and scoring will take, before they start",
    "fit-factors": "model + data -> EK-FAC curvature factors",
    "score": "influence of every training token on the toxic-minus-safe margin",
    "transfer-scores": "scores of one tokenization -> scores of another one of the same documents",
    "train-classifier": "toxic and safe queries -> a classifier of texts, with its cross-validated quality",
    "score-text": "any classifier's scores of the data's lines, sentences or windows, one a token",
    "validate-scores": "do scores say what training does? trained again without tokens, against classifiers and chance",
    "build-mask": "scores -> penalty mask (Algorithm 1)",
    "build-tags": "scores -> tokens with a tag before every span, for conditional training",
    "import-mask": "a mask made elsewhere -> one that is known to fit its tokens",
    "merge-masks": "masks or scores of several corpora -> those of the merged corpus",
    "inspect": "documents with coloured tokens, in the terminal or as one HTML page",
    "mask-stats": "what masks select: by document, position, token and phrase; overlap of masks",
    "audit-mask": "which mask hits abuse, by spans that people label without seeing a mask",
    "provenance": "from a mask back to all that it was made of; the commands again",
    "verify": "every fault of a dataset, its masks and its scores",
    "convert": "GPT-NeoX checkpoint <-> Hugging Face folder",
    "tasks-path": "the folder of the lm-eval tasks, for lm-eval's --include_path",
    "fetch-eval-data": "evaluation sets -> local JSON Lines, once; offline from then on",
    "generate": "model + prompts -> continuations, several a prompt; RAD decoding",
    "score-generations": "continuations -> toxicity scores of one classifier or several",
    "build-queries": "scored texts -> toxic and safe queries, apart from the evaluation's prompts",
    "build-pairs": "scored continuations -> pairs of a chosen and a rejected one",
    "evaluate": "a model's toxicity, LAMBADA and perplexity, by lm-eval; any other of its tasks",
    "compare": "evaluated models side by side: who is better, and how sure",
    "attack-gcg": "targets -> suffixes that make models say them; against random tokens",
    "attack-relearn": "how many documents and steps bring a model's toxicity back",
    "attack-orthogonalise": "models without a direction, judged again",
    "attack-prompts": "a file of adversarial prompts: toxic, refused, empty",
    "analyse": "what is inside models: toxic tokens by layer, directions, probes, neurons, drift",
    "quickstart": "the whole loop on real text, on a CPU, in minutes",
    "experiment": "every method of a plan on the same data, with one evaluation and one table",
    "doctor": "what is installed here, what was tested, which verbs will work",
}


def make_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of ``verb``'s options."""
    import argparse

    from ifguide.config.options import add_options

    module = module_of(verb)
    parser = argparse.ArgumentParser(
        prog=f"ifguide {verb}",
        description=module.SUMMARY,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if hasattr(module, "OPTIONS"):
        add_options(parser, module.OPTIONS)
    if getattr(module, "SHARES_WORK", False):
        # what DeepSpeed's launcher adds to the command of each process, which reads it from its environment
        parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    if hasattr(module, "WRITES"):
        from ifguide.system.outputs import add_overwrite

        add_overwrite(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress; results, warnings and faults are still said")
    parser.add_argument("--log", metavar="FILE", help="append all that is said to FILE too, each line with the time")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    return parser


def named_of(verb: str) -> Named | None:
    """What the options of ``verb`` name; None where its products are not made again by its command alone."""
    writes = getattr(module_of(verb), "WRITES", None) if verb in VERBS else None
    return writes.named if writes and writes.is_replayed else None


def module_of(verb: str) -> ModuleType:
    """The module of ``verb``."""
    return importlib.import_module(f"ifguide.verbs.{verb.replace('-', '_')}")
