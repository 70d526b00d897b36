"""The page engine: elements in, one self-contained HTML page out.

A page is written as Python: `element` makes one element of what stands inside it, loops are comprehensions and
conditions are conditions. All text is escaped, and shown as `visible` shows it, unless it is `Html` already; so a
corpus, a model or a name becomes markup nowhere. Only the standard library is needed.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Union

from ifguide.pages.text import visible

# colours of the style sheet that tell models apart, in the order in which models take them
SERIES = ("base", "guided", "control", "other", "accent", "planted")
_OWN_COLOUR = ("base", "guided", "control")
SHADES = 10  # steps of colour on each side of zero

_HERE = Path(__file__).parent
_STRONGEST = 0.75  # share of the full colour in the last step
_VOID = {"meta", "br", "hr", "img", "input"}
# a line each in the page's source
_LINES = {
    "p", "h1", "h2", "h3", "div", "table", "caption", "thead", "tbody", "tr", "figure", "figcaption", "details",
    "summary", "article", "dl", "dd", "ul", "li", "pre", "main", "output", "meta", "title",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9-]*")
# what could end a JSON element, confuse a parser, or reorder the page's source in an editor
_UNSAFE = re.compile("[<>&\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\uffff]")


class Html(str):
    """Text that is markup already. Whatever is made of it by the means of `str` is plain text again."""

    __slots__ = ()


Content = Union[str, int, None, Iterable["Content"]]  # noqa: UP007 - evaluated, and `|` takes no forward reference


def join(*content: Content) -> Html:
    """All of ``content`` one after the other, text escaped; None is nothing, and what can be iterated is taken apart.

    Raises:
        TypeError: anything else, such as a float, whose digits are the caller's to choose.
    """
    parts: list[str] = []
    for item in content:
        if item is None:
            continue
        if isinstance(item, Html):
            parts.append(item)
        elif isinstance(item, str):
            parts.append(html.escape(visible(item)))
        elif isinstance(item, int) and not isinstance(item, bool):
            parts.append(str(item))
        elif isinstance(item, Iterable) and not isinstance(item, (bytes, Mapping)):
            parts.append(join(*item))
        else:
            raise TypeError(f"{item!r} has no place in a page")
    return Html("".join(parts))


def element(tag: str, *content: Content, **attributes: str | int | None) -> Html:
    """``<tag ...>content</tag>``.

    Args:
        content: as for `join`.
        attributes: by name, with ``_`` for ``-`` and one more at the end where Python reserves the name
            (``class_``, ``aria_label``). None leaves the attribute out, "" is one without a value.

    Raises:
        ValueError: a name that is none, content in an element that has none, or a script, which `page` alone makes.
    """
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    if tag in ("script", "style") or not all(_NAME.fullmatch(name) for name in (tag, *names)):
        raise ValueError(f"<{tag} {' '.join(names)}> cannot be made")
    if any(name.startswith("on") for name in names):
        raise ValueError(f"<{tag}>: pages have no scripts in attributes")
    said = "".join(
        f' {name}="{html.escape(visible(str(value)))}"' if value != "" else f" {name}" for name, value in names.items()
    )
    end = "\n" if tag in _LINES else ""
    if tag in _VOID:
        if content:
            raise ValueError(f"<{tag}> holds nothing")
        return Html(f"<{tag}{said}>{end}")
    return Html(f"<{tag}{said}>{join(*content)}</{tag}>{end}")


def page(title: str, *body: Content, scripts: Iterable[str] = (), data: str | None = None, drawn: bool = False) -> str:
    """A whole page, whose security policy allows its own style sheet and scripts and nothing else.

    Args:
        title: of the window.
        body: as for `join`.
        scripts: files of this folder that run on the page, in this order, as one script.
        data: JSON for the scripts, as `json_text` writes it.
        drawn: whether the body holds plots, whose elements carry styles of their own.
    """
    style = style_sheet()
    script = '"use strict";\n' + "".join(map(read, scripts)) if scripts else ""
    policy = ["default-src 'none'", f"style-src {_styles(style, drawn)}", "base-uri 'none'", "form-action 'none'"]
    if script:
        policy.append(f"script-src '{_digest(script)}'")
    head = join(
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # written as it stands: its quotes are no danger between double ones
        Html(f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(policy)}">\n'),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        Html(f"<style>{_inside('style', style)}</style>\n"),
    )
    end = "" if data is None else f'<script id="data" type="application/json">{_inside("script", data)}</script>\n'
    if script:
        end += f"<script>{_inside('script', script)}</script>\n"
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}</head>\n<body>\n{join(*body)}{end}</body>\n</html>\n'


def warning(title: str, *text: Content) -> Html:
    """A box that nobody overlooks."""
    return element("p", element("strong", title), " ", *text, class_="warning", role="note")


def scrolling(table: Html, **label: str) -> Html:
    """A table that may be wider than the page; ``label``: `aria_label`, or `aria_labelledby` with a heading's id."""
    return element("div", table, class_="wide", role="region", tabindex=0, **label)


def heads(*cells: Content) -> Html:
    """The head of a table: one row."""
    return element("thead", element("tr", [element("th", cell, scope="col") for cell in cells]))


def plotted(figures: Iterable[tuple[str, Html]]) -> Html:
    """Plots under their captions, side by side where there is room."""
    return element(
        "div", [element("figure", element("figcaption", text), svg) for text, svg in figures], class_="figures"
    )


def colours_of(models: Sequence[str]) -> list[str]:
    """The colour of each of ``models``, of the style sheet: a base, guided or control model has always the same,
    the others take what these leave, in order, and begin anew when there are more models than colours."""
    left = cycle([colour for colour in SERIES if colour not in models] or SERIES)
    return [model if model in _OWN_COLOUR else next(left) for model in models]


def swatched(name: str, colour: str) -> Html:
    """The name of a model with its colour in plots."""
    return join(element("span", class_=f"swatch {colour}"), name)


def said_cell(text: str, toxicity: float) -> Html:
    """A continuation after its toxicity."""
    score = element("b", f"{toxicity:.2f}", class_=shade_class(toxicity, 1.0) or None)
    return element("td", score, " ", text if text.strip() else element("em", "(no text)"), dir="auto")


def pairs(caption: str, values: Mapping[str, str]) -> Html:
    """A small table of names and values."""
    rows = [element("tr", element("th", key, scope="row"), element("td", value)) for key, value in values.items()]
    return element("table", element("caption", caption), element("tbody", rows), class_="pairs")


def json_text(value: object) -> str:
    """``value`` as JSON that may stand inside an element, whatever its texts say.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def style_sheet() -> str:
    """The style sheet of every page: ``page.css`` and the steps of red (``p1`` ..) and blue (``n1`` ..)."""
    return read("page.css") + "".join(
        f".{sign}{step} {{ background: rgb(var(--{name}) / {_STRONGEST * step / SHADES:.3f}); }}\n"
        for sign, name in (("p", "hot"), ("n", "cold"))
        for step in range(1, SHADES + 1)
    )


def shade(score: float, full: float, steps: int = SHADES) -> int:
    """-``steps`` .. ``steps``: how strong the colour of ``score`` is where ``full`` gets the full one; 0 is none."""
    if full == 0:
        return 0
    return (1 if score > 0 else -1) * round(steps * min(1.0, abs(score) / full))


def shade_class(score: float, full: float) -> str:
    """The class that colours ``score``: ``p3`` is the third step of red, ``n3`` of blue, "" none."""
    step = shade(score, full)
    return f"{'p' if step > 0 else 'n'}{abs(step)}" if step else ""


def read(name: str) -> str:
    """A file of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


def _inside(tag: str, text: str) -> str:
    """
    Raises:
        ValueError: ``text`` would end the element ``tag`` or hide its end.
    """
    if re.search(rf"</{tag}|<!--", text, re.IGNORECASE):
        raise ValueError(f"what stands inside <{tag}> would end it")
    return text


def _styles(style: str, drawn: bool) -> str:
    return "'unsafe-inline'" if drawn else f"'{_digest(style)}'"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
