"""A scatter plot of two rewards as lines of text, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

from rsoup.errors import show

Mark = Literal["front", "dominated", "expert"]

UNICODE: Final = {"front": "●", "dominated": "⠂", "expert": "◆"}
ASCII: Final = {"front": "o", "dominated": ".", "expert": "x"}
COLOURS: Final = {"front": "\x1b[32m", "dominated": "\x1b[2m", "expert": "\x1b[35m"}
RESET: Final = "\x1b[0m"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille, by row and column of a cell
_RANK: dict[Mark, int] = {"dominated": 0, "front": 1, "expert": 2}
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LEAST = (24, 6)
_MOST, _LEAST_RANGE = 1e300, 1e-280  # beyond, floats have no room for ticks: drawn at the edge, or as one


def scatter(
    points: Sequence[tuple[float, float, Mark]],
    *,
    width: int = 72,
    height: int = 18,
    labels: tuple[str, str] = ("x", "y"),
    unicode: bool = True,
    colour: bool = False,
) -> list[str]:
    """Lines of at most `width` columns: the points over their ticks, `height` lines in all with the legend.

    Points on the front and experts are marks of their own, over everything else in their cell; dominated
    points are braille dots, 2 × 4 to a cell (one `.` per cell in ASCII). `labels` are the two rewards' names.
    `colour` adds ANSI colours. No lines where there are no points; raises ValueError for a value that is not
    finite.
    """
    if not points:
        return []
    if not all(math.isfinite(x) and math.isfinite(y) for x, y, _ in points):
        raise ValueError("a value is not finite")
    points = [(_within(x), _within(y), mark) for x, y, mark in points]
    width, height = max(width, _LEAST[0]), max(height, _LEAST[1])
    rows = height - 4  # the y label, the axis, the x ticks, the legend
    y_ticks = ticks([y for _, y, _ in points], max(2, rows // 3))
    y_texts = tick_texts(y_ticks)
    left = max(map(len, y_texts)) + 2
    columns = width - left
    x_ticks = ticks([x for x, _, _ in points], max(2, columns // 14))
    cells = _cells(points, x_ticks, y_ticks, columns, rows, unicode=unicode)
    at_row = {
        _place(y, y_ticks, rows - 1, turned=True): text for y, text in zip(y_ticks, y_texts, strict=True)
    }
    wall, corner, floor, tee = "│└─┬" if unicode else "|+-+"
    lines = [show(labels[1], width)]
    for row in range(rows):
        body = "".join(_cell(cells.get((row, column)), unicode, colour) for column in range(columns)).rstrip()
        lines.append(f"{at_row.get(row, '').rjust(left - 2)} {wall}{body}")
    at_column = {
        _place(x, x_ticks, columns - 1): text for x, text in zip(x_ticks, tick_texts(x_ticks), strict=True)
    }
    lines.append(
        " " * (left - 1) + corner + "".join(tee if c in at_column else floor for c in range(columns))
    )
    lines.append(_x_texts(at_column, left, width))
    return [
        *lines,
        _legend({mark for _, _, mark in points}, labels[0], width, unicode=unicode, colour=colour),
    ]


def ticks(values: Sequence[float], about: int) -> list[float]:
    """Evenly spaced round numbers around all `values`, some `about` of them, at least two.

    The step is 1, 2, 2.5 or 5 times a power of ten. Where a float cannot resolve the range, it is
    widened around the value.
    """
    low, high = _within(min(values)), _within(max(values))
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    finest = max(abs(middle), _LEAST_RANGE) * 1e-12
    if half < finest:
        half = (abs(middle) * 0.05 or 1.0) if low == high else finest
        low, high = middle - half, middle + half
    raw = 2 * (half / max(1, about - 1))
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * s for s in _STEPS if power * s >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [_clean(i * step, step) for i in range(first, max(last, first + 1) + 1)]


def _clean(value: float, step: float) -> float:
    """The float nearest to the round number that is meant."""
    places = 2 - math.floor(math.log10(step))
    return (round(value, places) if abs(places) < 300 else value) + 0.0


def _within(value: float) -> float:
    return min(_MOST, max(-_MOST, value))


def tick_texts(values: Sequence[float]) -> list[str]:
    """The numbers with as many digits as tell them apart; powers of ten where they are very large or small."""
    highest = max(map(abs, values))
    step = min(b / 2 - a / 2 for a, b in pairwise(values)) * 2 if len(values) > 1 else highest
    if 1e-4 <= highest < 1e6 and step >= 1e-9:
        places = next((p for p in range(12) if all(abs(round(v, p) - v) < step * 1e-6 for v in values)), 12)
        return [f"{value:.{places}f}" for value in values]
    digits = next((d for d in range(16) if len({f"{v:.{d}e}" for v in values}) == len(values)), 16)
    exact = next((d for d in range(digits, 16) if all(abs(float(f"{v:.{d}e}") - v) <= step * 1e-6 for v in values)), digits)  # fmt: skip
    return [f"{value:.{exact}e}" if value else "0" for value in values]


def share(value: float, over: Sequence[float]) -> float:
    """Where a value lies between the first and the last tick, 0 to 1, whatever the size of the range."""
    low, high = over[0], over[-1]
    return min(1.0, max(0.0, (value / 2 - low / 2) / (high / 2 - low / 2)))


def _place(value: float, over: Sequence[float], last: int, *, turned: bool = False) -> int:
    at = share(value, over)
    return round((1 - at if turned else at) * last)


def _cells(
    points: Sequence[tuple[float, float, Mark]],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    columns: int,
    rows: int,
    *,
    unicode: bool,
) -> dict[tuple[int, int], tuple[Mark, int]]:
    """By (row, column) the strongest mark there, and the braille dots of the dominated points."""
    cells: dict[tuple[int, int], tuple[Mark, int]] = {}
    for x, y, mark in points:
        row, column, dots = _place(y, y_ticks, rows - 1, turned=True), _place(x, x_ticks, columns - 1), 0
        if mark == "dominated" and unicode:
            fine_row, fine_column = (
                _place(y, y_ticks, 4 * rows - 1, turned=True),
                _place(x, x_ticks, 2 * columns - 1),
            )
            row, column = fine_row // 4, fine_column // 2
            dots = _DOTS[fine_row % 4][fine_column % 2]
        before, bits = cells.get((row, column), (mark, 0))
        cells[row, column] = (mark if _RANK[mark] > _RANK[before] else before, bits | dots)
    return cells


def _cell(found: tuple[Mark, int] | None, unicode: bool, colour: bool) -> str:
    if found is None:
        return " "
    mark, dots = found
    glyph = (UNICODE if unicode else ASCII)[mark]
    if unicode and mark == "dominated":
        glyph = chr(0x2800 + dots)
    return f"{COLOURS[mark]}{glyph}{RESET}" if colour else glyph


def _x_texts(at_column: dict[int, str], left: int, width: int) -> str:
    """The ticks' numbers under their columns, inside the width, none over another."""
    line = ""
    for column, text in sorted(at_column.items()):
        start = max(0, min(left + column - len(text) // 2, width - len(text)))
        if not line or start > len(line):
            line = line.ljust(start) + text
    return line


def _legend(marks: set[Mark], label: str, width: int, *, unicode: bool, colour: bool) -> str:
    """What the marks mean, and the x axis's name at the right."""
    glyphs = UNICODE if unicode else ASCII
    present = [mark for mark in ("front", "dominated", "expert") if mark in marks]
    plain = "  ".join(f"{glyphs[mark]} {mark}" for mark in present)
    name = show(label, max(1, width - len(plain) - 3))
    text = plain
    if colour:
        text = "  ".join(f"{COLOURS[mark]}{glyphs[mark]}{RESET} {mark}" for mark in present)
    return text + name.rjust(width - len(plain))
