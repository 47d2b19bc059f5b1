"""The spider map of several models over three to eight metrics, as in the paper's Figures 2.f, 3.c and 5.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rsoup.errors import show
from rsoup.figures.drawing import (
    FAINT,
    INK,
    PAPER,
    PLAIN,
    RULE,
    SMALL,
    WIDTH,
    area,
    element,
    escape,
    fit,
    line,
    sheet,
    words,
)
from rsoup.figures.normalise import INNER, LEAST, Over, Span, normalised, said
from rsoup.figures.palettes import DASHES, LINES
from rsoup.figures.series import Axis, Model
from rsoup.figures.shapes import HOLLOW, Entry, Shape, cross, legend, shape, stroke_sample

_RADIUS: Final = 165.0
_FILLED: Final = 4  # the areas of more models than this mix to mud
_RINGS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_MARKS: Final[tuple[Shape, ...]] = ("circle", "square", "triangle", "diamond", "down", "pentagon", "star")
Point = tuple[float, float]


def spider(models: Sequence[Model], axes: Sequence[Axis], *, over: Over = "shown", note: str = "") -> str:
    """SVG: a polygon per model over 3 to 8 metrics, each normalised on its own; the caption says how.

    `over="shown"` puts the worst of the models on the inner ring and the best on the outer one, per metric;
    `over="base"` puts the one model of kind `base` on the inner ring instead, and what is worse than it inside.
    Minimised metrics are turned, negative ones are like others; the values at both rings are written at every
    axis. Predicted models are dashed with hollow marks. `note` is a sentence for the caption. Raises ValueError
    for fewer than 3 or more than 8 axes, no or more than 8 models, a number that is not finite, and for
    `over="base"` without exactly one base.
    """
    spans = normalised(models, axes, over)
    parts, top = legend([_entry(index, model) for index, model in enumerate(models)])
    centre = (WIDTH / 2, top + 62 + _RADIUS)
    parts += _web(axes, spans, centre)
    opacity = 0.06 if len(models) <= _FILLED else 0.0
    shares = [[span.at(value) for span, value in zip(spans, model.values, strict=True)] for model in models]
    for index in sorted(range(len(models)), key=lambda index: -math.fsum(shares[index])):
        places = [_place(i, len(axes), share, centre) for i, share in enumerate(shares[index])]
        parts.append(_polygon(index, models[index], axes, places, opacity))
    bottom = max(_place(i, len(axes), 1.0, centre)[1] for i in range(len(axes)))
    rings = "The numbers at an axis are the values at both rings."
    title = f"Spider map: {', '.join(show(model.name, 40) for model in models)}"
    return sheet(title, parts, bottom + 64, [*said(spans, over), rings, note])


def _place(index: int, count: int, share: float, centre: Point) -> Point:
    """Pixels of a normalised value on an axis; 0 is on the inner ring, the least is the centre."""
    radius = _RADIUS * (INNER + (1 - INNER) * max(LEAST, share))
    angle = 2 * math.pi * index / count
    return centre[0] + radius * math.sin(angle), centre[1] - radius * math.cos(angle)


def _web(axes: Sequence[Axis], spans: Sequence[Span], centre: Point) -> list[str]:
    """The rings, the axes with their names, and the values at the rings."""
    count, parts = len(axes), []
    for ring in _RINGS:
        places = [_place(i, count, ring, centre) for i in range(count)]
        parts.append(area(places, fill="none", stroke="#9a9a9a" if ring in (0.0, 1.0) else RULE))
    for i, (axis, span) in enumerate(zip(axes, spans, strict=True)):
        end = _place(i, count, 1.0, centre)
        parts.append(line(*centre, *end, RULE))
        parts += _name(axis, span, 2 * math.pi * i / count, end)
    return parts


def _name(axis: Axis, span: Span, angle: float, end: Point) -> list[str]:
    """The metric's name outside the end of its axis, its direction where it is minimised, its values."""
    across, up = math.sin(angle), math.cos(angle)
    anchor = "middle" if abs(across) < 0.1 else "start" if across > 0 else "end"
    x = end[0] + 14 * across
    room = {"middle": 2 * min(x, WIDTH - x), "start": WIDTH - x, "end": x}[anchor] - 12
    lines = [fit(axis.name, PLAIN, room), *([] if axis.maximise else ["(lower is better)"])]
    lines.append(" → ".join(f"{value:.4g}".replace("-", "−") for value in span.ends))
    tall = 15.0 * (len(lines) - 1)
    y = end[1] - 14 * up + (-tall if up > 0.3 else 10 if up < -0.3 else 4 - tall / 2)
    return [
        words(x, y + 15 * row, text, size=SMALL if row else PLAIN, anchor=anchor, fill=FAINT if row else INK)
        for row, text in enumerate(lines)
    ]


def _style(index: int, model: Model) -> tuple[str, str]:
    """Colour and dashes: a predicted model is dashed, the base is dark, others have a colour of their own."""
    if model.kind == "predicted":
        return str(HOLLOW["stroke"]), "3 3"
    if model.kind == "base":
        return INK, DASHES[3]
    return LINES[index % len(LINES)], ""


def _polygon(index: int, model: Model, axes: Sequence[Axis], places: Sequence[Point], opacity: float) -> str:
    colour, dash = _style(index, model)
    also: dict[str, float | str] = {"stroke_dasharray": dash} if dash else {}
    edge: dict[str, float | str] = {"stroke": colour, "stroke_width": 1.8, "stroke_linejoin": "round"}
    filled = area(places, fill=colour, fill_opacity=opacity, **edge, **also)
    scores = " · ".join(f"{show(a.name, 40)} {v:.6g}" for a, v in zip(axes, model.values, strict=True))
    tip = element("title", escape(f"{show(model.name, 80)}: {scores}"))
    return element("g", tip + filled + "".join(_mark(index, model, x, y) for x, y in places))


def _mark(index: int, model: Model, x: float, y: float) -> str:
    if model.kind == "predicted":
        return shape("circle", x, y, 4.2, **HOLLOW)
    if model.kind == "base":
        return cross(x, y, 5, INK, 2)
    colour, _ = _style(index, model)
    return shape(_MARKS[index % len(_MARKS)], x, y, 4.8, fill=colour, stroke=PAPER, stroke_width=0.8)


def _entry(index: int, model: Model) -> Entry:
    colour, dash = _style(index, model)
    also = " (predicted)" if model.kind == "predicted" else ""
    sample = stroke_sample(colour, dash=dash, width=1.8) + _mark(index, model, 0, 0)
    return sample, show(model.name, 40) + also
