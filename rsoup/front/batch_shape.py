"""Coverage and utility loss of many small sets at once: for their bootstraps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsoup.front.batches import breaks, fronts, hulls

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_AT_ONCE = 4_000_000  # numbers in one array: tens of megabytes


def coverages(sets: Floats, experts: Sequence[int]) -> Floats:
    """Per set the share of the experts' range that its front covers, by reward, then what its best is beyond it.

    (sets, points, rewards) → (sets, 2·rewards), as `shape.coverage` has them; `experts` are points of the sets, which
    must differ in every reward.
    """
    import numpy as np

    low, high = _ends(sets)
    ends = sets[:, list(experts)]
    worst, best = ends.min(axis=1), ends.max(axis=1)
    inside = np.maximum(0.0, np.minimum(high, best) - np.maximum(low, worst))
    result: Floats = np.hstack([inside / (best - worst), (high - best) / (best - worst)])
    return result


def _ends(sets: Floats) -> tuple[Floats, Floats]:
    """The lowest and the highest value of each set's front, by reward."""
    import numpy as np

    high = sets.max(axis=1)
    if sets.shape[2] == 2:
        x, y, row = fronts(sets)
        last = np.append(row[1:] != row[:-1], True)
        return np.stack([x[last], y[np.insert(last[:-1], 0, True)]], axis=1), high
    import moocore  # type: ignore[import-untyped]

    low = [points[moocore.is_nondominated(points, maximise=True)].min(axis=0) for points in sets]
    return np.array(low), high


def losses(sets: Floats, others: Floats) -> Floats:
    """max_μ (u_others(μ) − u_sets(μ)) of each pair of sets of two rewards: exact but for rounding.

    (sets, points, 2), (sets, other points, 2) → (sets,), as `utility_loss` has it: the largest difference is where
    one of both envelopes bends.
    """
    import numpy as np

    result = np.full(len(sets), -np.inf)
    ends = np.repeat([[0.0], [1.0]], len(sets), axis=1).ravel(), np.tile(np.arange(len(sets)), 2)
    for mu, row in (ends, _bends(sets), _bends(others)):
        step = max(1, _AT_ONCE // (sets.shape[1] + others.shape[1]))
        for start in range(0, len(mu), step):
            where, which = mu[start : start + step, None], row[start : start + step]
            np.maximum.at(result, which, _best(others[which], where) - _best(sets[which], where))
    return result


def _bends(sets: Floats) -> tuple[Floats, NDArray[np.intp]]:
    x, y, row = hulls(sets)
    between, joined = breaks(x, y, row)
    return between[joined], row[:-1][joined]


def _best(sets: Floats, mu: Floats) -> Floats:
    result: Floats = (sets[:, :, 0] + mu * (sets[:, :, 1] - sets[:, :, 0])).max(axis=1)
    return result
