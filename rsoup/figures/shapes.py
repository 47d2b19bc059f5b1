"""The marks of figures and the legend that explains them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from rsoup.figures.drawing import (
    FAINT,
    INK,
    MARGIN,
    PAPER,
    PLAIN,
    WIDTH,
    element,
    fit,
    line,
    px,
    width_of,
    words,
)
from rsoup.figures.palettes import BLUE, COMPARED, GREEN, ORANGE
from rsoup.figures.series import Kind

Shape = Literal["circle", "diamond", "star", "square", "triangle", "down", "pentagon"]
Entry = tuple[str, str]  # a sample drawn around (0, 0), 22 pixels wide; what it means

RADIUS: Final = {
    "front": 4.6,
    "dominated": 3.2,
    "expert": 7.0,
    "base": 6.0,
    "compared": 7.2,
    "predicted": 4.6,
}
HOLLOW: Final[dict[str, float | str]] = {
    "fill": PAPER,
    "stroke": GREEN,
    "stroke_width": 1.4,
    "stroke_dasharray": "2.2 1.6",
}
SETS: Final[tuple[Shape, ...]] = ("star", "triangle", "square", "down", "pentagon")
MOST_SETS: Final = len(SETS) * len(COMPARED)
_ROW, _SAMPLE, _GAP = 20.0, 29.0, 20.0


def shape(kind: Shape, x: float, y: float, radius: float, /, **attributes: float | str) -> str:
    """A mark around (x, y)."""
    if kind == "circle":
        return element("circle", cx=x, cy=y, r=radius, **attributes)
    corners = _corners(kind, radius)
    return element("polygon", points=" ".join(f"{px(x + a)},{px(y + b)}" for a, b in corners), **attributes)


def _corners(kind: Shape, radius: float) -> list[tuple[float, float]]:
    if kind == "star":
        return [_spoke(i, 10, radius if i % 2 == 0 else radius * 0.42) for i in range(10)]
    if kind == "square":
        half = radius * 0.78
        return [(-half, -half), (half, -half), (half, half), (-half, half)]
    if kind == "down":
        return [(a, -b) for a, b in _corners("triangle", radius)]
    sides = {"diamond": 4, "triangle": 3, "pentagon": 5}[kind]
    return [_spoke(i, sides, radius) for i in range(sides)]


def _spoke(index: int, count: int, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * index / count
    return radius * math.sin(angle), -radius * math.cos(angle)


def cross(x: float, y: float, radius: float, stroke: str, width: float = 2.4) -> str:
    """A diagonal cross: the base."""
    arm = radius * 0.75
    d = f"M{px(x - arm)} {px(y - arm)}L{px(x + arm)} {px(y + arm)}M{px(x - arm)} {px(y + arm)}L{px(x + arm)} {px(y - arm)}"
    return element("path", d=d, stroke=stroke, stroke_width=width, stroke_linecap="round", fill="none")


def plus(x: float, y: float, radius: float, stroke: str) -> str:
    """An upright cross: a reference point."""
    d = f"M{px(x - radius)} {px(y)}H{px(x + radius)}M{px(x)} {px(y - radius)}V{px(y + radius)}"
    return element("path", d=d, stroke=stroke, stroke_width=1.4, fill="none")


def glyph(kind: Kind, x: float, y: float, which: int = 0) -> str:
    """The mark of a kind of point; `which` numbers the compared sets, each a shape and colour of its own."""
    radius = RADIUS[kind]
    if kind == "base":
        return cross(x, y, radius, INK)
    if kind == "predicted":
        return shape("circle", x, y, radius, **HOLLOW)
    if kind == "expert":
        return shape("diamond", x, y, radius, fill=ORANGE, stroke=INK, stroke_width=0.9)
    if kind == "compared":
        edge: dict[str, float | str] = {"stroke": INK, "stroke_width": 0.8, "stroke_linejoin": "round"}
        return shape(SETS[which % len(SETS)], x, y, radius, fill=COMPARED[which % len(COMPARED)], **edge)
    if kind == "dominated":
        return shape("circle", x, y, radius, fill="#8a8a8a", fill_opacity=0.6)
    return shape("circle", x, y, radius, fill=BLUE, stroke=PAPER, stroke_width=0.7)


def legend(entries: Sequence[Entry], *, top: float = MARGIN, width: float = WIDTH) -> tuple[list[str], float]:
    """The samples and their words in rows from `top` on, and where the last row ends."""
    parts: list[str] = []
    x, y = MARGIN, top
    for sample, said in entries:
        shown = fit(said, PLAIN, width - 2 * MARGIN - _SAMPLE)
        wide = _SAMPLE + width_of(shown, PLAIN)
        if x > MARGIN and x + wide > width - MARGIN:
            x, y = MARGIN, y + _ROW
        parts.append(element("g", sample, transform=f"translate({px(x + 11)} {px(y + 8)})"))
        parts.append(words(x + _SAMPLE, y + 12, shown))
        x += wide + _GAP
    return parts, (y + _ROW if entries else top)


def stroke_sample(stroke: str, *, dash: str = "", width: float = 1.6) -> str:
    """A line for the legend."""
    return line(-11, 0, 11, 0, stroke, width, dash)


def area_sample(fill: str, opacity: float) -> str:
    """A filled patch for the legend."""
    return element("rect", x=-11, y=-6, width=22, height=12, fill=fill, fill_opacity=opacity)


def bar_sample() -> str:
    """An error bar for the legend."""
    return line(0, -7, 0, 7, FAINT) + line(-3, -7, 3, -7, FAINT) + line(-3, 7, 3, 7, FAINT)
