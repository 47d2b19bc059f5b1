"""The posterior of w = μ/τ given comparisons, as weighted draws; its mode in ∛w, by Newton's method.

Here `differences` is a matrix of r_a − r_b, a row per ordered pair, `counts` how often a was preferred,
`scale` the c of the prior p(w) ∝ (c + Σw)^−(N+1). The cube root makes the posterior of small wₖ nearly normal
(Wilson and Hilferty 1931).
"""

from __future__ import annotations

import math
from typing import Any, Final

from rsoup.errors import UsageError

DRAWS: Final = 20_000
MIN_DRAWS: Final = 2_000

_MOST = 10_000_000  # draws × pairs
_SEED = 0
_FREEDOM = 3
_ROUNDS = 10
_ENOUGH = 1_000  # draws of equal weight
_ROWS = 512
_STEPS = 200
_CONVERGED = 1e-14  # squared distance from the mode, in posterior standard deviations
_SMOOTH = 20.0  # the largest margin to start a climb from
_FLAT, _RELATIVE = 1e-3, 1e-12  # the least eigenvalue of a curvature
_CUBE = 2 / 3  # log of dw/d∛w is ⅔ log w


def sigmoid(x: Any) -> Any:
    """1/(1 + exp(−x)), for any finite x without overflow."""
    import numpy as np

    return np.exp(-np.logaddexp(0, -x))


def mode(differences: Any, counts: Any, scale: float) -> Any:
    """The w > 0 at the top of Σ c log σ(dᵀw) + ⅔ Σ log w − (N+1) log(scale + Σw): the mode of ∛w.

    There may be two tops, one at the prior's w and one where the comparisons have theirs; both are climbed from
    uniform w, and the higher one is taken. Raises UsageError E0265 where a climb does not end in 200 steps.
    """
    import numpy as np

    size = differences.shape[1]

    def height(w: Any) -> float:
        prior = _CUBE * np.log(w).sum() - (size + 1) * np.log(scale + w.sum())
        return float(prior - counts @ np.logaddexp(0, -differences @ w))

    # where margins dᵀw are far beyond 1, the likelihood has corners, on which Newton's method gets nowhere
    margin = math.sqrt(counts @ np.abs(differences).sum(axis=1) ** 2 / max(counts.sum(), 1)) * scale
    starts = [scale] if margin <= _SMOOTH else []
    starts += [scale / margin] if margin > 0 else []
    found = [_climbed(height, np.full(size, start), differences, counts, scale) for start in starts]
    return max(found, key=height)


def _climbed(height: Any, w: Any, differences: Any, counts: Any, scale: float) -> Any:
    """Newton's method in log w, with steps in multiples of w that are halved until they climb."""
    import numpy as np

    size, now = len(w), height(w)
    for _ in range(_STEPS):
        pull = (size + 1) * w / (scale + w.sum())
        slope = (differences * w).T @ (counts * sigmoid(-differences @ w)) - pull + _CUBE
        step = np.linalg.solve(_curvature(differences, counts, w, scale), slope)
        gain = float(slope @ step)
        if gain <= _CONVERGED:
            return w
        length = min(1.0, 0.95 / max(float(-step.min()), 1e-300))
        while (after := height(w * (1 + length * step))) < now + 1e-4 * length * gain - 1e-14 * abs(now):
            length /= 2
            if length < 1e-12:
                break
        w, now = w * (1 + length * step), after
    raise UsageError(
        "E0265",
        f"no preference was found in {_STEPS} steps",
        hint="are the rewards on one scale? differences of about 1 between the best and the worst are meant",
    )


def _curvature(differences: Any, counts: Any, w: Any, scale: float) -> Any:
    """diag(w) Σ c p(1−p) d dᵀ diag(w) + ⅔ I − (N+1) w wᵀ/(scale + Σw)², its eigenvalues made positive.

    Minus the second derivatives by log w wherever the first ones are 0; positive already at every top.
    """
    import numpy as np

    chance = sigmoid(differences @ w)
    scaled = differences * w
    known = (scaled * (counts * chance * (1 - chance))[:, None]).T @ scaled + _CUBE * np.eye(len(w))
    values, axes = np.linalg.eigh(known - (len(w) + 1) * np.outer(w, w) / (scale + w.sum()) ** 2)
    values = np.abs(values)
    return (axes * np.maximum(values, max(_FLAT, _RELATIVE * values.max()))) @ axes.T


def draws(differences: Any, counts: Any, scale: float) -> tuple[Any, Any]:
    """Draws of w from the posterior, one per row, and their weights (Σ = 1): importance sampling of ∛w, fixed seed.

    Proposals are half normal, half Student's t with 3 degrees of freedom, which falls like the prior, so that no
    weight is unbounded. The first has the posterior's mode and curvature: in multiples of the mode, 9 times that of
    log w. Where fewer than 1000 draws would carry the weight, the next one has the mean and covariance of these
    draws, their weights raised to the power at which enough carry some. The proposal with the most draws counts.
    """
    import numpy as np

    size = differences.shape[1]
    half = min(DRAWS, max(MIN_DRAWS, _MOST // max(1, len(counts)))) // 2
    random = np.random.default_rng(_SEED)
    noise = random.standard_normal((half, size))
    noise[half // 2 :] /= np.sqrt(random.chisquare(_FREEDOM, (half - half // 2, 1)) / _FREEDOM)
    noise = np.concatenate((noise, -noise))
    density = _density((noise**2).sum(axis=1), size)
    centre = mode(differences, counts, scale)
    curvature = 9 * _curvature(differences, counts, centre, scale)
    middle, axes = np.ones(size), np.linalg.inv(np.linalg.cholesky(curvature))
    most, kept = 0.0, (centre[None, :], np.ones(1))
    enough = min(_ENOUGH, half // 2)
    for _ in range(_ROUNDS):
        roots = middle + noise @ axes
        inside = (roots > 0).all(axis=1)
        roots = roots[inside]
        w = centre * roots**3
        heights = 2 * np.log(roots).sum(axis=1) - (size + 1) * np.log(scale + w.sum(axis=1)) - density[inside]
        for start in range(0, len(w), _ROWS):
            rows = slice(start, start + _ROWS)
            heights[rows] -= np.logaddexp(0, -w[rows] @ differences.T) @ counts
        weights, carrying = _weights(heights)
        if carrying > most:
            most, kept = carrying, (w, weights)
        if carrying >= enough:
            break
        while carrying < min(enough, len(w)) / 2:
            heights /= 2
            weights, carrying = _weights(heights)
        middle = weights @ roots
        spread = (roots - middle).T @ ((roots - middle) * weights[:, None])
        axes = np.linalg.cholesky(spread).T
    return kept


def _density(squares: Any, size: int) -> Any:
    """log of half a normal and half a t density of `size` dimensions, at a point's squared distance from 0."""
    import numpy as np

    normal = -squares / 2 - size / 2 * math.log(2 * math.pi)
    half = (_FREEDOM + size) / 2
    constant = math.lgamma(half) - math.lgamma(_FREEDOM / 2) - size / 2 * math.log(_FREEDOM * math.pi)
    return np.logaddexp(normal, constant - half * np.log1p(squares / _FREEDOM)) - math.log(2)


def _weights(heights: Any) -> tuple[Any, float]:
    """exp(heights), Σ = 1, and the number of draws of equal weight that tell as much, 1/Σ weight²."""
    import numpy as np

    weights = np.exp(heights - heights.max())
    weights /= weights.sum()
    return weights, float(1 / (weights @ weights))
