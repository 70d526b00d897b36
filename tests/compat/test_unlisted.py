"""The code uses no private part of a dependency, and none of a module that it does not document, without an entry.

Read from the syntax tree of every file:

- an import of a module that is not in `DOCUMENTED`, or of a private name;
- ``x._name``, and ``getattr(x, "_name")`` and its like, where the name is not ours;
- ``self._name`` in a class that inherits from a dependency, where no class of ours defines the name;
- a method ``_name`` of such a class that overrides one of the dependency's.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifguide.compat.registry import USES

ROOT = Path(__file__).parents[2]
OURS = ("ifguide", "ifguide_patch")
FILES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))
FILES += [ROOT / "train.py", ROOT / "deepy.py"]
# belongs to the table itself
FILES.remove(ROOT / "ifguide" / "compat" / "trials.py")

# modules whose names are the library's documented interface; all else needs an entry
DOCUMENTED = {
    "cycler", "datasets", "deepspeed", "deepspeed.accelerator", "matplotlib", "matplotlib.axes",
    "huggingface_hub", "matplotlib.figure", "matplotlib.ticker", "numpy", "numpy.lib.stride_tricks", "numpy.typing",
    "pyarrow", "pyarrow.parquet",
    "safetensors", "safetensors.torch", "scipy.sparse", "scipy.special", "scipy.stats", "sentencepiece",
    "sklearn.exceptions", "sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.metrics",
    "sklearn.neural_network", "sklearn.preprocessing", "tokenizers",
    "torch", "torch.autograd", "torch.distributed", "torch.nn", "torch.nn.functional", "torch.utils.checkpoint",
    "torch.utils.data", "torch.utils.tensorboard", "tqdm", "wandb", "transformers", "transformers.utils", "yaml",
    "zstandard", "peft",
}  # fmt: skip
# GPT-NeoX: `ifguide_patch.registry` and the checks of `ifguide_patch.neox_eval` name what is used of it
CHECKOUT = ("megatron.mpu", "megatron.training", "megatron.neox_arguments", "eval_tasks", "eval")
# documented names that begin with an underscore
PUBLIC = {"os._exit", "_fields", "_replace", "_asdict", "__dataclass_fields__"}
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}
LANGUAGE = (type, types.ModuleType, types.FunctionType, types.MethodType, dict)
STANDARD = {name for kind in LANGUAGE for name in dir(kind)} | {
    "__file__", "__path__", "__spec__", "__version__", "__all__", "__dict__",
}  # fmt: skip


def is_private(name: str) -> bool:
    return name.startswith("_") and name not in STANDARD and name != "_"


def listed(what: str, path: str) -> bool:
    """Whether an entry for ``what`` (a dotted name, or the last name alone) names this file."""
    for use in USES:
        whole = use.what == what or use.what.startswith(f"{what}.") or what.startswith(f"{use.what}.")
        if path in use.where and (whole or use.what.rpartition(".")[2] == what):
            return True
    return False


def foreign(module: str) -> bool:
    root = module.partition(".")[0]
    return root not in sys.stdlib_module_names and root not in (*OURS, "__future__")


class Source:
    """One file: its imports, and the classes that it defines."""

    def __init__(self, path: Path, text: str | None = None):
        self.path = path.relative_to(ROOT).as_posix()
        self.tree = ast.parse(text if text is not None else path.read_text(encoding="utf-8"))
        # local name -> dotted name
        self.names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.names[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        self.classes = [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]

    def dotted(self, node: ast.expr) -> str:
        """The dotted name of an expression as far as imports tell, else its source."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        return ast.unparse(node)


def own_names(node: ast.ClassDef) -> set[str]:
    """What a class defines: methods, fields, and whatever its methods set on ``self``."""
    names: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and _is_self(part.value):
            names.add(part.attr)
    return names


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


SOURCES = [Source(path) for path in FILES]
CLASSES = {node.name: (source, node) for source in SOURCES for node in source.classes}
# private names of modules and classes of ours: `module._name` and `other._name` of the same class
OWN = {
    name
    for source in SOURCES
    for name in (
        *(part.id for part in ast.walk(source.tree) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)),
        *(part.name for part in ast.walk(source.tree) if isinstance(part, ast.FunctionDef | ast.ClassDef)),
        *(name for node in source.classes for name in own_names(node)),
    )
}


def ancestry(source: Source, node: ast.ClassDef) -> tuple[set[str], list[str]]:
    """Names that our classes in the ancestry define, and the dotted names of the bases that are not ours."""
    names, bases = own_names(node), []
    for base in node.bases:
        last = source.dotted(base).rpartition(".")[2]
        if last in CLASSES and last != node.name:
            more, further = ancestry(*CLASSES[last])
            names |= more
            bases += further
        elif last not in vars(builtins) and not source.dotted(base).startswith(OURS):
            bases.append(source.dotted(base))
    return names, bases


def unlisted(source: Source) -> Iterator[str]:
    """Uses in one file that should have an entry."""
    inherited: dict[ast.AST, tuple[set[str], list[str]]] = {}
    for node in source.classes:
        found = ancestry(source, node)
        for part in ast.walk(node):
            inherited[part] = found
        yield from _overridden(source, node, found[1])
    for node in ast.walk(source.tree):
        where = f"{source.path}:{getattr(node, 'lineno', 0)}"
        for module, name in _imports(node):
            what = f"{module}.{name}" if name else module
            if not foreign(module) or what.startswith(CHECKOUT) or module.startswith(CHECKOUT):
                continue
            if (module not in DOCUMENTED or is_private(name)) and not listed(what, source.path):
                yield f"{where}: {what}"
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if _is_self(node.value):
                names, bases = inherited.get(node, (set(), []))
                if bases and node.attr not in names and not listed(node.attr, source.path):
                    yield f"{where}: {ast.unparse(node)} of {', '.join(bases)}"
            elif not _is_ours(source, node) and not listed(node.attr, source.path):
                yield f"{where}: {ast.unparse(node)}"
        name = _named(node)
        if name and is_private(name) and name not in OWN and not listed(name, source.path):
            yield f"{where}: {ast.unparse(node)}"


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from ((node.module, alias.name) for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        yield from ((str(given.value), "") for given in node.args[:1] if isinstance(given, ast.Constant))


def _is_ours(source: Source, node: ast.Attribute) -> bool:
    whole = source.dotted(node)
    if whole in PUBLIC or node.attr in PUBLIC or whole.startswith(tuple(f"{name}." for name in OURS)):
        return True
    # an object of ours; a name that both we and an imported library have is the library's
    return node.attr in OWN and not foreign_name(source, node.value)


def foreign_name(source: Source, node: ast.expr) -> bool:
    """Whether an expression starts at an import from a dependency or from Python."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and not source.names.get(node.id, "ifguide").startswith(OURS)


def _named(node: ast.AST) -> str | None:
    """The attribute that a call names by a string."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in BY_NAME:
        return None
    name = node.args[1] if len(node.args) > 1 else None
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _overridden(source: Source, node: ast.ClassDef, bases: list[str]) -> Iterator[str]:
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef) and is_private(part.name)]
    for base in bases if methods else ():
        module, _, name = base.rpartition(".")
        if module.startswith(CHECKOUT):
            continue
        try:
            kind = getattr(importlib.import_module(module), name)
        except (ImportError, ValueError, AttributeError):
            continue  # not installed, or made by a call: nothing can be told
        for part in methods:
            if hasattr(kind, part.name) and not listed(part.name, source.path):
                yield f"{source.path}:{part.lineno}: {node.name}.{part.name} overrides {base}'s"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.path)
def test_every_use_has_an_entry(source: Source) -> None:
    assert list(unlisted(source)) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("from transformers.cache_utils import DynamicLayer", "transformers.cache_utils.DynamicLayer"),
        ("import transformers.masking_utils", "transformers.masking_utils"),
        ("from torch import _dynamo", "torch._dynamo"),
        ("import importlib\nimportlib.import_module('deepspeed.launcher.runner')", "deepspeed.launcher.runner"),
        ("def f(config):\n    return config._attn_implementation", "config._attn_implementation"),
        ("def f(config):\n    return getattr(config, '_commit_hash', None)", "_commit_hash"),
        ("import deepspeed\nx = getattr(deepspeed.ops, '__compatible_ops__')", "__compatible_ops__"),
        ("import torch\nx = torch._C", "torch._C"),
        ("from torch import nn\nclass M(nn.Module):\n    def f(self):\n        return self._modules", "self._modules"),
        ("import argparse\nclass P(argparse.ArgumentParser):\n    def _check_value(self): ...", "_check_value"),
    ],
)
def test_a_use_without_an_entry_is_found(text: str, named: str) -> None:
    if "nn.Module" in text:
        pytest.importorskip("torch")
    (found, *_) = unlisted(Source(ROOT / "ifguide" / "somewhere.py", text))
    assert named in found and found.startswith("ifguide/somewhere.py:")


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos._exit(1)",
        "class A:\n    def __init__(self):\n        self._b = 1\n    def f(self, other):\n        return other._b",
        "from collections import namedtuple\nx = namedtuple('x', 'a')._fields",
        "import torch.distributed\nfrom transformers import AutoTokenizer",
        "from ifguide.influence import factors\nx = factors._PER_WINDOW_GRADIENT_BYTES",
    ],
)
def test_what_is_public_or_ours_is_not(text: str) -> None:
    source = Source(ROOT / "ifguide" / "somewhere.py", text)
    OWN.update(name for node in source.classes for name in own_names(node))
    assert list(unlisted(source)) == []


def test_every_entry_is_used_where_it_says() -> None:
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for use in USES for path in use.where}
    for use in USES:
        for path in use.where:
            words = {*use.what.split(".")[1:], *use.parameters, *use.attributes, *re.findall(r"`(\w+)`", use.why)}
            assert any(word in texts[path] for word in words), f"{use.what} is not used in {path}"
