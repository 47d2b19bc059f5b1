"""Expected reward where one evaluation chooses the point for each preference, and another one scores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsoup.front.expected import Gains, envelope, some_preferences

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_PREFERENCES = 20_000


def choice_weights(gains: Gains) -> Floats:
    """W[p][k] = E μₖ·1[p maximises Σ μₖgₖ] for μ uniform on the simplex: (points, rewards), sum 1.

    Σ W·r is the expected reward if `gains` choose and r scores: linear in r, so that noise in r does not lift it. Of
    equal points the first is chosen. Exact for one and two rewards, else over 20 000 preferences of a lattice.
    Raises ValueError like `expected_reward`.
    """
    import numpy as np

    count = len(gains[0]) if gains else 0
    weights = np.zeros((len(gains), max(count, 1)))
    if count == 2:
        for part in envelope(gains):
            square = (part.end**2 - part.start**2) / 2
            weights[part.index] += part.end - part.start - square, square
        return weights
    if count < 2:
        weights[max(range(len(gains)), key=lambda i: gains[i][0]), 0] = 1.0
        return weights
    preferences = some_preferences(count, _PREFERENCES)[count:]  # without the corners, which have no share
    best = (preferences @ np.array(gains, dtype=np.float64).T).argmax(axis=1)
    np.add.at(weights, best, preferences / len(preferences))
    return weights


def scored(weights: Floats, gains: Sequence[Sequence[float]]) -> float:
    """Σ W·r."""
    import numpy as np

    return float((weights * np.array(gains, dtype=np.float64)).sum())
