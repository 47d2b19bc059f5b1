"""How far each layer moved, and in which direction against the others: pictures of what `rsoup check` measures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rsoup.errors import show
from rsoup.figures.axes import Box, Frame, Scale, left_of, scale, thinned
from rsoup.figures.drawing import INK, MARGIN, SMALL, WIDTH, fit, line, path, sheet, width_of, words
from rsoup.figures.heat import Cell, colour_bar, table
from rsoup.figures.palettes import DASHES, LINES
from rsoup.figures.series import Layer, finite
from rsoup.figures.shapes import Entry, legend, shape, stroke_sample

_MOST: Final = len(LINES) * len(DASHES)
_MOST_NAMES: Final = 40
_HEIGHT: Final = 260.0
_DOTS: Final = 60  # with more layers than this the line alone is drawn
_NUMBER: Final = re.compile(r"layer (\d+)")


def layers(
    found: Sequence[Layer],
    names: Sequence[str],
    *,
    what: str = "relative distance from the base",
    zero: bool = True,
    note: str = "",
) -> str:
    """SVG: a line per ingredient (or pair of ingredients) over the layers, in the order they are given.

    Unknown values (None) leave a gap. `zero` starts the axis at 0, as distances do; cosines are drawn without
    it. Raises ValueError without layers or names, for more than 32 names, for a layer without one value per
    name, when nothing is known, and for a number that is not finite.
    """
    if not found or not names or len(names) > _MOST:
        raise ValueError(f"there are 1 to {_MOST} lines over at least one layer")
    if any(len(layer.values) != len(names) for layer in found):
        raise ValueError("a layer has not one value per name")
    known = [value for layer in found for value in layer.values if value is not None]
    finite(known)
    if not known:
        raise ValueError("no value is known")
    parts, top = legend([_entry(index, name) for index, name in enumerate(names)])
    up = _up([*known, *([0.0] if zero else [])], zero)
    box = Box(MARGIN + left_of(up), top + 8, WIDTH - MARGIN - 8, top + 8 + _HEIGHT)
    frame = Frame(box, Scale(-0.5, len(found) - 0.5, (), ()), up)
    ticks, below = _ticks(found, frame)
    parts += [*frame.grid(), *ticks, *frame.y_name(what)]
    for index in range(len(names)):
        parts += _line(index, found, frame)
    gaps = ["Gaps are layers for which nothing is known."] if len(known) < len(found) * len(names) else []
    return sheet(f"By layer: {show(what, 100)}", parts, box.bottom + below, [*gaps, note])


def _up(values: Sequence[float], zero: bool) -> Scale:
    """The y scale; one that starts at 0 has no room below it."""
    made = scale(values, 6)
    if not zero or min(values) < 0.0 or max(values) == 0.0:
        return made
    kept = [(tick, text) for tick, text in zip(made.ticks, made.texts, strict=True) if tick >= 0]
    return Scale(0.0, made.high, tuple(tick for tick, _ in kept), tuple(text for _, text in kept))


def _ticks(found: Sequence[Layer], frame: Frame) -> tuple[list[str], float]:
    """The layers' numbers, as many as have room; names of other parts are turned. And the room they need."""
    box, parts = frame.box, []
    numbered = [
        (i, match.group(1)) for i, layer in enumerate(found) if (match := _NUMBER.fullmatch(layer.name))
    ]
    others = [
        (i, fit(layer.name, SMALL, 110)) for i, layer in enumerate(found) if not _NUMBER.fullmatch(layer.name)
    ]
    every = thinned([frame.across(i) for i, _ in numbered], [width_of(text, SMALL) for _, text in numbered])
    for i, text in numbered[::every]:
        x = frame.across(i)
        parts += [
            line(x, box.bottom, x, box.bottom + 4, INK),
            words(x, box.bottom + 17, text, size=SMALL, anchor="middle"),
        ]
    apart = thinned([frame.across(i) for i, _ in others], [SMALL] * len(others), gap=2)
    below = 24.0
    for i, text in others[::apart]:
        x = frame.across(i)
        parts.append(line(x, box.bottom, x, box.bottom + 4, INK))
        parts.append(words(x + 4, box.bottom + 9, text, size=SMALL, anchor="end", turned=-90))
        below = max(below, width_of(text, SMALL) + 14)
    if numbered:
        parts.append(words((box.left + box.right) / 2, box.bottom + 36, "layer", anchor="middle"))
        below = max(below, 42.0)
    return parts, below


def _line(index: int, found: Sequence[Layer], frame: Frame) -> list[str]:
    """A line through neighbouring layers; other parts of the model are dots of their own."""
    colour, dash = LINES[index % len(LINES)], DASHES[index // len(LINES)]
    also: dict[str, float | str] = {"stroke_dasharray": dash} if dash else {}
    runs: list[list[tuple[float, float]]] = [[]]
    for place, layer in enumerate(found):
        value, numbered = layer.values[index], _NUMBER.fullmatch(layer.name) is not None
        if value is None or not numbered:
            runs.append([])
        if value is not None:
            runs[-1].append(frame.at(place, value))
        if not numbered:
            runs.append([])
    parts = [path(run, fill="none", stroke=colour, stroke_width=1.5, **also) for run in runs]
    dots = [at for run in runs if len(run) == 1 or len(found) <= _DOTS for at in run]
    return [*parts, *(shape("circle", *at, 2.6, fill=colour) for at in dots)]


def _entry(index: int, name: str) -> Entry:
    colour, dash = LINES[index % len(LINES)], DASHES[index // len(LINES)]
    return stroke_sample(colour, dash=dash) + shape("circle", 0, 0, 2.6, fill=colour), show(name, 60)


def cosines(names: Sequence[str], matrix: Sequence[Sequence[float | None]], *, note: str = "") -> str:
    """SVG: the cosines between the ingredients' updates as a square heat map, the numbers in the cells.

    1 is the same direction (blue), 0 at right angles (white), −1 opposite (vermillion); unknown cells are a
    dash. Raises ValueError for a matrix that is not square, more than 40 names, and a number beyond [−1, 1].
    """
    if not 1 <= len(names) <= _MOST_NAMES:
        raise ValueError(f"there are 1 to {_MOST_NAMES} ingredients")
    if len(matrix) != len(names) or any(len(row) != len(names) for row in matrix):
        raise ValueError("the matrix is not square")
    if any(not -1 <= value <= 1 for row in matrix for value in row if value is not None):
        raise ValueError("a cosine is not in [-1, 1]")
    rows = [
        (name, [Cell("–" if v is None else f"{v:.2f}".replace("-", "−"), v) for v in row])
        for name, row in zip(names, matrix, strict=True)
    ]
    drawn = table(rows, list(names), top=MARGIN + 26)
    parts = [*colour_bar(MARGIN, MARGIN, "−1 opposite", "1 same direction"), *drawn.parts]
    said = "Cosines between the updates of the ingredients, over all tensors."
    title = "Cosines between the ingredients' updates"
    return sheet(title, parts, drawn.bottom + 6, [said, note], width=drawn.width)
