"""What noise does to figures of a front: parametric bootstrap intervals, and how much the best looks too good."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rsoup.front.points import Errors, Repeats, checked, checked_errors, freedoms
from rsoup.measured.student import two_sided

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Measure = Callable[[Sequence[tuple[float, ...]]], float]
"""A figure of a set of points: its hypervolume, its expected reward, its smallest gap to a chord."""
Many = Callable[["Floats"], "Floats"]
"""The same figure of many sets at once: (sets, points, rewards) → (sets,), or (sets, figures)."""

DRAWS: Final = 1000
_AT_ONCE = 4_000_000  # numbers in one array: tens of megabytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with an interval of `confidence`, in the figure's unit.

    `bias` is by how much noise alone lifts it (the median over the draws): above 0 for everything that takes the
    best of noisy points. `low` and `high` allow for it; so `value` can lie outside of them. `freedom` are the degrees of
    freedom of its error, infinity where errors count as known. `drawn` is where the figure lies in that share of the
    draws.
    """

    value: float
    low: float
    high: float
    confidence: float
    bias: float
    freedom: float
    draws: int
    drawn: tuple[float, float] = (-math.inf, math.inf)

    @property
    def corrected(self) -> float:
        """The value without what noise adds to it on average."""
        return self.value - self.bias


def bootstrap(
    values: Sequence[Sequence[float]],
    errors: Errors,
    repeats: Repeats | None,
    statistic: Measure,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """[s(x) − q₊, s(x) − q₋] with q the quantiles of s(c + se·Z) − s(c): the basic parametric bootstrap interval.

    Z is standard normal. c are the values drawn together until their spread is what noise leaves of it (`calmed`);
    with s linear it is the interval around x. Where the repeats n behind errors are known (above 1), the quantiles are
    taken away from the median by the factor t_ν/z, with Welch and Satterthwaite's ν = (Σu²)² / Σ(u⁴/(n − 1)) over the
    shares u² that the values have in the variance of s: for the mean of few values it is Student's interval. All
    draws are independent: of points, and of the rewards of a point. Errors of 0 are exact values. The same seed
    draws the same; every draw has its mirror image, so an odd number of them is raised by one.

    Why not percentiles: a maximum over noisy points is too high, and a draw on top doubles that. At nominal 95 %,
    eleven points on a circle with errors of a twentieth to a fifth of its radius: the expected reward is covered by
    2 to 17 % of the percentile intervals, by 88 to 94 % of these; eleven equal points: 0 % and 83 %. Figures that are
    linear in the values are covered by 93 to 96 %, also with three repeats.

    Raises ValueError for shapes that differ, values that are not finite, errors not known or below 0, repeats
    below 1, a confidence not between 0 and 1, too few draws for it, and where the statistic is not finite.
    Sources: Davison & Hinkley 1997, Bootstrap Methods and their Application, 5.2; JCGM 100:2008, annex G.4, for ν.
    """
    return bootstraps(
        values, errors, repeats, each(statistic), draws=draws, seed=seed, confidence=confidence
    )[0]


def bootstraps(
    values: Sequence[Sequence[float]],
    errors: Errors,
    repeats: Repeats | None,
    many: Many,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Estimate]:
    """`bootstrap` of one or several figures from the same draws, for many sets at once.

    `many` is (sets, points, rewards) → (sets,) or (sets, figures). Raises ValueError like `bootstrap`.
    """
    import numpy as np

    if not 0 < confidence < 1:
        raise ValueError("a confidence lies between 0 and 1")
    if draws < 2 / (1 - confidence):
        raise ValueError(f"{draws} draws are too few for an interval of {confidence:.0%}")
    x, noise = _arrays(values, errors)
    freedom = np.array(freedoms(repeats, checked(values)), dtype=np.float64).ravel()
    centre = calmed(values, errors)
    found, middle = (_figures(many, points[None])[0] for points in (x, centre))
    moved, products = [], np.zeros((len(found), x.size))
    for z in normal_draws(draws, x.shape, seed):
        moved.append(_figures(many, centre + noise * z) - middle)
        products += moved[-1].T @ z.reshape(len(z), -1)
    drawn = np.concatenate(moved)
    chance = 2 * drawn.var(axis=0) / len(drawn)  # what a value without any share shows
    shares = (products / len(drawn)) ** 2 - chance[:, None]
    return [
        _estimate((float(found[k]), float(middle[k])), drawn[:, k], _welch(shares[k], freedom), confidence)
        for k in range(len(found))
    ]


def _welch(shares: Floats, freedom: Floats) -> float:
    """(Σu²)² / Σ(u⁴/ν), which lies between the smallest ν and their sum; from `shares` u² that are estimates."""
    import numpy as np

    total, below = float(shares.sum()), float((np.maximum(0.0, shares) ** 2) @ (1 / freedom))
    if total <= 0:  # no value moves it in one direction: |x| at 0
        return float(freedom.min())
    return float(min(max(total**2 / below, freedom.min()), freedom.sum())) if below else math.inf


def _figures(many: Many, sets: Floats) -> Floats:
    import numpy as np

    figures: Floats = np.asarray(many(sets), dtype=np.float64).reshape(len(sets), -1)
    if not np.isfinite(figures).all():
        raise ValueError("the statistic is not finite")
    return figures


def normal_draws(draws: int, shape: tuple[int, ...], seed: int) -> Iterator[Floats]:
    """Standard normal numbers, (draws, points, rewards) in parts of some megabytes; each draw and its mirror image.

    So what is symmetric comes out symmetric: a linear figure has no bias, whatever was drawn.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    pairs = (draws + 1) // 2
    step = max(1, _AT_ONCE // max(1, 2 * math.prod(shape)))
    for start in range(0, pairs, step):
        half = generator.standard_normal((min(step, pairs - start), *shape))
        yield np.concatenate([half, -half])


def _estimate(figure: tuple[float, float], moved: Floats, freedom: float, confidence: float) -> Estimate:
    """From the figure, that of the centre, and how far the draws move it."""
    import numpy as np

    value, middle = figure
    tail = (1 - confidence) / 2
    low, median, high = (float(q) for q in np.quantile(moved, [tail, 0.5, 1 - tail]))
    wider = two_sided(confidence, freedom) / two_sided(confidence, math.inf)
    below, above = (high - median) * wider, (median - low) * wider
    corrected = value - median
    drawn = middle + median - (median - low) * wider, middle + median + (high - median) * wider
    return Estimate(
        value, corrected - below, corrected + above, confidence, median, freedom, len(moved), drawn
    )


def each(measure: Measure) -> Many:
    """`measure`, applied to one set after the other."""

    def many(sets: Floats) -> Floats:
        import numpy as np

        return np.array([measure([tuple(point) for point in points]) for points in sets.tolist()])

    return many


def calmed(values: Sequence[Sequence[float]], errors: Errors) -> Floats:
    """m + (x − m)·√(τ²/(τ² + se²)) per reward, with τ² = max(0, var(x) − mean(se²)): (points, rewards).

    Measured values are spread more than true ones, by their noise; these have the spread τ of the true ones. So the
    best of them is as likely to be overtaken as the best of the true ones. Exact values stay as they are.
    Raises ValueError like `bootstrap`. Source: constrained empirical Bayes, Louis 1984, JASA 79:393.
    """
    import numpy as np

    x, noise = _arrays(values, errors)
    middle = x.mean(axis=0)
    spread = x.var(axis=0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])
    true = np.maximum(0.0, spread - (noise**2).mean(axis=0))
    whole = true + noise**2
    kept = np.sqrt(np.divide(true, whole, out=np.ones_like(x), where=(noise > 0) & (whole > 0)))
    result: Floats = np.where(kept < 1, middle + (x - middle) * kept, x)
    return result


def _arrays(values: Sequence[Sequence[float]], errors: Errors) -> tuple[Floats, Floats]:
    import numpy as np

    points = checked(values)
    noise = np.array(checked_errors(errors, points))
    if not np.isfinite(noise).all():
        raise ValueError("a standard error is not known")
    return np.array(points), noise


def optimism(
    scores: Sequence[float], errors: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> float:
    """E[c + se·Z at its best − c there]: how much too good the score is with which the best point was chosen.

    The winner's curse: the same evaluation chose and scored. Scores are to be maximised; c are the scores drawn
    together as in `calmed`; Z is normal. In the scores' unit, never below 0, 0 for one point and for exact scores;
    score − optimism is what to expect of the chosen point in another evaluation. For eleven equal points it finds
    94 % of it on average. A second evaluation of the chosen point is better.
    Raises ValueError like `bootstrap`. Source: Efron 2011, Tweedie's Formula and Selection Bias, JASA 106:1602.
    """
    import numpy as np

    if len(scores) != len(errors):
        raise ValueError("there must be one standard error per value")
    values, noise = [(score,) for score in scores], [(error,) for error in errors]
    centre = calmed(values, noise)[:, 0]
    lifted = []
    for z in normal_draws(draws, (len(values),), seed):
        drawn = centre + np.array(errors) * z
        chosen = drawn.argmax(axis=1)
        lifted.append(drawn[np.arange(len(z)), chosen] - centre[chosen])
    return max(0.0, float(np.mean(np.concatenate(lifted)))) if len(values) > 1 else 0.0
