"""Whether a soup matches many trainings, from paired differences over seeds, by a rule that was fixed before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from rsoup.measured.student import two_sided

BETTER: Final = "better"
MATCH: Final = "match"
WORSE: Final = "worse"
INCONCLUSIVE: Final = "inconclusive"

SEEDS: Final = 10
DRAWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict (`BETTER`, `MATCH`, `WORSE`, `INCONCLUSIVE`), the mean difference, its interval, and why.

    `few` tells that there were fewer seeds than the rule asks for, which is inconclusive whatever they say.
    """

    verdict: str
    mean: float
    low: float
    high: float
    delta: float
    confidence: float
    seeds: int
    few: bool
    how: str


def decide(
    differences: Sequence[float],
    delta: float,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    least: int = SEEDS,
    draws: int = DRAWS,
) -> Decision:
    """better if low > 0; match if low > −δ; worse if high < 0; else inconclusive: low to high of E[soup − others].

    One difference per seed, soup minus the others, of the same measure on the same seed; δ is fixed beforehand (a
    tenth of what the others gain over the best single expert). A loss that is certain and smaller than δ is a match.
    The interval is the bootstrap's of the mean, by percentiles expanded for small samples: at
    Φ(∓√(n/(n − 1))·t) with Student's t of n − 1 degrees of freedom (Hesterberg 2015, The American Statistician 69:371).
    The same seed draws the same, and the order of the differences does not matter.

    Raises ValueError for fewer than two differences, one that is not finite, δ below 0 or not finite, a confidence
    not between 0 and 1.
    """
    import numpy as np

    count = len(differences)
    if count < 2:
        raise ValueError("a decision needs differences of at least two seeds")
    if not all(map(math.isfinite, differences)) or not (math.isfinite(delta) and delta >= 0):
        raise ValueError("differences are finite numbers, and δ one from 0 up")
    if not 0 < confidence < 1:
        raise ValueError("a confidence lies between 0 and 1")
    found = np.sort(np.array(differences, dtype=np.float64))
    picks = np.random.default_rng(seed).integers(0, count, size=(draws, count))
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * two_sided(confidence, count - 1))
    low, high = (float(q) for q in np.quantile(found[picks].mean(axis=1), [tail, 1 - tail]))
    few = count < least
    verdict = INCONCLUSIVE if few else _verdict(low, high, delta)
    how = f"bootstrap of the mean of {count} paired differences, {confidence:.0%}, δ = {delta:g}"
    if few:
        how += f"; {least} seeds are needed for a decision"
    return Decision(verdict, float(found.mean()), low, high, delta, confidence, count, few, how)


def _verdict(low: float, high: float, delta: float) -> str:
    if low > 0:
        return BETTER
    if low > -delta:
        return MATCH
    return WORSE if high < 0 else INCONCLUSIVE
