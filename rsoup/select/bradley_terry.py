"""Bradley–Terry on reward vectors: the preference μ̂ behind comparisons, how sure it is, and what to ask next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rsoup.errors import UsageError
from rsoup.select.comparisons import Comparison
from rsoup.select.posterior import draws, sigmoid

MAX_REWARDS: Final = 16
SHARPNESS: Final = 10.0  # 1/τ at which 73 % prefer what is better by a tenth of a reward's range

_ROWS = 512
_MOST = 20_000_000
_EQUAL = 1e-9  # relative: scores this close are the same but for rounding
_NOTHING = 1e-12


@dataclass(frozen=True, slots=True)
class Preference:
    """μ̂ (Σ = 1), an interval for each reward, and how sharply its user tells points apart: `sharpness` is 1/τ (median).

    `covariance` is that of μ in the posterior, `best` each point's posterior probability to be the one of the
    largest utility μᵀr (the first of equal points), in the order of the points. `agreement` is the share of the
    comparisons that μ̂ gives right, ties (and what μ̂ finds equal) counting half; None without any.
    """

    mu: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    confidence: float
    sharpness: float
    covariance: tuple[tuple[float, ...], ...]
    comparisons: int
    agreement: float | None
    best: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """The pair to compare next, by index: P(a ≻ b) under μ̂, and the posterior deviation of μᵀ(r_a − r_b)."""

    a: int
    b: int
    probability: float
    deviation: float


def learn(
    comparisons: Sequence[Comparison],
    points: Mapping[str, Sequence[float]],
    *,
    confidence: float = 0.95,
    sharpness: float = SHARPNESS,
) -> Preference:
    """μ̂ = E[μ | comparisons] under P(a ≻ b) = σ(μᵀ(r_a − r_b)/τ); a tie is half a win of each.

    `points` has each point's N ≤ 16 rewards, every one to be maximised and on one scale, such as divided by its
    range over the experts. The prior is weak, so that few, contradicting and separable comparisons, and none, have
    a finite answer: μ is uniform on the simplex (Dirichlet(1)), and s = 1/τ independent of it with the median
    `sharpness` and the tail of 1/s²: p(s) ∝ s^(N−1)/(c + s)^(N+1), c = sharpness (2^(1/N) − 1).
    Everything is of the whole posterior, by importance sampling with a fixed seed: the mean of μ, central intervals
    per reward, the median of 1/τ. Model: Bradley and Terry (1952), on rewards as in reward modeling.
    Raises ValueError for shapes that differ and values that are not finite, KeyError for a point without rewards,
    UsageError E0265 for more than 16 rewards, and where rewards are so far apart that no answer is found.
    """
    import numpy as np

    if not (0 < confidence < 1 and 0 < sharpness < math.inf):
        raise ValueError("a confidence lies between 0 and 1, a sharpness above 0")
    rewards = _array(list(points.values()))
    size = rewards.shape[1]
    row = {name: index for index, name in enumerate(points)}
    won: Counter[tuple[int, int]] = Counter()  # twice as often as they did
    for each in comparisons:
        pair = row[each.better], row[each.worse]
        won[pair] += each.count if each.tie else 2 * each.count
        if each.tie:
            won[pair[::-1]] += each.count
    differences = np.array([rewards[a] - rewards[b] for a, b in won]).reshape(len(won), size)
    counts = np.array(list(won.values()), dtype=np.float64) / 2
    scale = sharpness * math.expm1(math.log(2) / size)
    w, weights = draws(differences, counts, scale)
    sums = w.sum(axis=1)
    shares = w / sums[:, None]
    mu = weights @ shares
    bounds = [_quantiles(column, weights, confidence) for column in shares.T]
    centred = shares - mu
    total = sum(each.count for each in comparisons)
    agreement = float(counts @ (0.5 + 0.5 * np.sign(differences @ mu))) / total if total else None
    return Preference(
        tuple(map(float, mu / mu.sum())),
        tuple(low for low, _ in bounds),
        tuple(high for _, high in bounds),
        confidence,
        _quantiles(sums, weights, 0.0)[0],
        tuple(tuple(map(float, line)) for line in (centred * weights[:, None]).T @ centred),
        total,
        agreement,
        _best(shares, weights, rewards),
    )


def _array(points: Sequence[Sequence[float]]) -> Any:
    import numpy as np

    if len({len(point) for point in points}) != 1 or not points[0]:
        raise ValueError("there must be points, all with the same rewards, and at least one")
    if len(points[0]) > MAX_REWARDS:
        raise UsageError(
            "E0265",
            f"a preference over {len(points[0])} rewards is more than comparisons can tell",
            hint=f"name at most {MAX_REWARDS} rewards",
        )
    rewards = np.array(points, dtype=np.float64)
    if not np.isfinite(rewards).all():
        raise ValueError("a value is not finite")
    return rewards


def _distinct(rewards: Any) -> tuple[Any, Any]:
    """The distinct rows in the order of their first occurrence, and where that is."""
    import numpy as np

    first = np.sort(np.unique(rewards + 0.0, axis=0, return_index=True)[1])
    return rewards[first], first


def _quantiles(values: Any, weights: Any, confidence: float) -> tuple[float, float]:
    import numpy as np

    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    places = np.searchsorted(below, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = values[order[np.minimum(places, len(values) - 1)]]
    return float(low), float(high)


def _best(shares: Any, weights: Any, rewards: Any) -> tuple[float, ...]:
    import numpy as np

    distinct, first = _distinct(rewards)
    every = max(1, len(shares) * len(distinct) // _MOST)
    shares, weights = shares[::every], weights[::every]
    total = np.zeros(len(rewards))
    for start in range(0, len(shares), _ROWS):
        rows = slice(start, start + _ROWS)
        chosen = first[(shares[rows] @ distinct.T).argmax(axis=1)]
        total += np.bincount(chosen, weights[rows], len(rewards))
    return tuple(map(float, total / total.sum()))


def next_question(preference: Preference, points: Sequence[Sequence[float]]) -> Question | None:
    """The pair of points that tells most about μ: the largest p(1−p) Var(μᵀd), d = r_a − r_b; the first of equal ones.

    p = σ(μ̂ᵀd/τ) and Var(μᵀd) = dᵀ Cov(μ) d. To first order, half of the product over τ² is what the answer is
    expected to tell about μ, in nats: most where the user's answer is open (p ≈ ½) because μ is. None where no pair
    would tell anything: fewer than two distinct points, one reward. Raises ValueError for points with other
    rewards than the preference's.
    """
    import numpy as np

    rewards, first = _distinct(_array(points))
    mu, covariance = np.array(preference.mu), np.array(preference.covariance)
    if rewards.shape[1] != len(mu):
        raise ValueError("the points have other rewards than the preference")
    values, axes = np.linalg.eigh(covariance)
    utility, places = rewards @ mu, rewards @ (axes * np.sqrt(np.maximum(values, 0)))
    top, pair = 0.0, (0, 0)
    for start in range(0, len(rewards) - 1, _ROWS):
        rows, after = slice(start, start + _ROWS), slice(start, None)
        chance = sigmoid((utility[rows, None] - utility[None, after]) * preference.sharpness)
        score = np.triu(chance * (1 - chance) * _squares(places[rows], places[after]), 1)
        if (most := float(score.max())) > top * (1 + _EQUAL):
            a, b = divmod(int(np.flatnonzero(score >= most * (1 - _EQUAL))[0]), score.shape[1])
            top, pair = most, (start + a, start + b)
    a, b = pair
    deviation = math.dist(places[a], places[b])
    if deviation <= _NOTHING * float(np.abs(rewards).max()):
        return None
    chance = sigmoid((utility[a] - utility[b]) * preference.sharpness)
    return Question(int(first[a]), int(first[b]), float(chance), deviation)


def _squares(some: Any, others: Any) -> Any:
    """‖x − y‖² for each row of `some` and of `others`."""
    import numpy as np

    total = np.zeros((len(some), len(others)))
    for k in range(others.shape[1]):
        total += (some[:, k, None] - others[None, :, k]) ** 2
    return total
