"""The documentation site: its reference is current, its links lead somewhere, and it asks no other machine."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.verbs import VERBS
from ifguide.verbs.reference import markdown

ROOT = Path(__file__).parents[1]
_MISSING = [name for name in ("mkdocs", "material") if importlib.util.find_spec(name) is None]
needs_mkdocs = pytest.mark.skipif(bool(_MISSING), reason="the site is built by mkdocs-material (the extra docs)")
_ASKED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")


def test_the_page_of_the_verbs_is_current() -> None:
    """Made by: python -m ifguide.verbs.reference > docs/verbs.md"""
    assert (ROOT / "docs/verbs.md").read_text(encoding="utf-8") == markdown()


def test_every_verb_and_option_is_on_its_page() -> None:
    page = markdown()
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[2:]
    assert [section.split("\n", 1)[0] for section in sections] == list(VERBS)
    of = dict(zip(VERBS, sections))
    assert "| `--max-fraction F` | budget as a share of tokens (default: 0.02) |" in of["build-mask"]
    assert "| `RUN` | folders that" in of["compare"], "an argument without a flag"
    assert "--local" not in page, "what launchers add is not for people"


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:", 2)[-1]))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= named


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@needs_mkdocs
def test_links_lead_somewhere_and_pages_are_there(site: Path) -> None:
    """--strict has refused links and anchors that lead nowhere."""
    for page in ("index", "verbs", "keys", "equations", "contributing"):
        assert (site / f"{page}.html").is_file()
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="neox.html"' in index and 'src="inspect.png"' in index
    assert 'href="docs/' not in index and 'href="CONTRIBUTING' not in index
    equations = (site / "equations.html").read_text(encoding="utf-8")
    assert "R_u = 2 c_u f_u / (c_u + f_u)" in equations


@needs_mkdocs
def test_the_search_knows_the_pages(site: Path) -> None:
    index = (site / "search/search_index.json").read_text(encoding="utf-8")
    assert "equations.html" in index and "--threshold-quantile" in index


@needs_mkdocs
def test_nothing_comes_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        asked = _ASKED.findall(text)
        assert not asked, f"{page.name}: {asked}"
        assert not re.search(r"fonts\.g(?:oogleapis|static)", text)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\([\"']?(?:https?:)?//", text), sheet.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/neox.md#top) ![b](docs/inspect.png)", "[a](neox.md#top) ![b](inspect.png)"),
        ("[a](docker/README.md), [b](LICENSE), [c](https://x.org)", "[a](docker.md), b, [c](https://x.org)"),
        ("```\n[a](docs/neox.md)\n```", "```\n[a](docs/neox.md)\n```"),
        ("[a](docs/nowhere.md)", "[a](docs/nowhere.md)"),
    ],
)
def test_links_are_led_to_the_pages_of_the_site(text: str, expected: str) -> None:
    """One that leads nowhere stays, so that --strict sees it."""
    pytest.importorskip("mkdocs", reason="the hook is mkdocs's")
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/site_pages.py")
    assert spec and spec.loader
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    assert hook.led(text, "README.md") == expected
