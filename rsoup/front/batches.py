"""Hypervolume and expected reward of many small sets at once: for bootstraps and for averages over subsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_AT_ONCE = 4_000_000  # numbers in one array: tens of megabytes


def hypervolumes(sets: Floats) -> Floats:
    """The hypervolume of each set, counted from 0 in every reward: (sets, points, rewards) → (sets,).

    For two rewards in one go, Σ (xᵢ − xᵢ₊₁)·max(y₁ … yᵢ) by falling x; for others moocore's, one set after the other.
    """
    import numpy as np

    from rsoup.front.pareto import volume

    if sets.shape[2] != 2:
        return np.array([volume(points) for points in sets])
    inside = np.maximum(sets, 0.0)  # a side of length 0 has no area
    order = np.argsort(-inside[:, :, 0], axis=1)
    x = np.take_along_axis(inside[:, :, 0], order, axis=1)
    height = np.maximum.accumulate(np.take_along_axis(inside[:, :, 1], order, axis=1), axis=1)
    result: Floats = (-np.diff(x, axis=1, append=0.0) * height).sum(axis=1)
    return result


def expected_rewards(sets: Floats) -> Floats:
    """E max_p (1 − μ)p₁ + μp₂ with μ ~ U(0, 1) of each set: (sets, points, 2) → (sets,), exact but for rounding.

    Point i of the convex hull is the best from L to U, where it is worth as much as its neighbours; it contributes
    p₁(U − L) + (p₂ − p₁)(U² − L²)/2. O(n log n) per set. Raises ValueError for another number of rewards.
    """
    if sets.shape[2] != 2:
        raise ValueError("this integral is for two rewards")
    return _in_parts(sets, _envelopes, sets.shape[1])


def _envelopes(sets: Floats) -> Floats:
    import numpy as np

    x, y, row = hulls(sets)
    between, joined = breaks(x, y, row)
    end = np.append(between, 1.0)
    begin = np.append(0.0, np.where(joined, between, 0.0))
    parts = x * (end - begin) + (y - x) * (end**2 - begin**2) / 2
    result: Floats = np.bincount(row, parts, minlength=len(sets)).astype(np.float64)
    return result


def breaks(x: Floats, y: Floats, row: NDArray[np.intp]) -> tuple[Floats, NDArray[np.bool_]]:
    """The μ where a point of a hull is worth as much as the next one, 1 at the last of a set; and which are not last."""
    import numpy as np

    joined = row[1:] == row[:-1]
    fall, rise = np.where(joined, x[:-1] - x[1:], 1.0), np.where(joined, y[1:] - y[:-1], 0.0)
    return fall / (fall + rise), joined


def hulls(sets: Floats) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Of `fronts` those points that are the best one for some linear preference."""
    x, y, row = fronts(sets)
    while (kept := _outside(x, y, row)) is not None:
        x, y, row = x[kept], y[kept], row[kept]
    return x, y, row


def fronts(sets: Floats) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """The fronts of all sets in one line, by falling first and rising second reward: values and each one's set."""
    import numpy as np

    order = np.lexsort((-sets[:, :, 1], -sets[:, :, 0]), axis=1)
    x, y = (np.take_along_axis(sets[:, :, k], order, axis=1) for k in (0, 1))
    highest = np.maximum.accumulate(y, axis=1)
    on = np.ones(y.shape, dtype=bool)
    on[:, 1:] = y[:, 1:] > highest[:, :-1]
    return x[on], y[on], np.nonzero(on)[0]


def _outside(x: Floats, y: Floats, row: NDArray[np.intp]) -> NDArray[np.bool_] | None:
    """Without the points that do not lie beyond the chord of their neighbours; None where all do."""
    import numpy as np

    inner = (row[2:] == row[:-2]) if len(row) > 2 else np.zeros(0, dtype=bool)
    before, after = (x[:-2] - x[1:-1]) * (y[2:] - y[1:-1]), (y[1:-1] - y[:-2]) * (x[1:-1] - x[2:])
    dented = inner & (before >= after)
    if not dented.any():
        return None
    kept = np.ones(len(row), dtype=bool)
    kept[1:-1] = ~dented
    return kept


def _in_parts(sets: Floats, measure: Callable[[Floats], Floats], size: int) -> Floats:
    """`measure` of as many sets at a time as keep its arrays of `size` numbers per set small."""
    import numpy as np

    step = max(1, _AT_ONCE // max(1, size))
    return np.concatenate([measure(sets[i : i + step]) for i in range(0, len(sets), step)])


def expected_over(preferences: Sequence[Sequence[float]]) -> Callable[[Floats], Floats]:
    """The mean over these preferences μ of max_p Σ μₖpₖ, of each set: for any number of rewards.

    (preferences, rewards), each row a weight per reward; (sets, points, rewards) → (sets,).
    """
    import numpy as np

    weights = np.array(preferences, dtype=np.float64).T

    def measure(sets: Floats) -> Floats:
        return _in_parts(
            sets, lambda part: (part @ weights).max(axis=1).mean(axis=1), sets.shape[1] * weights.shape[1]
        )

    return measure
