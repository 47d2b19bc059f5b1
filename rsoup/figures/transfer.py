"""The transfer matrix as a heat map: every expert on every reward, next to the base."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from rsoup.figures.drawing import INK, MARGIN, PAPER, PLAIN, element, fit, sheet
from rsoup.figures.heat import Cell, colour_bar, table
from rsoup.figures.series import Axis, finite
from rsoup.figures.shapes import legend

_MOST: Final = 40


def transfer(
    names: Sequence[str],
    axes: Sequence[Axis],
    values: Sequence[Sequence[float]],
    *,
    base: Sequence[float] | None = None,
    antagonistic: Collection[tuple[int, int]] = (),
    note: str = "",
) -> str:
    """SVG: row i, column k is reward k of expert i; the base's row comes first where it is given.

    Blue is better than the base, vermillion worse, in shares of the column's largest difference from it; without
    a base, from the middle of the column's worst and best. With as many experts as rewards, expert i is reward
    i's own and framed. `antagonistic` holds pairs (i, k) of experts that push each other below the base: both
    cells get a corner. Raises ValueError for a table that is not whole, more than 40 rows or columns, a
    pair that is not in a square table, and a number that is not finite.
    """
    _check(names, axes, values, base, antagonistic)
    square = len(names) == len(axes)
    marked = {cell for i, k in antagonistic for cell in ((i, k), (k, i))}
    coloured = [
        _column(axis, [row[k] for row in values], None if base is None else base[k])
        for k, axis in enumerate(axes)
    ]
    rows = [("base", [Cell(_number(value)) for value in base])] if base is not None else []
    for i, name in enumerate(names):
        cells = [
            Cell(_number(value), coloured[k][i], framed=square and i == k, marked=(i, k) in marked)
            for k, value in enumerate(values[i])
        ]
        rows.append((name, cells))
    top = MARGIN + 22
    columns = [axis.name if axis.maximise else f"{fit(axis.name, PLAIN, 84)} (↓ better)" for axis in axes]
    worse, better = (
        ("worse than base", "better than base") if base is not None else ("worst of column", "best of column")
    )
    parts = colour_bar(MARGIN, MARGIN, worse, better)
    entries = [(_frame(), "the expert's own reward")] if square else []
    entries += [(_corner(), "antagonistic pair")] if marked else []
    keys, top = legend(entries, top=top)
    drawn = table(rows, columns, top=top + 6)
    said = _caption(base is not None, bool(marked))
    title = "Transfer matrix: every expert on every reward"
    return sheet(title, [*parts, *keys, *drawn.parts], drawn.bottom + 6, [*said, note], width=drawn.width)


def _check(
    names: Sequence[str],
    axes: Sequence[Axis],
    values: Sequence[Sequence[float]],
    base: Sequence[float] | None,
    antagonistic: Collection[tuple[int, int]],
) -> None:
    if not names or not axes or max(len(names), len(axes)) > _MOST:
        raise ValueError(f"a transfer matrix has 1 to {_MOST} experts and rewards")
    if len(values) != len(names) or any(
        len(row) != len(axes) for row in [*values, *([base] if base is not None else [])]
    ):
        raise ValueError("the table has not one value per expert and reward")
    finite(value for row in [*values, base or ()] for value in row)
    count = len(names)
    if antagonistic and (
        count != len(axes) or any(not (0 <= i < count and 0 <= k < count) for i, k in antagonistic)
    ):
        raise ValueError("an antagonistic pair is not in the table")


def _column(axis: Axis, values: Sequence[float], base: float | None) -> list[float]:
    """−1 to 1: the difference from the base (or the middle) in shares of the column's largest, better above 0."""
    middle = base if base is not None else min(values) / 2 + max(values) / 2
    turn = 1.0 if axis.maximise else -1.0
    halves = [turn * (value / 2 - middle / 2) for value in values]
    largest = max(map(abs, halves))
    return [half / largest if largest else 0.0 for half in halves]


def _caption(based: bool, marked: bool) -> list[str]:
    middle = "the base" if based else "the middle of the column's worst and best"
    said = [f"Colours are per column: the difference from {middle}, in shares of the column's largest."]
    if marked:
        said.append("Experts of an antagonistic pair are both worse than the base on each other's reward.")
    return said


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _frame() -> str:
    return element("rect", x=-10, y=-7, width=20, height=14, fill=PAPER, stroke=INK, stroke_width=1.8)


def _corner() -> str:
    box = element("rect", x=-10, y=-7, width=20, height=14, fill=PAPER, stroke="#9a9a9a")
    return box + element("polygon", points="0,-6 9,-6 9,3", fill=INK)
