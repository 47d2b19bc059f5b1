"""SVG as text: elements, words that cannot inject anything, how wide words are, the sheet around it all.

Only presentation attributes: no style sheet, no script, no id, no link, so that several figures fit into one
page and under any content security policy.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from typing import Final

from rsoup.errors import show

INK: Final = "#1a1a1a"
FAINT: Final = "#595959"
RULE: Final = "#e3e3e3"
PAPER: Final = "#ffffff"
FONT: Final = "DejaVu Sans, Helvetica, Arial, sans-serif"
WIDTH: Final = 720.0
MARGIN: Final = 16.0
SMALL, PLAIN, LARGE = 11.0, 12.0, 13.0
_LONGEST: Final = 4000
_NARROW = {
    **dict.fromkeys("'", 0.27), **dict.fromkeys("ijlIJ", 0.29), **dict.fromkeys(" ,./:;\\|·", 0.34),
    **dict.fromkeys("f-()[]t!r", 0.41), **dict.fromkeys("\"*_`sz?c–", 0.55), **dict.fromkeys("LFkvxyPTYaoeλ", 0.61),
    **dict.fromkeys("KAVBRXZC", 0.69), **dict.fromkeys("UHNDG&OQΩ", 0.78), **dict.fromkeys("w#+<=>^~M±→←×≥≤−", 0.85),
    **dict.fromkeys("%mW@…", 1.0),
}  # fmt: skip
_MIDDLING = 0.64


def px(value: float) -> str:
    """A number of pixels with two decimals at most, and never `-0`."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def escape(words: object, limit: int = _LONGEST) -> str:
    """Words for an element or a quoted attribute: nothing invisible, nothing of control, no markup."""
    return html.escape(show(words, limit), quote=True)


def element(tag: str, inner: str = "", /, **attributes: float | str) -> str:
    """`<tag name="value">inner</tag>`; `_` in a name is `-`, a trailing one nothing; `inner` is SVG already."""
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        shown = value if isinstance(value, str) else px(value)
        parts.append(f' {name.rstrip("_").replace("_", "-")}="{html.escape(shown)}"')
    parts.append(f">{inner}</{tag}>" if inner else "/>")
    return "".join(parts)


def words(
    x: float,
    y: float,
    said: object,
    *,
    size: float = PLAIN,
    anchor: str = "start",
    fill: str = INK,
    bold: bool = False,
    turned: float = 0.0,
    halo: bool = False,
) -> str:
    """Text on its baseline at (x, y), turned by degrees; `halo` is a white edge for text over lines."""
    attributes: dict[str, float | str] = {"font_size": size, "fill": fill}
    if anchor != "start":
        attributes["text_anchor"] = anchor
    if bold:
        attributes["font_weight"] = "bold"
    if halo:
        attributes |= {
            "stroke": PAPER,
            "stroke_width": 3,
            "paint_order": "stroke",
            "stroke_linejoin": "round",
        }
    if turned:
        place: dict[str, float | str] = {"transform": f"translate({px(x)} {px(y)}) rotate({px(turned)})"}
    else:
        place = {"x": x, "y": y}
    return element("text", escape(said), **place, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1.0, dash: str = "") -> str:
    """A straight line; `dash` as in `stroke-dasharray`."""
    also: dict[str, float | str] = {"stroke_dasharray": dash} if dash else {}
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=width, **also)


def path(points: Sequence[tuple[float, float]], **attributes: float | str) -> str:
    """A line through points in pixels; nothing for fewer than two."""
    if len(points) < 2:
        return ""
    return element("polyline", points=" ".join(f"{px(x)},{px(y)}" for x, y in points), **attributes)


def area(points: Sequence[tuple[float, float]], **attributes: float | str) -> str:
    """A filled polygon through points in pixels; nothing for fewer than three."""
    if len(points) < 3:
        return ""
    return element("polygon", points=" ".join(f"{px(x)},{px(y)}" for x, y in points), **attributes)


def width_of(said: str, size: float) -> float:
    """About how wide the words are in pixels, by DejaVu Sans, which is wider than most."""
    return size * math.fsum(_advance(character) for character in said)


def _advance(character: str) -> float:
    if character in _NARROW:
        return _NARROW[character]
    if character.isascii():
        return _MIDDLING
    if unicodedata.combining(character):
        return 0.0
    return 1.05 if unicodedata.east_asian_width(character) in "WF" else 0.8


def fit(said: object, size: float, width: float) -> str:
    """The words made safe to show, and cut with an ellipsis where they are wider than `width`."""
    shown = show(said)
    if width_of(shown, size) <= width:
        return shown
    while shown and width_of(shown + "…", size) > width:
        shown = shown[:-1]
    return shown.rstrip() + "…"


def wrap(said: str, size: float, width: float) -> list[str]:
    """Lines no wider than `width`, broken between words, or inside one that is wider by itself."""
    lines: list[str] = []
    current = ""
    for word in show(said, _LONGEST).split():
        joined = f"{current} {word}" if current else word
        if width_of(joined, size) <= width:
            current = joined
            continue
        if current:
            lines.append(current)
        current = word
        while width_of(current, size) > width and len(current) > 1:
            cut = _fitting(current, size, width)
            lines.append(current[:cut])
            current = current[cut:]
    return [*lines, current] if current else lines


def _fitting(word: str, size: float, width: float) -> int:
    """How many of the word's first characters fit, one at least."""
    used = 0.0
    for count, character in enumerate(word):
        used += size * _advance(character)
        if used > width and count:
            return count
    return len(word)


def sheet(
    title: str, parts: Sequence[str], height: float, caption: Sequence[str], *, width: float = WIDTH
) -> str:
    """The whole SVG: white paper, `parts` in the upper `height` pixels, the caption's sentences under them.

    The caption is drawn, and is the description that screen readers read.
    """
    said = " ".join(sentence for sentence in caption if sentence)
    lines = wrap(said, SMALL, width - 2 * MARGIN)
    below = [words(MARGIN, height + 14 + 15 * i, row, size=SMALL, fill=FAINT) for i, row in enumerate(lines)]
    whole = height + (15 * len(lines) + 10 if lines else 0)
    inner = "\n".join(
        [
            "",
            element("title", escape(title)),
            *([element("desc", escape(said))] if said else []),
            element("rect", width=width, height=whole, fill=PAPER),
            *(part for part in (*parts, *below) if part),
            "",
        ]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{px(width)}" height="{px(whole)}" '
        f'viewBox="0 0 {px(width)} {px(whole)}" role="img" aria-label="{escape(title)}" '
        f'font-family="{FONT}">{inner}</svg>\n'
    )
