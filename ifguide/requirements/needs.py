"""Which dependencies each verb uses, beside numpy and PyYAML, and what to say where one of them is not as it should be.

A test follows the imports of every verb through the package and compares them with this table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from ifguide.errors import tell
from ifguide.requirements.ranges import dependencies, fault, installed

TRAINING = "training"

_TOKENIZERS = ("tokenizers", "sentencepiece")
# of texts that are compressed, of tables, and of data sets
_SOURCES = ("zstandard", "pyarrow", "datasets")
_SCORERS = ("transformers", "scikit-learn", "scipy", "detoxify")
# where the name that is imported is not that of the package
_DISTRIBUTIONS = {
    "huggingface_hub": "transformers", "megatron": "megatron-core", "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}  # fmt: skip
_KRONFLUENCE = ("kronfluence", "accelerate", "datasets", "einconv", "einops", "opt_einsum", "tqdm")


@dataclass(frozen=True)
class Needs:
    """What one verb needs.

    Attributes:
        always: without these it cannot run.
        sometimes: these serve some of its options only: a kind of tokenizer, scorer, model or picture.
    """

    always: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()


_ATTACK = Needs(("torch", "transformers", "matplotlib"), (*_TOKENIZERS, *_SCORERS, *_SOURCES))
# every verb of ifguide.verbs, and `TRAINING`, which is `python deepy.py`
NEEDS = {
    # and what else its steps need, which it tells itself
    "mask": Needs(("torch", "transformers", "safetensors", *_KRONFLUENCE),
                  (*_TOKENIZERS, "scikit-learn", "scipy", "megatron-core", "detoxify", *_SOURCES)),
    "train-tokenizer": Needs(("tokenizers",), ("torch", "megatron-core", "sentencepiece", *_SOURCES)),
    "preprocess": Needs(("torch", "megatron-core"), (*_TOKENIZERS, *_SOURCES)),
    "preprocess-pairs": Needs(("torch",), (*_TOKENIZERS, "megatron-core", *_SOURCES)),
    "plan": Needs(("torch", "transformers", "safetensors"), (*_TOKENIZERS, "kronfluence", *_SOURCES)),
    "fit-factors": Needs(
        ("torch", "transformers", "safetensors", *_KRONFLUENCE), (*_TOKENIZERS, "scipy", *_SOURCES)
    ),
    "score": Needs(("torch", "transformers", "safetensors"), (*_TOKENIZERS, "scipy", *_SOURCES)),
    "transfer-scores": Needs(sometimes=_TOKENIZERS),
    "train-classifier": Needs(("scikit-learn", "scipy"), _SOURCES),
    "score-text": Needs(
        ("torch", "transformers"), (*_TOKENIZERS, "scikit-learn", "scipy", "safetensors", "detoxify", *_SOURCES)
    ),
    "validate-scores": Needs(
        ("torch", "transformers", "deepspeed", "megatron-core", "safetensors", "scipy", "matplotlib"),
        (*_TOKENIZERS, "tensorboard", "peft", *_SOURCES),
    ),
    "build-mask": Needs(
        sometimes=(*_TOKENIZERS, "torch", "transformers", "scikit-learn", "scipy", "safetensors", "detoxify", *_SOURCES)
    ),
    "build-tags": Needs(sometimes=_TOKENIZERS),
    "import-mask": Needs(sometimes=_TOKENIZERS),
    "merge-masks": Needs(sometimes=_TOKENIZERS),
    "inspect": Needs(sometimes=_TOKENIZERS),
    "mask-stats": Needs(sometimes=(*_TOKENIZERS, "scipy", *_SOURCES)),
    "audit-mask": Needs(sometimes=_TOKENIZERS),
    "provenance": Needs(sometimes=(*_TOKENIZERS, "megatron-core", *_SOURCES)),
    "verify": Needs(sometimes=_TOKENIZERS),
    "convert": Needs(("torch", "transformers", "safetensors"), (*_TOKENIZERS, *_SOURCES)),
    "tasks-path": Needs(
        sometimes=("torch", "transformers", "scikit-learn", "scipy", "detoxify", *_TOKENIZERS, *_SOURCES)
    ),
    "fetch-eval-data": Needs(("datasets",), _SOURCES),
    "generate": Needs(("torch", "transformers"), (*_TOKENIZERS, *_SCORERS, *_SOURCES)),
    "score-generations": Needs(("torch", "transformers"), (*_TOKENIZERS, *_SCORERS, *_SOURCES)),
    "build-queries": Needs(("torch", "transformers"), (*_TOKENIZERS, *_SCORERS, *_SOURCES)),
    "build-pairs": Needs(sometimes=_SOURCES),
    "evaluate": Needs(
        ("torch", "transformers", "lm_eval", "datasets", "matplotlib"), (*_TOKENIZERS, *_SCORERS, *_SOURCES)
    ),
    "compare": Needs(
        sometimes=("matplotlib", *_TOKENIZERS, "torch", "transformers", *_SOURCES, "scikit-learn",
                   "scipy", "detoxify")
    ),
    "attack-gcg": _ATTACK,
    "attack-relearn": Needs(_ATTACK.always, (*_ATTACK.sometimes, "peft")),
    "attack-orthogonalise": _ATTACK,
    "attack-prompts": _ATTACK,
    "analyse": Needs(
        ("torch", "transformers", "scikit-learn", "matplotlib"), (*_TOKENIZERS, *_SCORERS, "safetensors", *_SOURCES)
    ),
    "quickstart": Needs(
        ("torch", "transformers", "tokenizers", "safetensors", "deepspeed", *_KRONFLUENCE, "scikit-learn", "scipy",
         "matplotlib", "megatron-core"),
        ("sentencepiece", *_SOURCES, "tensorboard", "peft", "detoxify"),
    ),
    "experiment": Needs(
        ("torch", "transformers", "tokenizers", "matplotlib", "scipy"),
        ("sentencepiece", "safetensors", "deepspeed", "scikit-learn", "megatron-core", "tensorboard", "peft",
         "detoxify", *_KRONFLUENCE, *_SOURCES),
    ),
    "doctor": Needs(),
    TRAINING: Needs(
        ("torch", "transformers", "deepspeed", "megatron-core"), (*_TOKENIZERS, "tensorboard", "peft", *_SOURCES)
    ),
}  # fmt: skip


def ready(verb: str, speaker: str) -> bool:
    """Tell, before ``verb`` starts, what of its dependencies is missing or outside its tested range, a line each.

    Args:
        verb: of `NEEDS`.
        speaker: the command that says it, ``ifguide score`` say.

    Returns:
        False if the verb cannot run.
    """
    always = NEEDS[verb].always
    absent = [name for name in always if installed(name) is None]
    if absent:
        tell(speaker, f"needs {', '.join(absent)}, not installed here; {how_to_install(absent)}")
        return False
    for line in strange(always):
        tell(speaker, f"warning: {line}; `ifguide doctor` says what to do")
    return True


def explain(verb: str, error: Exception) -> str | None:
    """Why ``error`` ended ``verb``, in one line, if the environment is to blame; None if it is not known to be.

    To blame are a package that is missing, and a name that another package no longer has or means otherwise while
    a dependency of the verb is outside its tested range.
    """
    what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        root = error.name.partition(".")[0]
        name = _DISTRIBUTIONS.get(root, root)
        if name in dependencies() and installed(name) is None:
            return f"needs the package '{name}', not installed here; {how_to_install([name])}"
        if root not in ("ifguide", "ifguide_patch") and root not in sys.stdlib_module_names:
            return f"needs the module '{error.name}', not installed here; `ifguide doctor` says what else is missing"
    if isinstance(error, (ImportError, AttributeError, TypeError)):
        lines = strange((*NEEDS[verb].always, *NEEDS[verb].sometimes))
        if lines:
            return f"{what}; probably because {' and '.join(lines)}; `ifguide doctor` says what to do"
    return None


def strange(names: Iterable[str]) -> list[str]:
    """A line for each of ``names`` that is installed in a version outside its tested range."""
    return [line for name in dict.fromkeys(names) if installed(name) is not None and (line := fault(name))]


def how_to_install(names: Iterable[str]) -> str:
    """What brings ``names``, all of them direct dependencies."""
    extras = [dependencies()[name].extras for name in names]
    if any("locked" in these for these in extras):
        return "`make install` in a clone of the repository brings everything"
    if all("base" in these for these in extras):
        return "install it with: pip install gpt-neox-ifguide"
    # an extra that already brings something else is not named beside one that brings the rest too
    wanted: list[str] = []
    for these in extras:
        if not set(these) & {"base", *wanted}:
            wanted.append(these[0])
    return f"install with: pip install 'gpt-neox-ifguide[{','.join(wanted)}]'"
