"""Which points may be the best one under some preference: the others are below a mixture of these, and take no part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FEW: Final = 64  # points that are not worth the search
_ROUNDS: Final = 60
_EACH: Final = 10  # rounds between two looks at what is proven
_STEP: Final = 8.0
_MARGIN: Final = 1e-9  # of the range: a proof is no matter of rounding


def contenders(points: Floats, tried: Floats) -> Floats:
    """The rows of `points` (points, rewards) without some that Σ μₖpₖ, μ ≥ 0, is the largest of for no μ.

    max_p μ·p is the same with and without them, for every μ on the simplex. Left out are dominated points, and those
    that a mixture Σ αⱼqⱼ of points that stay exceeds in every reward, which proves it: μ·p < Σ αⱼ μ·qⱼ ≤ max μ·q. The
    q are the best ones under the preferences `tried` (preferences, rewards); α is where the weights of p and the q
    play against each other (Hedge: Freund & Schapire 1999, Games and Economic Behavior 29:79). A point for which no
    proof is found stays.
    """
    import numpy as np

    if len(points) <= _FEW:
        return points
    import moocore  # type: ignore[import-untyped]

    points = points[moocore.is_nondominated(points, maximise=True)]
    best = np.zeros(len(points), dtype=bool)
    best[np.unique((tried @ points.T).argmax(axis=1))] = True
    if len(points) <= _FEW or 2 * best.sum() > len(points):
        return points
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    unit = (points - low) / np.where(span > 0, span, 1.0)
    best[_unproven(unit, np.flatnonzero(~best), unit[best])] = True
    result: Floats = points[best]
    return result


def _unproven(unit: Floats, rows: NDArray[np.intp], mixed: Floats) -> NDArray[np.intp]:
    """Those `rows` of `unit` that no mixture found of `mixed` exceeds in every reward."""
    import numpy as np

    lead = np.zeros((len(rows), unit.shape[1]))  # Σ over the rounds of q − p
    for number in range(1, _ROUNDS + 1):
        rate = _STEP * math.sqrt(math.log(unit.shape[1]) / number)
        weights = np.exp(-rate * (lead - lead.min(axis=1, keepdims=True)))
        lead += mixed[(weights @ mixed.T).argmax(axis=1)] - unit[rows]
        if number % _EACH == 0:
            open_ = lead.min(axis=1) <= _MARGIN * number
            rows, lead = rows[open_], lead[open_]
    return rows
