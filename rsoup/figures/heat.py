"""Tables as heat maps: a coloured cell per number, the number in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.figures.drawing import INK, MARGIN, PAPER, PLAIN, SMALL, WIDTH, element, fit, width_of, words
from rsoup.figures.palettes import diverging, ink_on

ROW: Final = 34.0
_LEAST, _MOST = 46.0, 96.0  # how wide a cell is
_NAME: Final = 150.0
_NARROWEST: Final = 440.0


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell says, its colour from −1 to 1 (None: white), and whether it is framed or has a mark."""

    said: str
    colour: float | None = None
    framed: bool = False
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A drawn table: its parts, where it ends, and how wide the sheet must be."""

    parts: list[str]
    bottom: float
    width: float


def table(rows: Sequence[tuple[str, Sequence[Cell]]], columns: Sequence[str], *, top: float) -> Table:
    """The cells with their rows' names at the left and the columns' names above.

    Columns' names are turned where they would not fit side by side; cells are as wide as the sheet allows, and
    the sheet is wider than usual where it holds too many.
    """
    names = [fit(name, PLAIN, _NAME) for name, _ in rows]
    shown = [fit(name, PLAIN, _NAME) for name in columns]
    lengths = [width_of(name, PLAIN) for name in shown]
    start = MARGIN + max(width_of(name, PLAIN) for name in names) + 10
    wide = max(_LEAST, min(_MOST, (WIDTH - MARGIN - start) / len(columns)))
    turned = max(lengths) > wide - 6
    if turned:
        ends = ((WIDTH - start - 0.67 * length - 12) / (i + 0.5) for i, length in enumerate(lengths))
        wide = max(_LEAST, min(wide, *ends))
    upper = top + (max(lengths) * 0.75 + 18 if turned else 22)
    parts = []
    for index, name in enumerate(shown):
        x = start + (index + 0.5) * wide
        how = (
            words(x + 3, upper - 8, name, turned=-48)
            if turned
            else words(x, upper - 8, name, anchor="middle")
        )
        parts.append(how)
    for row, (name, (_, cells)) in enumerate(zip(names, rows, strict=True)):
        y = upper + row * ROW
        parts.append(words(start - 8, y + ROW / 2 + 4, name, anchor="end"))
        parts += [part for i, cell in enumerate(cells) for part in _cell(cell, start + i * wide, y, wide)]
    for row, (_, cells) in enumerate(rows):
        for i, cell in enumerate(cells):
            if cell.framed:
                parts.append(_border(start + i * wide, upper + row * ROW, wide))
    overhang = (start + (i + 0.5) * wide + 0.67 * length + 12 for i, length in enumerate(lengths) if turned)
    right = max(start + len(columns) * wide + MARGIN, *overhang, _NARROWEST)
    return Table(parts, upper + len(rows) * ROW, right)


def _border(x: float, y: float, wide: float) -> str:
    return element(
        "rect", x=x + 1, y=y + 1, width=wide - 2, height=ROW - 2, fill="none", stroke=INK, stroke_width=1.8
    )


def _cell(cell: Cell, x: float, y: float, wide: float) -> list[str]:
    colour = PAPER if cell.colour is None else diverging(cell.colour)
    ink = ink_on(colour)
    size = (
        SMALL
        if width_of(cell.said, SMALL) <= wide - 6
        else max(7.0, SMALL * (wide - 6) / width_of(cell.said, SMALL))
    )
    parts = [element("rect", x=x, y=y, width=wide, height=ROW, fill=colour, stroke=PAPER, stroke_width=1)]
    parts.append(words(x + wide / 2, y + ROW / 2 + 4, cell.said, size=size, anchor="middle", fill=ink))
    if cell.marked:
        corner = (
            f"{x + wide - 11:.2f},{y + 2:.2f} {x + wide - 2:.2f},{y + 2:.2f} {x + wide - 2:.2f},{y + 11:.2f}"
        )
        parts.append(element("polygon", points=corner, fill=ink))
    return parts


def colour_bar(x: float, y: float, low: str, high: str) -> list[str]:
    """The diverging scale with what its ends mean; 22 pixels high."""
    start = x + width_of(low, SMALL) + 8
    parts = [words(x, y + 11, low, size=SMALL)]
    for index in range(41):
        colour = diverging(index / 20 - 1)
        parts.append(element("rect", x=start + index * 4, y=y, width=4.3, height=14, fill=colour))
    parts.append(
        element("rect", x=start, y=y, width=164.3, height=14, fill="none", stroke="#9a9a9a", stroke_width=0.8)
    )
    return [*parts, words(start + 172, y + 11, high, size=SMALL)]
