"""The page engine: nothing but what is marked becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.pages.environment import (
    SHADES,
    Html,
    element,
    heads,
    join,
    json_text,
    page,
    pairs,
    said_cell,
    shade,
    shade_class,
    style_sheet,
)
from ifguide.pages.text import visible
from tests.pages.conftest import Page

HOSTILE = "</script></style><img src=x onerror=alert(1)> \"a\" 'b' &amp; {{ 7 * 7 }} <!-- \u202egnp\x00\u2028"


@settings(deadline=None)
@given(st.text())
def test_any_text_and_any_attribute_come_back(text: str) -> None:
    """Through a parser: what is read is what was written, with the unseen made visible."""
    made = element("p", text, title=text)
    parsed = Page(made, watch=("p",))
    assert len(parsed.elements) == 1 and parsed.elements[0][0] == "p"
    wanted = visible(text)
    assert parsed.texts["p"] == [wanted] and parsed.elements[0][1] == {"title": wanted}


def test_hostile_text_is_inert() -> None:
    made = element("td", HOSTILE, element("b", HOSTILE), title=HOSTILE)
    assert [tag for tag, _ in Page(made).elements] == ["td", "b"]
    assert not re.search("[\x00\u202e\u2028]|<img|<!--|</s", made)


def test_markup_made_by_hand_is_text_again() -> None:
    bold = element("b", "x")
    assert join(f"{bold}!") == "&lt;b&gt;x&lt;/b&gt;!", "a formatted string is no markup"
    assert join(bold + "<i>") == "&lt;b&gt;x&lt;/b&gt;&lt;i&gt;"
    assert join(bold, "<i>") == "<b>x</b>&lt;i&gt;"


def test_conditions_and_loops_are_python() -> None:
    rows = (element("td", number) for number in range(3))
    assert element("tr", rows, None, [], [["a", None], 7]) == "<tr><td>0</td><td>1</td><td>2</td>a7</tr>\n"


@pytest.mark.parametrize("content", [0.1, True, object(), b"bytes", {"a": "b"}])
def test_what_has_no_one_form_is_refused(content: object) -> None:
    with pytest.raises(TypeError, match="no place in a page"):
        element("p", content)  # type: ignore[arg-type]


def test_attributes() -> None:
    assert element("input", class_="a", aria_label="b & c", hidden="", rowspan=2, title=None) == (
        '<input class="a" aria-label="b &amp; c" hidden rowspan="2">'
    )


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [("script", {}), ("style", {}), ("p", {"onclick": "x"}), ("p", {"a b": "x"}), ("p x", {}), ("P>", {})],
)
def test_elements_that_cannot_be_made(tag: str, attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"cannot be made|no scripts"):
        element(tag, "x", **attributes)


def test_a_void_element_holds_nothing() -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        element("br", "x")


def test_a_page_allows_its_own_style_and_scripts_alone() -> None:
    made = page(HOSTILE, element("main", HOSTILE), scripts=["document.js"], data=json_text({"head": HOSTILE}))
    parsed = Page(made, watch=("script", "style", "title"))
    assert parsed.texts["title"] == [visible(HOSTILE)]
    data, script = parsed.texts["script"]
    assert json.loads(data) == {"head": HOSTILE}
    policy = next(a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    for kind, text in (("style", parsed.texts["style"][0]), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert "base-uri 'none'" in policy and "form-action 'none'" in policy
    assert script.startswith('"use strict";')


def test_a_page_without_scripts_allows_none_and_plots_keep_their_styles() -> None:
    made = page("title", element("main"), drawn=True)
    assert "<script" not in made and "script-src" not in made and "style-src 'unsafe-inline'" in made


@pytest.mark.parametrize("data", ['"</script>"', '"</SCRIPT >"', '"<!--"'])
def test_data_that_would_end_its_element_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="would end it"):
        page("title", data=data)


@settings(deadline=None)
@given(st.text())
def test_json_comes_back_and_is_inert(text: str) -> None:
    written = json_text([text])
    assert json.loads(written) == [text]
    assert not re.search("[<>&\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", written)
    page("title", data=written).encode("utf-8")


def test_json_has_finite_numbers_only() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text(float("nan"))


def test_shades_are_symmetric_and_capped() -> None:
    scores = [-9.0, -1.0, -0.52, -0.04, 0.0, 0.04, 0.52, 1.0, 9.0]
    assert [shade(score, 1.0) for score in scores] == [-10, -10, -5, 0, 0, 0, 5, 10, 10]
    assert [shade(score, 2.0, 6) for score in (-1.0, 0.5)] == [-3, 2]
    assert shade(3.0, 0.0) == 0, "where all scores are 0"
    assert [shade_class(score, 1.0) for score in (-0.3, 0.0, 0.7)] == ["n3", "", "p7"]


def test_every_shade_has_a_style() -> None:
    style = style_sheet()
    steps = {
        sign: [
            float(share) for share in re.findall(rf"\.{sign}\d+ {{ background: rgb\(var\(--\w+\) / ([\d.]+)\)", style)
        ]
        for sign in "pn"
    }
    assert steps["p"] == steps["n"] == sorted(steps["p"]) and len(steps["p"]) == SHADES


def test_parts_of_pages() -> None:
    assert heads("<a>") == '<thead><tr><th scope="col">&lt;a&gt;</th></tr>\n</thead>\n'
    assert "<em>(no text)</em>" in said_cell(" \n", 0.2) and '<b class="p2">0.20</b>' in said_cell(" \n", 0.2)
    assert said_cell("<i>", 0.0) == '<td dir="auto"><b>0.00</b> &lt;i&gt;</td>'
    assert Page(pairs("a", {"b<": "c"}), ("th", "td")).texts == {"th": ["b<"], "td": ["c"]}
    assert isinstance(pairs("a", {}), Html)
