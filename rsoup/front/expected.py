"""What a set of points promises a user whose preference μ is not known yet: expected reward, utility loss.

Points are gains: every reward is to be maximised, in any unit (`rsoup.front.pareto.scaled` makes them so). The
utility of a point p under μ is Σ μₖpₖ; that of a set is the utility of its best point.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

from rsoup.front.contenders import contenders
from rsoup.front.pareto import front

Gains = Sequence[Sequence[float]]
SHIFTS: Final = 16
"""Random shifts of the lattice of preferences; their spread is the integration error."""
LATTICE: Final = 2053
"""Preferences per shift, a prime above 2¹¹; each is taken in the N rotations of its N weights."""
_GENERATOR = 356  # of Korobov's lattice; by full search near the smallest P₂ in all of 2 … 7 dimensions
_MOST = 2.0**1022  # so that every difference is finite
_BLOCK = 100_000  # utilities at a time, so that they stay in the cache
_TRIED = 2_000  # preferences that find most of the points that are ever the best


@dataclass(frozen=True, slots=True)
class Interval:
    """From `start` to `end`, weights μ of the second reward, the point `index` is the best one."""

    start: float
    end: float
    index: int


@dataclass(frozen=True, slots=True)
class Expected:
    """E max_p Σ μₖpₖ; `how` is its definition in words.

    `error` is the standard error of the integration, 0 where the integral is exact; it says nothing about the noise
    of the points. `intervals` tell which point is best where; they are known for two rewards alone.
    """

    value: float
    error: float
    intervals: tuple[Interval, ...]
    how: str


@dataclass(frozen=True, slots=True)
class Loss:
    """max_μ (u_reference(μ) − u(μ)), below 0 where the points are better everywhere; `preference` is a μ that attains it.

    Where it is not `exact`, it is the largest of the preferences tried: a lower bound.
    """

    value: float
    preference: tuple[float, ...]
    exact: bool
    how: str


def expected_reward(gains: Gains) -> Expected:
    """E max_p Σ μₖpₖ over preferences μ uniform on the simplex: the paper's expected reward, for the best λ per μ.

    Exact for two rewards, where μ ~ U(0, 1) weighs the second; one reward has its largest value. Beyond, μ ~
    Dirichlet(1, …, 1) by 16 randomly shifted lattices of 2053 preferences each (Korobov's, folded by the tent
    map, in all rotations of the rewards), the same ones each time, and `error` is the standard error over the
    shifts. The order of the points, duplicates and dominated points do not matter, another point never lowers it,
    and E(aP + b) = aE(P) + mean(b) for a > 0.

    Raises ValueError without points, for values that are not finite, and for points that differ in length.
    Source: Ramé et al. 2023, expected reward over μ̂ ~ U(0, 1).
    """
    count = _checked(gains)
    if count == 1:
        return Expected(max(float(point[0]) for point in gains), 0.0, (), "the largest value")
    if count == 2:
        line = _Envelope.of(_whole(gains), gains)
        return Expected(
            line.mean(), 0.0, line.intervals(), "E max ((1 − μ)·r1 + μ·r2) for μ ~ U(0, 1), exact"
        )
    value, error = _over_simplex(gains)
    how = f"E max Σ μ·r for μ ~ Dirichlet(1, …, 1), by {SHIFTS} randomly shifted lattices of {LATTICE * count} preferences"
    return Expected(value, error, (), how)


def envelope(gains: Gains) -> tuple[Interval, ...]:
    """Which point maximises (1 − μ)p₁ + μp₂, from μ = 0 to 1: the upper envelope of lines, by the convex hull.

    Of equal points it is the first; a point that is best at a single μ only has no interval. O(n log n), and the
    comparisons are exact. Raises ValueError like `expected_reward`, and but for two rewards.
    """
    if _checked(gains) != 2:
        raise ValueError("an envelope of lines is for two rewards")
    return _Envelope.of(_whole(gains), gains).intervals()


def utility_loss(gains: Gains, reference: Gains) -> Loss:
    """MUL = max_μ (u_reference(μ) − u(μ)): how much utility a user can miss at most with `gains` only.

    Exact for one and two rewards: the difference is piecewise linear in μ, so its maximum is at a breakpoint of
    either envelope (the smallest such μ is returned). Beyond, a lower bound: the largest over the preferences
    of `expected_reward`, the corners of the simplex and its centre.

    Raises ValueError like `expected_reward`, and where the numbers of rewards differ.
    Source: Zintgraf et al. 2015, maximum utility loss.
    """
    count = _checked(gains)
    if _checked(reference) != count:
        raise ValueError("points and reference differ in the number of rewards")
    if count == 1:
        loss = max(float(point[0]) for point in reference) - max(float(point[0]) for point in gains)
        return Loss(loss, (1.0,), True, "the difference of the largest values")
    if count == 2:
        whole = _whole([*gains, *reference])
        ours = _Envelope.of(whole[: len(gains)], gains)
        theirs = _Envelope.of(whole[len(gains) :], reference)
        both = sorted({*ours.breaks, *theirs.breaks})
        value, where = max(
            ((theirs.at(mu) - ours.at(mu), mu) for mu in both), key=lambda pair: (pair[0], -pair[1])
        )
        return Loss(float(value), (float(1 - where), float(where)), True, "max over μ, exact")
    return _searched(gains, reference)


def _checked(gains: Gains) -> int:
    """How many rewards the points have."""
    lengths = {len(point) for point in gains}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError("there must be a point, and as many values in each")
    if not all(abs(value) <= _MOST for point in gains for value in point):
        raise ValueError("a value is not finite, or too large")
    return lengths.pop()


# --- two rewards


@dataclass(frozen=True, slots=True)
class _Whole:
    """A point of two rewards in integers: both values times a power of two common to all points."""

    first: int
    second: int
    unit: int


def _whole(gains: Gains) -> list[_Whole]:
    exact = [(Fraction(point[0]), Fraction(point[1])) for point in gains]
    unit = max(value.denominator for pair in exact for value in pair)
    return [_Whole(int(first * unit), int(second * unit), unit) for first, second in exact]


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The best points from μ = 0 to 1, their indices, and the μ between them: breaks[i] to breaks[i + 1] is best[i]'s."""

    best: tuple[_Whole, ...]
    indices: tuple[int, ...]
    breaks: tuple[Fraction, ...]

    @classmethod
    def of(cls, points: Sequence[_Whole], gains: Gains) -> _Envelope:
        first: dict[tuple[int, int], int] = {}
        for index in front(gains, (True, True)):
            first.setdefault((points[index].first, points[index].second), index)
        hull: list[_Whole] = []
        for _, index in sorted(first.items(), reverse=True):
            while len(hull) > 1 and not _turns(hull[-2], hull[-1], points[index]):
                hull.pop()
            hull.append(points[index])
        inner = [_crossing(p, q) for p, q in pairwise(hull)]
        indices = tuple(first[p.first, p.second] for p in hull)
        return cls(tuple(hull), indices, (Fraction(0), *inner, Fraction(1)))

    def at(self, mu: Fraction) -> Fraction:
        """The utility of the best point under μ."""
        number = min(bisect_right(self.breaks, mu), len(self.best)) - 1
        return _utility(self.best[number], mu)

    def mean(self) -> float:
        """∫ of the envelope over μ from 0 to 1: trapezoids, each rounded once."""
        ends = zip(self.best, pairwise(self.breaks), strict=True)
        return math.fsum(float((b - a) * (_utility(p, a) + _utility(p, b)) / 2) for p, (a, b) in ends)

    def intervals(self) -> tuple[Interval, ...]:
        ends = zip(self.indices, pairwise(self.breaks), strict=True)
        return tuple(Interval(float(start), float(end), index) for index, (start, end) in ends)


def _turns(p: _Whole, q: _Whole, r: _Whole) -> bool:
    """Whether q lies above the chord from p to r, of points whose first reward falls and whose second rises."""
    return (p.first - q.first) * (r.second - q.second) < (q.second - p.second) * (q.first - r.first)


def _crossing(p: _Whole, q: _Whole) -> Fraction:
    """The μ under which p and q are worth the same."""
    lost = p.first - q.first
    return Fraction(lost, lost + q.second - p.second)


def _utility(point: _Whole, mu: Fraction) -> Fraction:
    return (point.first + mu * (point.second - point.first)) / point.unit


# --- more rewards


def _preferences(count: int) -> Iterator[Any]:
    """Per shift an array [LATTICE · count, count] of preferences, uniform on the simplex; the same ones each time.

    By the rotations each weight is 1/count on average, exactly, as the integral has it.
    """
    import numpy as np

    generator = random.Random(0)  # noqa: S311 - shifts of a lattice, not a secret
    steps = np.array([pow(_GENERATOR, k, LATTICE) for k in range(count - 1)])
    lattice = np.arange(LATTICE)[:, None] * steps % LATTICE / LATTICE
    for _ in range(SHIFTS):
        shift = np.array([generator.random() for _ in range(count - 1)])
        cuts = 1 - np.abs(2 * ((lattice + shift) % 1) - 1)
        # Sticks broken off one after the other, each the smallest of as many uniform cuts as are left.
        rests = np.cumprod(cuts ** (1 / np.arange(count - 1, 0, -1)), axis=1)
        ends = np.hstack([np.ones((LATTICE, 1)), rests, np.zeros((LATTICE, 1))])
        weights = ends[:, :-1] - ends[:, 1:]
        yield np.vstack([np.roll(weights, k, axis=1) for k in range(count)])


def _over_simplex(gains: Gains) -> tuple[float, float]:
    """The mean over the preferences and its standard error.

    What is summed is the regret against the best value of every reward, whose own mean is known: so one point, and
    points that one dominates, have no error, not even by rounding.
    """
    import numpy as np

    points = np.array(gains, dtype=np.float64)
    exponent = int(np.frexp(np.abs(points).max())[1])
    points = np.ldexp(points, -exponent)  # so that no difference of large values overflows
    ideal = points.max(axis=0)
    blocks = list(_preferences(points.shape[1]))
    points = contenders(points - ideal, _some(blocks[0]))
    means = [float(_largest(points, block).mean()) for block in blocks]
    middle = math.fsum(means) / SHIFTS
    spread = math.sqrt(math.fsum((mean - middle) ** 2 for mean in means) / (SHIFTS - 1) / SHIFTS)
    return math.ldexp(float(ideal.mean()) + middle, exponent), math.ldexp(spread, exponent)


def some_preferences(count: int, most: int) -> Any:
    """The corners of the simplex and about `most` preferences from all over it, the same ones each time."""
    return _some(next(_preferences(count)), most)


def _some(block: Any, most: int = _TRIED) -> Any:
    import numpy as np

    return np.vstack([np.eye(block.shape[1]), block[:: max(1, len(block) // most)]])


def _largest(points: Any, preferences: Any) -> Any:
    """max_p Σ μₖpₖ per preference."""
    import numpy as np

    step = max(1, _BLOCK // len(points))
    starts = range(0, len(preferences), step)
    return np.concatenate([(preferences[i : i + step] @ points.T).max(axis=1) for i in starts])


def _searched(gains: Gains, reference: Gains) -> Loss:
    import numpy as np

    ours, theirs = np.array(gains, dtype=np.float64), np.array(reference, dtype=np.float64)
    exponent = int(np.frexp(max(np.abs(ours).max(), np.abs(theirs).max()))[1])
    ours, theirs = np.ldexp(ours, -exponent), np.ldexp(theirs, -exponent)
    count = ours.shape[1]
    value, where = -math.inf, np.ones(count)
    blocks = list(_preferences(count))
    ours, theirs = contenders(ours, _some(blocks[0])), contenders(theirs, _some(blocks[0]))
    for block in (np.eye(count), np.full((1, count), 1 / count), *blocks):
        losses = _largest(theirs, block) - _largest(ours, block)
        if (best := float(losses.max())) > value:
            value, where = best, block[int(losses.argmax())]
    how = f"the largest over {SHIFTS * LATTICE * count + count + 1} preferences: a lower bound"
    return Loss(math.ldexp(value, exponent), tuple(map(float, where)), False, how)
