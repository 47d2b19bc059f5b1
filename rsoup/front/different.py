"""Points of two sets that are one measurement: the same values, errors and repeats are drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.front.pareto import Values
from rsoup.front.points import Errors, Repeats, checked, checked_errors, freedoms


@dataclass(frozen=True, slots=True)
class Different:
    """The different measurements, and `rows`: per point the index of its measurement."""

    values: tuple[tuple[float, ...], ...]
    errors: tuple[tuple[float | None, ...], ...]
    repeats: tuple[tuple[int | None, ...], ...]
    rows: tuple[int, ...]


def different(values: Sequence[Values], errors: Errors, repeats: Repeats) -> Different:
    """Every measurement once: an expert that is in both sets has the same noise in both.

    Raises ValueError for shapes that differ, errors below 0, repeats below 1, and values that are not finite.
    """
    points = checked(values)
    checked_errors(errors, points)
    freedoms(repeats, points)
    keys = list(zip(points, map(tuple, errors), map(tuple, repeats), strict=True))
    place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    kept = tuple(zip(*place, strict=True))
    return Different(kept[0], kept[1], kept[2], tuple(place[key] for key in keys))
