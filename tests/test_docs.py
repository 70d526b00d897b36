"""What the pages for contributors name is there, under that name, in that file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ifguide.cli import VERBS

ROOT = Path(__file__).parents[1]
PAGES = ("docs/architecture.md", "docs/equations.md", "docs/extending.md", "docs/glossary.md")
ALL_PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:(?:ifguide|ifguide_patch|tests|docs|configs|tools|benchmarks)/[\w./-]*|(?:deepy|train)\.py)")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?=$|\()")
_LINK = re.compile(r"\]\(([^)#]+?)(?:#[\w-]+)?\)")
_NEW = re.compile(r"[Nn]ew file\s+`([^`]+)`")
# files by their usual names: a dataset's, a model folder's
_NO_NAME = re.compile(r"P\.(bin|idx|json)|config\.json|model_type")


def paragraphs(text: str) -> list[str]:
    """Paragraphs, items of lists and rows of tables, without blocks of code."""
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:\d+\.|-) )|\n(?=\|)|\n(?=#)", _FENCE.sub("", text))
    return [part for part in parts if part.strip()]


def absent(text: str, folder: Path = ROOT / "docs") -> Iterator[str]:
    """Files that do not exist, and links from a page in ``folder`` that lead nowhere."""
    new = set(_NEW.findall(text))
    for part in paragraphs(text):
        for span in _SPAN.findall(part):
            if _PATH.fullmatch(span) and span not in new and not (ROOT / span).exists():
                yield f"{span} does not exist"
        for target in _LINK.findall(part):
            if "://" not in target and not (folder / target).exists():
                yield f"the link to {target} leads nowhere"


def undefined(text: str) -> Iterator[str]:
    """Names that nothing defines, and verbs that there are not. A name is looked for in the files that its own
    paragraph names, and everywhere if that names none."""
    blocks = _FENCE.findall(text)
    examples = set(re.findall(r"\w+", " ".join(blocks)))
    for part in paragraphs(text):
        spans = _SPAN.findall(part)
        files = [ROOT / span for span in spans if _PATH.fullmatch(span) and (ROOT / span).exists()]
        known = examples | rooms() | (set().union(*map(defined_in, files)) if files else everything())
        where = ", ".join(str(path.relative_to(ROOT)) for path in files) or "ours"
        for span in spans:
            found = _NAME.match(span)
            if found and found[0] not in known and not _PATH.fullmatch(span) and not _NO_NAME.fullmatch(span):
                yield f"{found[0]} is not defined in {where}"
        for verb in re.findall(r"`(?:ifguide )?([a-z]+(?:-[a-z]+)+)[ `]", part):
            if verb not in VERBS and not any(verb in block for block in blocks):
                yield f"{verb} is no verb"


@cache
def defined_in(path: Path) -> frozenset[str]:
    """Names that a file (or any file of a folder) defines or imports: of classes, functions, attributes, arguments;
    ``Class.method`` too. Of what is no Python: its words."""
    if path.is_dir():
        return frozenset().union(*map(defined_in, path.rglob("*.py")))
    if path.suffix != ".py":
        return frozenset(re.findall(r"\w+", path.read_text()))
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names |= _bound(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for child in node.body for name in _bound(child)}
    return frozenset(names)


def _bound(node: ast.AST) -> set[str]:
    """What a statement or an argument binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.arg):
        return {node.arg}
    if isinstance(node, ast.alias):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


@cache
def everything() -> frozenset[str]:
    return frozenset().union(*(defined_in(ROOT / name) for name in ("ifguide", "ifguide_patch", "tests")))


@cache
def rooms() -> frozenset[str]:
    return frozenset(path.stem for path in (ROOT / "ifguide").iterdir()) | {"ifguide"}


@pytest.mark.parametrize("page", ALL_PAGES)
def test_the_files_and_links_of_the_page_are_there(page: str) -> None:
    found = list(absent((ROOT / page).read_text(), (ROOT / page).parent))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_names_is_defined_there(page: str) -> None:
    found = list(undefined((ROOT / page).read_text()))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("See `ifguide/engine/nowhere.py`.", "ifguide/engine/nowhere.py does not exist"),
        ("`no_such_function` does it.", "no_such_function is not defined in ours"),
        ("`select` in `ifguide/data/sidecar.py`.", "select is not defined in ifguide/data/sidecar.py"),
        ("`Scorer.judge` in\n`ifguide/scorers/base.py`.", "Scorer.judge is not defined in ifguide/scorers/base.py"),
        ("Run `ifguide make-coffee`.", "make-coffee is no verb"),
        ("[a page](nowhere.md)", "the link to nowhere.md leads nowhere"),
        ("1. `select` in `ifguide/selection/algorithm.py`.\n2. `select` in `ifguide/data/sidecar.py`.",
         "select is not defined in ifguide/data/sidecar.py"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_seen(text: str, fault: str) -> None:
    assert [*absent(text), *undefined(text)] == [fault]


def test_what_is_there_is_not_seen() -> None:
    text = "`Scorer.score` in `ifguide/scorers/base.py`; `ifguide build-mask`; [method](method.md#the-method)."
    assert [*absent(text), *undefined(text)] == []


def test_every_room_is_in_the_table_of_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    folders = {path.name for path in (ROOT / "ifguide").iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"^\| `ifguide/(\w+)/` \|", text, re.MULTILINE)) == folders
