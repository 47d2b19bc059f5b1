"""The paper's smoothing of a front: a moving average of three, then a quadratic spline along the curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

PLACES: Final = 75
_NO_STEP: Final = 1e-12  # of the curve's length: a spline through points nearer than that is all rounding
_FAR: Final = 1e300
_AVERAGED: Final = (
    "moving average over three points in the order of λ, the ends kept (Savitzky–Golay, window 3, order 1),"
    " then a quadratic spline over chord length"
)


@dataclass(frozen=True, slots=True)
class Curve:
    """A line to draw beside the measured points, never instead of them; `smoothed` is False where it is those points.

    `points` are in the order of λ, one value per reward; `how` says in words how they came about.
    """

    points: tuple[tuple[float, ...], ...]
    smoothed: bool
    how: str


def smooth(
    positions: Sequence[Fraction | float], values: Sequence[Sequence[float]], places: int = PLACES
) -> Curve:
    """The curve at `places` values of s = 0 … 1 in equal steps, s the normalised chord length of the averaged points.

    `positions` is one number per point, which orders them along the front (the λ of the last ingredient);
    `values` the rewards, in their own units: chords are measured in these, as the paper does. Points whose
    averages coincide with the one before (nearer than 10⁻¹² of the length) count once. Where fewer than three
    are left (one or two points, all equal) there is nothing to smooth: the measured points, in order.
    Raises ValueError for a position given twice, shapes that differ, values that are not finite, no point,
    and fewer than two places.
    Source: Ramé et al. 2023, answer to reviewer TSwH (Savitzky–Golay 3/1, quadratic interpolation, 75 points).
    """
    _check(positions, values, places)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    import numpy as np

    raw = np.array([values[i] for i in order], dtype=np.float64)
    averaged = moving_average(raw)
    steps = _chords(averaged)
    moved = np.concatenate([[True], steps > _NO_STEP * steps.sum()])
    if moved.sum() < 3:
        points = tuple(tuple(map(float, point)) for point in raw)
        return Curve(points, smoothed=False, how="the measured points: fewer than three differ")
    kept = averaged[moved]
    lengths = np.concatenate([[0.0], np.cumsum(_chords(kept))])
    drawn = quadratic_spline(lengths / lengths[-1], kept, np.linspace(0.0, 1.0, places))
    return Curve(tuple(tuple(map(float, point)) for point in drawn), smoothed=True, how=_AVERAGED)


def _check(positions: Sequence[Fraction | float], values: Sequence[Sequence[float]], places: int) -> None:
    if len(positions) != len(values) or len({len(row) for row in values}) > 1:
        raise ValueError("there must be one row of values per position, all of one length")
    if not values or not values[0]:
        raise ValueError("there is no point to smooth")
    if not all(map(math.isfinite, positions)) or not all(math.isfinite(v) for row in values for v in row):
        raise ValueError("a position or a value is not finite")
    if max(abs(v) for row in values for v in row) > _FAR:
        raise ValueError("the values are too far apart for a curve")
    if len(set(positions)) != len(positions):
        raise ValueError("a position is given twice: which of the points comes first?")
    if places < 2:
        raise ValueError("a curve has at least two places: its ends")


def _chords(points: Floats) -> Floats:
    """The distances between successive points, in units of the largest step of one reward: no square is lost."""
    import numpy as np

    steps = np.diff(points, axis=0)
    unit = float(abs(steps).max(initial=0.0)) or 1.0
    chords: Floats = np.sqrt(((steps / unit) ** 2).sum(axis=1))
    return chords


def moving_average(values: Floats) -> Floats:
    """(v[i−1] + v[i] + v[i+1])/3, the first and the last as they are; rows are points, in order."""
    averaged = values.copy()
    averaged[1:-1] = (values[:-2] + values[1:-1] + values[2:]) / 3
    return averaged


def quadratic_spline(x: Floats, values: Floats, where: Floats) -> Floats:
    """The piecewise quadratic, once differentiable, through (x[i], values[i]), at `where`: one row per place.

    Its pieces meet halfway between neighbouring x, but for the first and the last two: what scipy's
    `make_interp_spline(k=2)` and `interp1d(kind="quadratic")` draw. x: at least three, increasing; values: rows.
    Beyond x it is the first or the last piece. Raises ValueError for fewer than three x, or not increasing ones.
    """
    import numpy as np

    count = len(x)
    if count < 3 or not (np.diff(x) > 0).all() or len(values) != count:
        raise ValueError(
            "a quadratic spline needs at least three increasing places, a row of values for each"
        )
    middles = (x[1:] + x[:-1])[1:-1] / 2
    knots = np.concatenate([x[:1].repeat(3), middles, x[-1:].repeat(3)])
    own = np.clip(np.arange(count) + 1, 2, count - 1)
    coefficients = _solve(_basis(knots, x, own), values)
    spans = np.clip(np.searchsorted(knots, where, side="right") - 1, 2, count - 1)
    weights = _basis(knots, where, spans)
    return sum(weights[:, k, None] * coefficients[spans - 2 + k] for k in range(3))  # type: ignore[return-value]


def _basis(knots: Floats, x: Floats, spans: Any) -> Floats:
    """The three quadratic B-splines that are not 0 on the span of each x (Cox and de Boor); rows sum to 1."""
    import numpy as np

    before, low, high, after = (knots[spans + k] for k in (-1, 0, 1, 2))
    right = (x - low) / (high - low)
    left = (high - x) / (high - low)
    rising, falling = (x - low) / (after - low), (high - x) / (high - before)
    return np.stack([falling * left, (1 - falling) * left + (1 - rising) * right, rising * right], axis=1)


def _solve(rows: Floats, values: Floats) -> Floats:
    """Coefficients that give `values`: row i of the matrix has its three entries around the diagonal.

    Elimination without exchanging rows is stable: the matrix of B-splines is totally positive (de Boor).
    """
    import numpy as np

    count = len(rows)
    lower, middle, upper = rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2].copy()
    lower[[0, -1]], middle[[0, -1]], upper[[0, -1]] = 0.0, 1.0, 0.0  # the curve begins and ends in a point
    solved = np.array(values, dtype=np.float64)
    for i in range(1, count):
        factor = lower[i] / middle[i - 1]
        middle[i] -= factor * upper[i - 1]
        solved[i] -= factor * solved[i - 1]
    solved[-1] /= middle[-1]
    for i in range(count - 2, -1, -1):
        solved[i] = (solved[i] - upper[i] * solved[i + 1]) / middle[i]
    return solved
