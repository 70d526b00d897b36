"""The page in a real browser: clicked, typed and hovered through, with a hostile corpus inside."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.pages.document import ShownDocument
from ifguide.pages.inspection import Histogram, Inspection, Rule, inspection_page, page_data
from ifguide.pages.text import split_text, visible
from tests.browser import Tab, needs_browser, page_in_browser
from tests.inspection.conftest import HOSTILE

TEXTS = [text for text in HOSTILE if text]


def make_inspection() -> Inspection:
    """Hostile documents, a token a byte and one at the end, with random scores of which a fifth is selected."""
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    ids = [[*text.encode(), 0] for text in TEXTS]
    ends = np.cumsum([len(some) for some in ids])
    scores = np.random.default_rng(5).normal(size=ends[-1]).astype(np.float32)
    threshold, full = np.quantile(scores, 0.8), np.quantile(np.abs(scores), 0.995)
    ranks = np.argsort(np.argsort(-scores)) + 1
    documents = []
    for index, (some, end) in enumerate(zip(ids, ends)):
        at = slice(end - len(some), end)
        strengths = np.where(scores[at] >= threshold, 255, 0).astype(np.uint8)
        documents.append(
            ShownDocument(
                index=index,
                measure=float((strengths > 0).mean()),
                num_tokens=len(some),
                num_selected=int((strengths > 0).sum()),
                first=0,
                pieces=split_text(some, tokenizer.token_bytes),
                scores=scores[at],
                ranks=ranks[at],
                strengths=strengths,
            )
        )
    counts, edges = np.histogram(scores, 96)
    return Inspection(
        documents=sorted(documents, key=lambda document: -document.measure),
        num_documents=len(documents),
        num_tokens=len(scores),
        num_selected=sum(document.num_selected for document in documents),
        threshold=float(threshold),
        full_colour=float(full),
        histogram=Histogram(float(edges[0]), float(edges[-1]), counts),
        graded=False,
        names={"data": "some/corpus", "mask": "some/</script>mask", "scores": "some/scores"},
    )


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    return make_inspection()


@pytest.fixture(scope="module")
def page(inspection: Inspection) -> str:
    return inspection_page(inspection)


@pytest.fixture(scope="module")
def shared_tab(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with page_in_browser(page, tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(shared_tab: Tab) -> Tab:
    """The page as it is when it was just opened, in the light."""
    shared_tab.complaints.clear()
    shared_tab.requests.clear()
    shared_tab.resize(1200, 800)
    shared_tab.prefer("light")
    shared_tab.open(shared_tab.address)
    return shared_tab


@pytest.fixture
def opened(tab: Tab) -> Tab:
    tab.click("#enter")
    return tab


def shown_text(tab: Tab) -> str:
    return tab.run("document.getElementById('text').textContent")


def title(tab: Tab) -> str:
    return tab.run("document.getElementById('title').textContent")


def test_the_source_is_safe_and_needs_nothing(page: str) -> None:
    assert page.count("<script") == page.count("</script") == 2
    assert "<!--" not in page and not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]
    page.encode("utf-8")


def test_the_data_comes_back(inspection: Inspection) -> None:
    value = json.loads(page_data(inspection))
    for written, document in zip(value["shown"], inspection.documents, strict=True):
        assert written["text"] == visible("".join(text for text, _ in document.pieces))
        assert document.scores is not None and document.ranks is not None
        cuts = np.frombuffer(base64.b64decode(written["cut"]), "<u2")
        assert cuts.sum() == len(written["text"].encode("utf-16-le")) // 2
        assert [written["many"].get(str(place), 1) for place in range(len(cuts))] == [n for _, n in document.pieces]
        assert np.frombuffer(base64.b64decode(written["s"]), "<f4").tolist() == document.scores.tolist()
        assert np.frombuffer(base64.b64decode(written["rank"]), "<u4").tolist() == document.ranks.tolist()
        strengths = np.zeros_like(document.strengths)
        for begin, end, strength in written["runs"]:
            strengths[begin:end] = strength
        assert strengths.tolist() == document.strengths.tolist()


@needs_browser
def test_the_warning_comes_first(tab: Tab) -> None:
    assert tab.run("document.getElementById('gate').innerText").startswith("Content warning")
    visible_text = tab.run("document.body.innerText")
    assert not [text for text in TEXTS if text.strip()[:12] in visible_text]
    assert shown_text(tab) == "" and tab.run("document.querySelectorAll('.row').length") == 0
    assert tab.run("document.activeElement.id") == "enter"
    tab.press("j", "/")
    assert shown_text(tab) == "", "keys do nothing before the warning is accepted"
    tab.press("Enter")
    assert tab.run("document.getElementById('gate').hidden") and len(shown_text(tab)) > 0


@needs_browser
def test_every_document_is_inert_text(opened: Tab, inspection: Inspection) -> None:
    texts = []
    for document in inspection.documents:
        assert title(opened) == f"Document {document.index}"
        texts.append(shown_text(opened))
        opened.press("j")
    eod = visible("\0")
    assert sorted(texts) == sorted(visible(text) + eod for text in TEXTS)
    assert opened.run("document.querySelectorAll('#text img, #text script, #text style, #text b').length") == 0
    assert opened.complaints == []
    assert opened.requests == [opened.address], "nothing but the page itself was asked for"


@needs_browser
def test_tokens_carry_score_rank_and_selection(opened: Tab, inspection: Inspection) -> None:
    document = inspection.documents[0]
    assert document.scores is not None and document.ranks is not None
    spans = opened.run("[...document.querySelectorAll('#text span')].map((span) => [span.textContent, span.className])")
    assert [text for text, _ in spans] == [visible(text) for text, _ in document.pieces]
    for (_, names), (_, at) in zip(spans, document.spans(), strict=True):
        assert ("sel" in names.split()) == bool(document.strengths[at].any())
        score = max(document.scores[at].tolist(), key=abs)
        step = round(10 * min(1, abs(score) / inspection.full_colour))
        found = re.search(r"\b([pn])(\d+)\b", names)
        if found is None:
            assert step == 0
        else:
            assert found[1] == ("p" if score > 0 else "n") and abs(int(found[2]) - step) <= 1
    place = next(number for number, (_, names) in enumerate(spans) if "sel" in names.split())
    opened.hover(f"#text span:nth-child({place + 1})")
    tip = opened.run("document.getElementById('tip').innerText")
    first = document.spans()[place][1].start
    assert f"score {float(document.scores[first]):.4g}" in tip
    assert f"rank {document.ranks[first]:,} of {inspection.num_tokens:,}" in tip and "selected" in tip
    assert opened.run("document.getElementById('mark').getAttribute('d')").startswith("M")
    opened.hover("header h1")
    assert opened.run("document.getElementById('tip').hidden")


@needs_browser
def test_search_filters_and_marks(opened: Tab, inspection: Inspection) -> None:
    opened.press("/")
    assert opened.run("document.activeElement.id") == "search"
    opened.write("BUFFOON")
    assert opened.run("document.getElementById('found').textContent") == f"1 of {len(TEXTS)} documents"
    assert opened.run("document.querySelectorAll('.row').length") == 1
    assert opened.run("document.querySelector('.row mark').textContent").lower() == "buffoon"
    opened.press("Enter")
    assert "buffoon" in shown_text(opened) and opened.run("document.activeElement.id") == "list"
    assert opened.run("[...document.querySelectorAll('#text .hit')].map((s) => s.textContent).join('')") == "buffoon"
    opened.press("/")
    opened.press("Escape")
    assert opened.run("document.querySelectorAll('.row').length") == len(TEXTS)
    opened.press("/")
    opened.write("</script>")
    assert opened.run("document.querySelectorAll('.row').length") == 1
    opened.press("Escape", "/")
    opened.write(f"#{inspection.documents[2].index}")
    names = opened.run("[...document.querySelectorAll('.row b')].map((name) => name.textContent)")
    assert names == [f"#{inspection.documents[2].index}"]


@needs_browser
def test_keys_move(opened: Tab, inspection: Inspection) -> None:
    order = [f"Document {document.index}" for document in inspection.documents]
    assert title(opened) == order[0]
    opened.press("j", "j", "k", "ArrowDown", "ArrowDown", "ArrowUp")
    assert title(opened) == order[2]
    active = opened.run("document.getElementById('list').getAttribute('aria-activedescendant')")
    assert opened.run(f"document.getElementById('{active}').getAttribute('aria-selected')") == "true"
    opened.press("End")
    assert title(opened) == order[-1]
    opened.press("j")
    assert title(opened) == order[-1], "the last stays open"
    opened.press("Home", "n")
    assert "sel" in opened.run("document.querySelector('#text .at').className").split()
    first = opened.run("document.querySelector('#text .at').place")
    opened.press("ArrowRight")
    assert opened.run("document.querySelector('#text .at').place") == first + 1
    assert not opened.run("document.getElementById('tip').hidden")
    opened.press("p")
    assert opened.run("document.querySelector('#text .at').place") == first
    opened.press("Escape")
    assert opened.run("document.getElementById('tip').hidden")
    opened.press("Enter")
    assert opened.run("document.activeElement.id") == "text"
    outline = opened.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is seen"
    opened.press("?")
    assert opened.run("document.getElementById('help').open")
    opened.press("Enter")
    assert not opened.run("document.getElementById('help').open"), "its button has the focus"
    assert opened.complaints == []


@needs_browser
def test_light_and_dark(opened: Tab) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(background)
    opened.click("#theme")
    dark = opened.run(background)
    opened.press("t")
    assert opened.run(background) == light != dark
    opened.prefer("dark")
    opened.until(f"{background} == {json.dumps(dark)}")
    opened.open(opened.address)
    assert opened.run(background) == dark


@needs_browser
def test_the_histogram_has_its_threshold(opened: Tab, inspection: Inspection) -> None:
    assert opened.run("document.querySelectorAll('#histogram path.below, #histogram path.above').length") == 2
    label = opened.run("document.querySelector('#histogram svg').getAttribute('aria-label')")
    assert inspection.threshold is not None
    assert float(label.rsplit(" ", 1)[1]) == pytest.approx(inspection.threshold, rel=0.01)


@needs_browser
@pytest.mark.parametrize("width", [360, 720, 1600])
def test_nothing_sticks_out(opened: Tab, width: int) -> None:
    opened.resize(width, 700)
    assert opened.run("document.documentElement.scrollWidth") <= width


@needs_browser
def test_a_graded_mask_tells_its_strengths(shared_tab: Tab, tmp_path: Path, inspection: Inspection) -> None:
    document = inspection.documents[0]
    strengths = np.where(document.strengths > 0, 51, 0).astype(np.uint8)
    graded = replace(inspection, graded=True, documents=[replace(document, strengths=strengths)])
    (tmp_path / "graded.html").write_text(inspection_page(graded), encoding="utf-8")
    shared_tab.open((tmp_path / "graded.html").as_uri())
    shared_tab.click("#enter")
    shared_tab.hover("#text .sel")
    assert "selected, strength 0.20" in shared_tab.run("document.getElementById('tip').innerText")


def reasons(tab: Tab, page: Path, inspection: Inspection) -> list[str]:
    """What the page says of every token of the first document, in order."""
    page.write_text(inspection_page(inspection), encoding="utf-8")
    tab.resize(1200, 800)
    tab.open(page.as_uri())
    tab.click("#enter")
    return tab.run(
        """[...document.querySelectorAll('#text span')].map((span) => {
            point(span);
            return document.getElementById('tip').lastElementChild.textContent.split(" · ").at(-1);
        })"""
    )


@needs_browser
def test_it_says_why_a_token_is_selected(shared_tab: Tab, tmp_path: Path, inspection: Inspection) -> None:
    scores = np.array([5.0, 0, 0, 0.5, 6, 0, 0], np.float32)
    strengths = np.array([255, 255, 255, 0, 255, 0, 0], np.uint8)
    one = replace(
        inspection.documents[0], pieces=[(letter, 1) for letter in "abcdefg"], scores=scores, strengths=strengths,
        ranks=np.arange(1, 8), num_tokens=7, num_selected=4,
    )  # fmt: skip
    small = replace(inspection, documents=[one], num_tokens=7, threshold=4.0)
    page = tmp_path / "why.html"
    assert reasons(shared_tab, page, replace(small, rule=Rule(4.0, 2, None, "influence"))) == [
        "selected (above τ)", "selected (neighbour: next to a token above τ)",
        "selected (neighbour: 2 tokens from one above τ)", "not selected", "selected (above τ)", "not selected",
        "not selected",
    ]  # fmt: skip
    legend = shared_tab.run("document.getElementById('legend').textContent")
    assert legend.endswith("those above τ 4.00, and 2 neighbours on each side, until the budget is used.")
    assert reasons(shared_tab, page, replace(small, rule=Rule(None, 0, "line", "classifier")))[:4] == [
        *["selected (in a selected line)"] * 3, "not selected",
    ]  # fmt: skip
    assert reasons(shared_tab, page, replace(small, rule=Rule(None, 0, None, "random")))[0] == "selected (by random)"
    assert reasons(shared_tab, page, replace(small, rule=Rule()))[0] == "selected"
    tip = shared_tab.run(
        "point(document.querySelector('#text span:nth-child(7)')), document.getElementById('tip').innerText"
    )
    assert "rank 7 of 7 (higher than 0 % of tokens)" in tip


@needs_browser
def test_the_tip_leaves_the_legend_in_sight(opened: Tab) -> None:
    opened.hover("#text span")
    over = """(([tip, legend]) => tip.top < legend.bottom && legend.top < tip.bottom)(
        ["tip", "legend"].map((id) => document.getElementById(id).getBoundingClientRect()))"""
    assert not opened.run("document.getElementById('tip').hidden") and not opened.run(over)


@needs_browser
def test_phrases_are_searched_by_a_click(shared_tab: Tab, tmp_path: Path, inspection: Inspection) -> None:
    assert shared_tab.run("true")
    phrased = replace(inspection, phrases=[("buffoon", 1234), ("</script><b>x", 2)])
    (tmp_path / "phrases.html").write_text(inspection_page(phrased), encoding="utf-8")
    shared_tab.resize(1200, 900)
    shared_tab.open((tmp_path / "phrases.html").as_uri())
    shared_tab.click("#enter")
    names = shared_tab.run("[...document.querySelectorAll('#phrases button')].map((button) => button.innerText)")
    assert names == ["buffoon1,234", "</script><b>x2"]
    shared_tab.click("#phrases button")
    assert shared_tab.run("document.getElementById('search').value") == "buffoon"
    assert "buffoon" in shown_text(shared_tab)


@needs_browser
def test_no_name_is_said_twice(opened: Tab) -> None:
    assert opened.run("document.getElementById('names').textContent") == "data corpus  ·  script>mask  ·  scores"


@needs_browser
def test_a_long_list_draws_what_is_in_sight(shared_tab: Tab, tmp_path: Path, inspection: Inspection) -> None:
    many = replace(inspection, documents=[replace(inspection.documents[0], index=n) for n in range(1000)])
    (tmp_path / "many.html").write_text(inspection_page(many), encoding="utf-8")
    shared_tab.resize(1200, 800)
    shared_tab.open((tmp_path / "many.html").as_uri())
    shared_tab.click("#enter")
    rows = "[...document.querySelectorAll('.row b')].map((name) => name.textContent)"
    assert 5 < len(shared_tab.run(rows)) < 30
    shared_tab.press("End")
    shared_tab.until(f"{rows}.at(-1) == '#999'")
    assert title(shared_tab) == "Document 999" and len(shared_tab.run(rows)) < 30
    assert shared_tab.run("document.querySelector('.row').ariaSetSize") == "1000"


@needs_browser
def test_without_scores(inspection: Inspection, shared_tab: Tab, tmp_path: Path) -> None:
    documents = [replace(document, scores=None, ranks=None) for document in inspection.documents[:3]]
    plain = replace(inspection, documents=documents, threshold=None, full_colour=0.0, histogram=None)
    (tmp_path / "plain.html").write_text(inspection_page(plain), encoding="utf-8")
    shared_tab.complaints.clear()
    shared_tab.open((tmp_path / "plain.html").as_uri())
    shared_tab.click("#enter")
    assert shared_tab.run("document.getElementById('histogram').hidden")
    assert shared_tab.run("document.querySelectorAll('#text .sel').length") > 0
    shared_tab.hover("#text .sel")
    assert "selected" in shared_tab.run("document.getElementById('tip').innerText")
    assert shared_tab.complaints == []
