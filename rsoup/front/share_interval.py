"""λ* = a/(a + b) of two noisy, independent numbers: its interval after Fieller, which holds where ratios explode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.measured.student import two_sided


@dataclass(frozen=True, slots=True)
class Noisy:
    """A sum of measured values: its `value`, and per value the (variance in it, degrees of freedom of that)."""

    value: float
    parts: Sequence[tuple[float, float]]

    @property
    def variance(self) -> float:
        """The sum's variance, for independent values."""
        return math.fsum(variance for variance, _ in self.parts)


def share_interval(own: Noisy, rest: Noisy, *, confidence: float = 0.95) -> tuple[float, float]:
    """All λ in [0, 1] with |(1 − λ)a − λb| ≤ q·√((1 − λ)²var(a) + λ²var(b)): their lowest and highest.

    a and b are `own` and `rest`, both above 0; q is the two-sided quantile, of Student's t with Welch and
    Satterthwaite's degrees of freedom where the variances are estimates. Its chance to hold the true a/(a + b) is
    `confidence` exactly for known variances, however near to 0 a and b are; it is all of [0, 1] where both may be 0.
    Raises ValueError unless both values are above 0 and finite.
    Source: Fieller 1954, JRSS B 16:175, with the share λ in place of the ratio λ/(1 − λ).
    """
    a, b = own.value, rest.value
    if not (0 < a < math.inf and 0 < b < math.inf):
        raise ValueError("a share is of two numbers above 0")
    share = a / (a + b)
    mixed = [((1 - share) ** 2 * v, nu) for v, nu in own.parts] + [(share**2 * v, nu) for v, nu in rest.parts]
    below = math.fsum(v * v / nu for v, nu in mixed)
    freedom = math.fsum(v for v, _ in mixed) ** 2 / below if below > 0 else math.inf
    square = two_sided(confidence, freedom) ** 2
    va, vb = square * own.variance, square * rest.variance
    roots = _roots((a + b) ** 2 - va - vb, -2 * a * (a + b) + 2 * va, a * a - va)
    low = 0.0 if a * a <= va else max((r for r in roots if r <= share), default=share)
    high = 1.0 if b * b <= vb else min((r for r in roots if r >= share), default=share)
    return max(0.0, low), min(1.0, high)


def _roots(a: float, b: float, c: float) -> list[float]:
    """The real x with ax² + bx + c = 0; touching 0 counts as crossing it."""
    if a == 0:
        return [-c / b] if b else []
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    far = -(b + math.copysign(root, b)) / 2
    return [far / a, c / far] if far else [0.0]
