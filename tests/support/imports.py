"""Who imports whom, read from the source: nothing is imported, so that imports which never run count too."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]
"""Dotted name of a module -> those of the packages' own modules that it imports, anywhere in its text."""

_LOADERS = {"import_module", "__import__", "run_module"}


def modules_of(root: Path, packages: tuple[str, ...]) -> dict[str, Path]:
    """Dotted name -> file of every module below ``root`` in ``packages``; a package goes by its own name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(modules: Mapping[str, Path], loaders: Container[str] = ()) -> Graph:
    """The graph of ``modules``: statements in functions and under TYPE_CHECKING, and dynamic loading by a name that
    can be read. A name that is put together (an f-string) stands for every module that begins as it does; those of
    ``loaders`` do not count."""
    graph = {}
    for name, path in modules.items():
        wanted = [(text, whole) for text, whole in _imported(name, path) if whole or name not in loaders]
        graph[name] = {target for one in wanted for target in _resolved(one, modules)} - {name}
    return graph


def composed_loads(modules: Mapping[str, Path]) -> dict[str, list[str]]:
    """Module -> beginnings of the names of own modules that it puts together and loads."""
    own = {name.split(".")[0] for name in modules}
    found = {}
    for name, path in modules.items():
        beginnings = [text for text, whole in _loaded(ast.parse(path.read_text())) if not whole]
        beginnings = [text for text in beginnings if text.split(".")[0] in own]
        if beginnings:
            found[name] = beginnings
    return found


def reached(graph: Graph, start: str) -> set[str]:
    """All that ``start`` imports, and what those import."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), set()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that each reach each other, sorted."""
    reach = {name: reached(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in graph
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def _imported(module: str, path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether that is the whole of it) of everything that ``module`` imports."""
    tree = ast.parse(path.read_text())
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, True) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{start}.{alias.name}", True) for alias in node.names)
    for text, whole in _loaded(tree):
        yield (_absolute(text, package), whole)


def _loaded(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """What `importlib.import_module` and the like are given, as far as it can be read."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in _LOADERS:
            text, whole = _text(node.args[0])
            if text:
                yield text, whole


def _text(node: ast.expr) -> tuple[str, bool]:
    """The constant beginning of an expression, and whether that is all of it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value, True
    if isinstance(node, ast.JoinedStr) and node.values:
        return _text(node.values[0])[0], False
    if isinstance(node, ast.BinOp):  # "ifguide." + name, "ifguide.%s" % name
        text, whole = _text(node.left)
        return text.split("%")[0] if whole else text, False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return _text(node.func.value)[0].split("{")[0], False
    return "", False


def _absolute(text: str, package: list[str]) -> str:
    dots = len(text) - len(text.lstrip("."))
    return ".".join([*package[: len(package) - dots + 1], text[dots:]]) if dots else text


def _resolved(wanted: tuple[str, bool], modules: Mapping[str, Path]) -> Iterator[str]:
    """The own modules that a name stands for: ``a.b.c`` is a module, or the name ``c`` in module ``a.b``."""
    text, whole = wanted
    if not whole:
        yield from (name for name in modules if name.startswith(text))
        return
    while text and text not in modules:
        text = text.rpartition(".")[0]
    if text:
        yield text
