"""Expected reward of the simplest choice: under the preference μ̂ take λ = μ̂ (the paper's first strategy)."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

Mix = tuple[Fraction, ...]
Gains = Sequence[Sequence[float]]
MOST_BALLS: Final = 200_000
"""The largest m^N of a lattice that is integrated: m^(N−1) small simplices for m steps on every edge."""


@dataclass(frozen=True, slots=True)
class Identity:
    """E Σ μₖRₖ(λ = μ); `value` is None where it cannot be told, and `how` is its definition, or the reason why not."""

    value: float | None
    how: str


def identity_reward(mixes: Sequence[Sequence[Fraction]], gains: Gains) -> Identity:
    """E Σ μₖRₖ(λ = μ) for μ uniform on the simplex, reward k being ingredient k's, Rₖ linear between measured λ.

    Two ingredients: exact for any measured λ (quadratic in μ between neighbours, by Simpson's rule), where both
    experts are measured. More: exact on the finest lattice of which every point is measured, for the mean over
    all orders of the ingredients of the edgewise subdivision of the simplex; with three ingredients there is one
    such subdivision. Never above the `expected_reward` of the same points, but for rounding. Preferences must
    be in the unit of the gains: rewards scaled otherwise have another value.

    Raises ValueError for a λ off the simplex or given twice, shapes that differ, and values that are not finite.
    Source: Ramé et al. 2023, λ selection; Edelsbrunner & Grayson 2000 for the subdivision.
    """
    exact = [tuple(map(Fraction, mix)) for mix in mixes]
    _check(exact, gains)
    count = len(exact[0]) if exact else 0
    if not exact:
        return Identity(None, "no point is measured")
    if len(gains[0]) != count:
        return Identity(None, f"λ = μ needs one reward per ingredient; there are {len(gains[0])} for {count}")
    found = dict(zip(exact, gains, strict=True))
    if any(tuple(Fraction(i == j) for j in range(count)) not in found for i in range(count)):
        return Identity(None, "not every expert is measured")
    return _on_segment(found) if count == 2 else _on_lattice(found, count)


def _check(mixes: Sequence[Mix], gains: Gains) -> None:
    if len(mixes) != len(gains) or len(set(mixes)) != len(mixes):
        raise ValueError("there must be one row of values per λ, and every λ once")
    if len({len(mix) for mix in mixes}) > 1 or len({len(row) for row in gains}) > 1:
        raise ValueError("every λ and every row must have the same length")
    if any(sum(mix) != 1 or min(mix) < 0 for mix in mixes):
        raise ValueError("a λ is not on the simplex")
    if not all(math.isfinite(value) for row in gains for value in row):
        raise ValueError("a value is not finite")


def _on_segment(found: dict[Mix, Sequence[float]]) -> Identity:
    """∫ (1 − μ)R₁ + μR₂ over μ: Simpson's rule per stretch between neighbours, each rounded once."""
    nodes = sorted((mix[1], Fraction(row[0]), Fraction(row[1])) for mix, row in found.items())
    parts = []
    for (a, *one), (b, *two) in itertools.pairwise(nodes):
        middle = [(x + y) / 2 for x, y in zip(one, two, strict=True)]
        ends = _utility(a, one) + _utility(b, two)
        parts.append(float((b - a) * (ends + 4 * _utility((a + b) / 2, middle)) / 6))
    return Identity(
        math.fsum(parts),
        "E (1 − μ)·r1(λ = μ) + μ·r2(λ = μ) for μ ~ U(0, 1), linear between the measured λ, exact",
    )


def _utility(mu: Fraction, rewards: Sequence[Fraction]) -> Fraction:
    return (1 - mu) * rewards[0] + mu * rewards[1]


def _on_lattice(found: dict[Mix, Sequence[float]], count: int) -> Identity:
    steps = _finest(found, count)
    others = len(found) - math.comb(steps + count - 1, count - 1)
    if steps == 1 and others:
        return Identity(None, "the measured λ hold no full lattice but the experts")
    if steps**count > MOST_BALLS:
        return Identity(None, f"a lattice of {steps} steps is too fine for {count} ingredients")
    weights = _weights(count, steps)
    terms = []
    for parts in _compositions(steps, count):
        row = found[tuple(Fraction(part, steps) for part in parts)]
        rest = tuple(sorted(parts))
        terms += [float(weights[part, rest]) * value for part, value in zip(parts, row, strict=True)]
    apart = f"; the {others} other points take no part" if others else ""
    how = f"E Σ μ·r(λ = μ) for μ ~ Dirichlet(1, …, 1), linear on the lattice of {steps} steps, exact{apart}"
    return Identity(math.fsum(terms), how)


def _finest(found: dict[Mix, Sequence[float]], count: int) -> int:
    """The most steps m so that every λ of multiples of 1/m is measured; 1 where only the experts are."""
    best = 1
    for steps in range(2, len(found) + 1):
        size = math.comb(steps + count - 1, count - 1)
        if size > len(found):
            break
        if sum(all((part * steps).denominator == 1 for part in mix) for mix in found) == size:
            best = steps
    return best


def _compositions(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `count` integers ≥ 0 that sum to `total`."""
    for bars in itertools.combinations(range(total + count - 1), count - 1):
        ends = (-1, *bars, total + count - 1)
        yield tuple(b - a - 1 for a, b in itertools.pairwise(ends))


def _weights(count: int, steps: int) -> dict[tuple[int, tuple[int, ...]], Fraction]:
    """What a reward's value at a lattice point counts in E Σ μₖRₖ, by (m·μₖ, the sorted m·μ of the point).

    The mean of a product of two linear functions over a simplex with the corners v is
    (Σ f(v)g(v) + Σ f(v) · Σ g(v)) / (N(N + 1)); all small simplices have the same volume. The mean over the orders
    of the ingredients is the mean over all points and rewards that an order takes into each other.
    """
    sums: defaultdict[tuple[int, ...], list[int]] = defaultdict(lambda: [0] * count)
    for corners in _cells(count, steps):
        totals = [sum(column) for column in zip(*corners, strict=True)]
        for corner in corners:
            at = sums[corner]
            for k in range(count):
                at[k] += corner[k] + totals[k]
    shared: defaultdict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for corner, row in sums.items():
        rest = tuple(sorted(corner))
        for part, weight in zip(corner, row, strict=True):
            shared[part, rest].append(weight)
    whole = steps * steps ** (count - 1) * count * (count + 1)
    return {key: Fraction(sum(found), len(found) * whole) for key, found in shared.items()}


def _cells(count: int, steps: int) -> Iterator[list[tuple[int, ...]]]:
    """The m^(N−1) small simplices of the edgewise subdivision, each as its N corners in multiples of 1/m.

    A corner is m balls in N colours. A cell says for each of N − 1 moves which of the balls gets the next colour;
    before the first, every ball has the colour in which the moves of the balls before it end.
    """
    for moves in itertools.product(range(steps), repeat=count - 1):
        colours = [sum(move < ball for move in moves) for ball in range(steps)]
        corner = [0] * count
        for colour in colours:
            corner[colour] += 1
        corners = [tuple(corner)]
        for ball in moves:
            corner[colours[ball]] -= 1
            colours[ball] += 1
            corner[colours[ball]] += 1
            corners.append(tuple(corner))
        yield corners
