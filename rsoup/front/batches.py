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
        return np.array([volume(points) for points in sets.tolist()])
    inside = np.maximum(sets, 0.0)  # a side of length 0 has no area
    order = np.argsort(-inside[:, :, 0], axis=1)
    x = np.take_along_axis(inside[:, :, 0], order, axis=1)
    height = np.maximum.accumulate(np.take_along_axis(inside[:, :, 1], order, axis=1), axis=1)
    result: Floats = (-np.diff(x, axis=1, append=0.0) * height).sum(axis=1)
    return result


def expected_rewards(sets: Floats) -> Floats:
    """E max_p (1 − μ)p₁ + μp₂ with μ ~ U(0, 1) of each set: (sets, points, 2) → (sets,), exact but for rounding.

    Point i is the best from L to U, where its line crosses those of smaller and of larger slope; it contributes
    p₁(U − L) + (p₂ − p₁)(U² − L²)/2. Raises ValueError for another number of rewards.
    """
    if sets.shape[2] != 2:
        raise ValueError("this integral is for two rewards")
    return _in_parts(sets, _envelopes, sets.shape[1] ** 2)


def _envelopes(sets: Floats) -> Floats:
    import numpy as np

    start = sets[:, :, 0]
    slope = sets[:, :, 1] - start
    count = sets.shape[1]
    steeper = slope[:, None, :] - slope[:, :, None]  # of j over i
    lead = start[:, :, None] - start[:, None, :]  # of i over j
    crossing = np.divide(lead, steeper, out=np.zeros_like(lead), where=steeper != 0)
    end = np.where(steeper > 0, crossing, 1.0).min(axis=2)
    begin = np.where(steeper < 0, crossing, 0.0).max(axis=2)
    earlier = np.tri(count, k=-1, dtype=bool)
    hidden = ((steeper == 0) & ((lead < 0) | ((lead == 0) & earlier))).any(axis=2)
    end = np.where(hidden, begin, np.maximum(begin, end))
    result: Floats = (start * (end - begin) + slope * (end**2 - begin**2) / 2).sum(axis=1)
    return result


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
