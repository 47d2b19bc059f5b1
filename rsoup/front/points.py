"""Points, their standard errors and repeats, as the measures of a front take them: checked, in floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

Errors = Sequence[Sequence[float | None]]
Repeats = Sequence[Sequence[int | None]]

LARGEST: Final = 1e150  # squares and sums of such values are numbers still


def checked(gains: Sequence[Sequence[float]], rewards: int | None = None) -> list[tuple[float, ...]]:
    """The points as tuples of floats, one value per reward each.

    Raises ValueError without a point or reward, for points of different lengths (or others than `rewards`), for
    values that are not finite or beyond ±10¹⁵⁰.
    """
    points = [tuple(map(float, point)) for point in gains]
    if not points or not points[0]:
        raise ValueError("there is no point")
    if {len(point) for point in points} != {rewards or len(points[0])}:
        raise ValueError("the points have different numbers of rewards")
    for point in points:
        if not all(map(math.isfinite, point)):
            raise ValueError("a value is not finite")
        if any(abs(value) > LARGEST for value in point):
            raise ValueError("a value is too large to compute distances with")
    return points


def columns(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The values of all points, per reward."""
    return list(zip(*points, strict=True))


def checked_errors(errors: Errors, points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """One standard error per value; infinity where it is not known.

    Raises ValueError for another shape than the points', for an error that is below 0 or not finite.
    """
    if len(errors) != len(points) or any(
        len(row) != len(point) for row, point in zip(errors, points, strict=True)
    ):
        raise ValueError("there must be one standard error per value")
    if any(e is not None and not 0 <= e <= LARGEST for row in errors for e in row):
        raise ValueError("a standard error is below 0, or not finite")
    return [tuple(math.inf if e is None else float(e) for e in row) for row in errors]


def freedoms(repeats: Repeats | None, points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """n − 1 degrees of freedom per value; infinity where its error is not from repeats (n is not known, or 1).

    Raises ValueError for another shape than the points', and for n below 1.
    """
    if repeats is None:
        return [(math.inf,) * len(point) for point in points]
    if len(repeats) != len(points) or any(
        len(row) != len(point) for row, point in zip(repeats, points, strict=True)
    ):
        raise ValueError("there must be one number of repeats per value")
    if any(n is not None and n < 1 for row in repeats for n in row):
        raise ValueError("a number of repeats is below 1")
    return [tuple(float(n - 1) if n is not None and n > 1 else math.inf for n in row) for row in repeats]
