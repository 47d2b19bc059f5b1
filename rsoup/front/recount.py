"""Gains counted anew in every draw: reference and spans are measured values, too, and have their noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsoup.front.pareto import Reference
from rsoup.measured.student import two_sided

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def recounted(sets: Floats, maximise: Sequence[bool], reference: Reference, experts: Sequence[int]) -> Floats:
    """The gains of each set over its own reference, in its own spans: (sets, points, rewards), raw in, gains out.

    Both are taken from each set as `reference_of` took `reference` from the measured points: from the `experts`
    (points of the sets), or from all points for rewards it says so of. What the user gave stays.
    """
    import numpy as np

    turned = np.where(np.array(maximise), sets, -sets)
    gains = np.empty_like(turned)
    for k, up in enumerate(maximise):
        column = turned[:, :, k]
        ends = column[:, list(experts)] if reference.of_experts[k] else column
        given = reference.values[k] if up else -reference.values[k]
        low = np.full((len(sets), 1), given) if reference.given else ends.min(axis=1, keepdims=True)
        span = np.ptp(ends, axis=1)[:, None] if reference.normalised else np.ones((len(sets), 1))
        gains[:, :, k] = (column - low) / np.where(span > 0, span, 1.0)
    return gains


def unsettled(
    values: Sequence[Sequence[float]],
    errors: Sequence[Sequence[float | None]],
    reference: Reference,
    experts: Sequence[int],
    confidence: float,
) -> list[int]:
    """The rewards whose span is not beyond noise: divided by it, nothing has an interval that ends (Fieller 1954).

    That is best − worst ≤ z·√(se² + se²), of the points the span is from. None where nothing is divided.
    """
    if not reference.normalised:
        return []
    z, found = two_sided(confidence, math.inf), []
    for k, of_experts in enumerate(reference.of_experts):
        rows = list(experts) if of_experts else list(range(len(values)))
        best, worst = (pick(rows, key=lambda i: values[i][k]) for pick in (max, min))
        noise = math.hypot(errors[best][k] or 0.0, errors[worst][k] or 0.0)
        if 0 < values[best][k] - values[worst][k] <= z * noise:
            found.append(k)
    return found
