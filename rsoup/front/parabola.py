"""The front of two rewards from its two experts alone: a parabola per reward, and how far the soups are from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Values = Sequence[float]
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Miss:
    """Measured minus predicted, for one reward, over the soups given.

    `misses` are in the order of the soups, in the reward's unit; `largest` the one farthest from 0, `rms` their
    root mean square; `span` is max − min of the measured values, for what is wanted in units of the range.
    `ratios` are misses in standard errors (of soup and experts together), None for an expert itself and without
    errors; no two of them are independent, for all share the experts.
    """

    misses: tuple[float, ...]
    largest: float
    rms: float
    span: float
    ratios: tuple[float | None, ...]


def between(expert_1: Values, expert_2: Values, mix: Sequence[float]) -> tuple[float, float]:
    """R̂₁ = R₁(θ₁) − λ₂²(R₁(θ₁) − R₁(θ₂)), R̂₂ = R₂(θ₂) − λ₁²(R₂(θ₂) − R₂(θ₁)): the soup, from its experts alone.

    Exact where each reward is a quadratic whose optimum is its own expert, whatever the Hessians; so the whole
    front of two rewards is predicted by two evaluations. The directions of the rewards do not matter. Raises
    ValueError unless there are two experts, two rewards, and shares that sum to 1.
    """
    if not len(expert_1) == len(expert_2) == len(mix) == 2 or abs(math.fsum(map(float, mix)) - 1) > _ROUNDING:
        raise ValueError("the theory of two experts is about two rewards, and shares that sum to 1")
    one, two = (float(share) for share in mix)
    return (
        expert_1[0] - two * two * (expert_1[0] - expert_2[0]),
        expert_2[1] - one * one * (expert_2[1] - expert_1[1]),
    )


def misses(
    mixes: Sequence[Sequence[float]],
    values: Sequence[Values],
    experts: tuple[Values, Values],
    *,
    errors: Sequence[Sequence[float | None]] | None = None,
    expert_errors: tuple[Sequence[float | None], Sequence[float | None]] | None = None,
) -> tuple[Miss, Miss]:
    """What the soups have more than `between` says: 0 if the experts are at their optimum in a quadratic landscape.

    Shares are (of expert 1, of expert 2), values and standard errors (reward 1, reward 2), one row per soup.
    The variance of a miss in reward 1 is e(λ)² + (1 − λ₂²)²e(θ₁)² + λ₂⁴e(θ₂)², all evaluations independent.
    A miss that is far above 0 is a soup that is better than the experts' evaluations promise. Raises ValueError
    like `between`, without soups, for shapes that differ and values that are not finite.
    """
    rows = [values, *([errors] if errors is not None else [])]
    if not mixes or any(len(row) != len(mixes) for row in rows):
        raise ValueError("there must be soups, with a row of values, and of errors, for each")
    if any(len(row) != 2 for table in (*rows, expert_errors or ()) for row in table):
        raise ValueError("the theory of two experts is about two rewards")
    if not all(math.isfinite(value) for row in (*values, *experts) for value in row):
        raise ValueError("a value is not finite")
    predicted = [between(*experts, mix) for mix in mixes]
    found = []
    for k in (0, 1):
        apart = [row[k] - guess[k] for row, guess in zip(values, predicted, strict=True)]
        column = [row[k] for row in values]
        ends = None if expert_errors is None else (expert_errors[k][k], expert_errors[1 - k][k])
        ratios = [
            _ratio(miss, float(mix[1 - k]), None if errors is None else errors[i][k], ends)
            for i, (miss, mix) in enumerate(zip(apart, mixes, strict=True))
        ]
        rms = math.sqrt(math.fsum(miss * miss for miss in apart) / len(apart))
        found.append(Miss(tuple(apart), max(apart, key=abs), rms, max(column) - min(column), tuple(ratios)))
    return found[0], found[1]


def _ratio(
    miss: float, share: float, own: float | None, ends: tuple[float | None, float | None] | None
) -> float | None:
    """`share` is that of the other reward's expert; `ends` are the errors of the own expert and of the other."""
    if share in (0.0, 1.0) or own is None or ends is None or ends[0] is None or ends[1] is None:
        return None
    error = math.hypot(own, (1 - share * share) * ends[0], share * share * ends[1])
    return miss / error if error > 0 else None
