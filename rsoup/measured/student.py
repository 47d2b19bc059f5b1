"""Quantiles of the normal and of Student's t distribution, in pure Python."""

from __future__ import annotations

import math
from statistics import NormalDist

_MANY = 1e5  # degrees of freedom from which on the expansion is exact to 1e-14
_TINY = 1e-300
_EPSILON = 1e-16
_LONGEST = 10_000


def two_sided(confidence: float, freedom: float) -> float:
    """t with P(|T| ≤ t) = `confidence`, for `freedom` degrees of freedom; infinity means the normal distribution.

    `confidence` lies between 0 and 1, both excluded; `freedom` is above 0.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if freedom > _MANY:
        first = (z**3 + z) / 4
        second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        return z + first / freedom + second / freedom**2
    low, high = 0.0, 1.0
    while outside(high, freedom) > 1 - confidence:
        low, high = high, high * 2
    while low < (middle := (low + high) / 2) < high:
        if outside(middle, freedom) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def outside(t: float, freedom: float) -> float:
    """P(|T| > t) = I_x(ν/2, 1/2) with x = ν/(ν + t²), for t ≥ 0 and ν = `freedom` degrees of freedom."""
    a, b = freedom / 2, 0.5
    x, rest = freedom / (freedom + t * t), t * t / (freedom + t * t)
    if rest == 0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast; else the other tail
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(rest, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (Numerical Recipes 6.4)."""
    c = 1.0
    d = 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    value = d
    for m in range(1, _LONGEST):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + factor * d or _TINY)
            c = 1 + factor / c or _TINY
            value *= c * d
        if abs(c * d - 1) <= _EPSILON * 4:
            break
    return value
