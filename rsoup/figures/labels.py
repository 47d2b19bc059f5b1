"""Where labels have room: a greedy, deterministic placement beside the points, leaving out what does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rsoup.figures.axes import Box
from rsoup.figures.drawing import width_of

_CELL = 3.0
Cell = tuple[int, int]
Place = tuple[float, float]  # the left end of the baseline


class Room:
    """What of a rectangle is still free, in cells of 3 × 3 pixels."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._taken: set[Cell] = set()

    def block(self, x: float, y: float, radius: float) -> None:
        """A mark is here."""
        self._taken.update(_cells(x - radius, y - radius, x + radius, y + radius))

    def block_path(self, points: Sequence[tuple[float, float]]) -> None:
        """A line goes along here."""
        for (x1, y1), (x2, y2) in pairwise(points):
            steps = max(1, math.ceil(math.hypot(x2 - x1, y2 - y1) / _CELL))
            for i in range(steps + 1):
                x, y = x1 + (x2 - x1) * i / steps, y1 + (y2 - y1) * i / steps
                self._taken.add((math.floor(x / _CELL), math.floor(y / _CELL)))

    def place(
        self, x: float, y: float, said: str, size: float, radius: float, outward: tuple[int, int]
    ) -> Place | None:
        """A free place for words beside the mark at (x, y), first on its `outward` side; None where all are taken.

        `outward` is (±1, ±1) in pixels: where better points would be, so that labels keep off the dominated.
        The place is taken from then on.
        """
        wide, tall = width_of(said, size), size * 0.74
        for far in (radius + 3, radius + 11):
            for dx, dy in _sides(*outward):
                left = x + dx * far - (0.0 if dx > 0 else wide if dx < 0 else wide / 2)
                base = y + dy * far + (tall if dy > 0 else 0.0 if dy < 0 else tall / 2)
                if dx and dy:
                    left, base = left - dx * 0.3 * far, base - dy * 0.3 * far
                if self._claim(left, base - tall, left + wide, base):
                    return left, base
        return None

    def _claim(self, left: float, top: float, right: float, bottom: float) -> bool:
        box = self._box
        if left < box.left or right > box.right or top < box.top or bottom > box.bottom:
            return False
        wanted = _cells(left - 1, top - 1, right + 1, bottom + 1)
        if not self._taken.isdisjoint(wanted):
            return False
        self._taken.update(wanted)
        return True


def spread(count: int) -> list[int]:
    """The indices 0 … count−1: the ends, the middle, the quarters, …, so that the first few lie apart."""
    if count <= 2:
        return list(range(count))
    order, seen = [0, count - 1], {0, count - 1}
    pieces = 2
    while len(order) < count:
        for part in range(1, pieces):
            index = round(part * (count - 1) / pieces)
            if index not in seen:
                seen.add(index)
                order.append(index)
        pieces *= 2
    return order


def _sides(dx: int, dy: int) -> list[tuple[int, int]]:
    """Directions in order: outward, beside it, across, inward."""
    return [(dx, dy), (dx, 0), (0, dy), (dx, -dy), (-dx, dy), (0, -dy), (-dx, 0), (-dx, -dy)]


def _cells(left: float, top: float, right: float, bottom: float) -> list[Cell]:
    columns = range(math.floor(left / _CELL), math.floor(right / _CELL) + 1)
    rows = range(math.floor(top / _CELL), math.floor(bottom / _CELL) + 1)
    return [(column, row) for column in columns for row in rows]
