"""Which memberships of the front are certain when values have errors, and what lies within ε of the front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from rsoup.front.noise import DRAWS, normal_draws
from rsoup.front.pareto import Values, front
from rsoup.front.points import Errors, Repeats, checked, checked_errors, freedoms
from rsoup.measured.student import two_sided

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

CERTAIN: Final = "certain"
POSSIBLE: Final = "possible"
DOMINATED: Final = "dominated"

_NEAREST = 32  # rivals that are asked first
_PLENTY = 100  # degrees of freedom from which on two digits of them are enough


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether a point is on the front: by its values, and what the errors leave of that.

    `status` is `CERTAIN` (on it), `DOMINATED` (not on it) or `POSSIBLE` (not decided); `beaten_by` are the points that
    certainly dominate it.
    """

    point: int
    by_means: bool
    status: str
    beaten_by: tuple[int, ...]


def epsilon_front(gains: Sequence[Values], epsilon: float | Sequence[float]) -> list[int]:
    """The i for which no j is better by ε in every reward: not gⱼ ≥ gᵢ + ε with > in one; in order.

    The front and everything within ε of it (ε-efficient points: Loridan 1984, JOTA 43:265); with ε = 0 the front, and
    the larger ε, the more. ε is in the unit of the gains, one for all rewards or one each. Raises ValueError for ε below
    0 or not finite, and for gains that are no points.
    """
    points = checked(gains)
    margin = steps(epsilon, len(points[0]))
    import numpy as np

    best = np.array(sorted({points[i] for i in front(points, (True,) * len(points[0]))}))
    kept = []
    for i, point in enumerate(points):
        raised = np.array(point) + margin
        if not np.any(np.all(best >= raised, axis=1) & np.any(best > raised, axis=1)):
            kept.append(i)
    return kept


def steps(epsilon: float | Sequence[float], count: int) -> tuple[float, ...]:
    """ε per reward, for `count` of them. Raises ValueError for ε below 0, not finite, or of another number."""
    found = tuple(epsilon) if isinstance(epsilon, Sequence) else (float(epsilon),) * count
    if len(found) != count or not all(math.isfinite(step) and step >= 0 for step in found):
        raise ValueError("ε is a finite number from 0 up, one for all rewards or one each")
    return found


def memberships(
    gains: Sequence[Values],
    errors: Errors,
    repeats: Repeats | None = None,
    *,
    confidence: float = 0.95,
) -> list[Membership]:
    """Per point: certainly on the front, certainly dominated, or possibly on it; all of it at once at `confidence`.

    With lower bounds d − q·√(se² + se²) of differences d in a reward: i is dominated if some j has bounds ≥ 0 over i
    in every reward and > 0 in one; it is on the front if against every j it has a bound > 0 in some reward (or ≥ 0
    in all). q is the one-sided quantile, of Student's t with Welch and Satterthwaite's degrees of freedom where
    `repeats` are known. Its level is α/(n(n − 1)) for the first and α/(nK) for the second, α = 1 − confidence, n points,
    K rewards: what has to hold in every reward, or against every rival, needs no correction (intersection–union test,
    Berger 1982, Technometrics 24:295); what may hold in any one is divided by their number (Bonferroni). So the
    probability that any of the n answers is wrong is at most α.

    Errors are those of independent evaluations; where the same prompts scored all soups, differences are more
    certain than this says. An error that is not known decides nothing. Raises ValueError for shapes that differ and
    values that are not finite.
    """
    points = checked(gains)
    count, rewards = len(points), len(points[0])
    alpha = _alpha(confidence)
    sides = Sides.of(points, errors, repeats)
    best = set(front(points, (True,) * rewards))
    found = []
    for i in range(count):
        beaten = sides.dominating(sides, i, alpha / (count * max(1, count - 1)))
        certain = i in best and _safe(sides, i, alpha / (count * rewards))
        status = DOMINATED if beaten else CERTAIN if certain else POSSIBLE
        found.append(Membership(i, i in best, status, beaten))
    return found


def _safe(sides: Sides, index: int, level: float) -> bool:
    """Whether the point is certainly better than each other in some reward, or certainly as good in all."""
    import numpy as np

    lead = (sides.values[index] - sides.values).max(axis=1)
    lead[index] = np.inf
    everyone = np.arange(len(lead))
    near = np.argpartition(lead, _NEAREST)[:_NEAREST] if len(lead) > _NEAREST else everyone
    for rows in (near, everyone):  # the nearest rivals mostly decide it
        under = sides.lower(sides, index, level, rows, over=False)
        safe = np.any(under > 0, axis=1) | np.all(under >= 0, axis=1) | (rows == index)
        if not safe.all():
            return False
    return True


def front_probabilities(
    gains: Sequence[Values],
    errors: Errors,
    repeats: Repeats | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[float]:
    """Per point, the share of draws x + se·Z in which no other dominates it.

    Under a flat prior, the probability that its true values are on the front. Z is normal, or Student's t with n − 1
    degrees of freedom where the `repeats` n are known; the same seed draws the same. Probabilities of a set of equal
    points add up to more than 1: several of them can be on a front. Raises ValueError for shapes that differ,
    values that are not finite, errors not known or below 0, and no draws.
    """
    import moocore  # type: ignore[import-untyped]
    import numpy as np

    points = checked(gains)
    sides = Sides.of(points, errors, repeats)
    noise = np.sqrt(sides.squares)
    if draws < 1 or not np.isfinite(noise).all():
        raise ValueError("there must be a draw, and every standard error be known")
    chances = np.random.default_rng([seed, 1])  # beside the normal draws, which repeats must not change
    some = np.isfinite(sides.freedom)
    freedom = np.where(some, sides.freedom, 1.0)
    on, total = np.zeros(len(points)), 0
    for z in normal_draws(draws, sides.values.shape, seed):
        wide = np.sqrt(freedom / chances.chisquare(freedom, size=z.shape)) if some.any() else 1.0
        for drawn in sides.values + noise * np.where(some, wide, 1.0) * z:
            on += moocore.is_nondominated(drawn, maximise=True, keep_weakly=True)
        total += len(z)
    return [float(share) for share in on / total]


@cache
def _quantile(level: float, freedom: float) -> float:
    return two_sided(1 - 2 * level, freedom)


def _alpha(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError("a confidence lies between 0 and 1")
    return 1 - confidence


@dataclass(frozen=True, slots=True)
class Sides:
    """Points with the squares of their standard errors and their degrees of freedom: (points, rewards) each."""

    values: Floats
    squares: Floats
    freedom: Floats

    @classmethod
    def of(cls, points: Sequence[tuple[float, ...]], errors: Errors, repeats: Repeats | None) -> Sides:
        """Raises ValueError for shapes that differ, errors below 0 and repeats below 1."""
        import numpy as np

        noise = np.array(checked_errors(errors, points))
        return cls(np.array(points), noise**2, np.array(freedoms(repeats, points), dtype=np.float64))

    def dominating(self, other: Sides, index: int, level: float) -> tuple[int, ...]:
        """Which of these certainly dominate `other`'s point: bounds ≥ 0 in every reward, > 0 in one."""
        import numpy as np

        rows = np.flatnonzero(np.all(self.values >= other.values[index], axis=1))
        if not len(rows):
            return ()
        over = self.lower(other, index, level, rows)
        return tuple(map(int, rows[np.all(over >= 0, axis=1) & np.any(over > 0, axis=1)]))

    def dominated(self, other: Sides, index: int, level: float) -> tuple[int, ...]:
        """Which of these `other`'s point certainly dominates."""
        import numpy as np

        rows = np.flatnonzero(np.all(self.values <= other.values[index], axis=1))
        if not len(rows):
            return ()
        under = self.lower(other, index, level, rows, over=False)
        return tuple(map(int, rows[np.all(under >= 0, axis=1) & np.any(under > 0, axis=1)]))

    def lower(self, other: Sides, index: int, level: float, rows: Rows, *, over: bool = True) -> Floats:
        """The one-sided lower bounds at `level` of these `rows` over `other`'s point, or of that over these.

        (rows, rewards); −∞ where an error is not known, the difference itself where both are 0.
        """
        import numpy as np

        difference = self.values[rows] - other.values[index]
        square = self.squares[rows] + other.squares[index]
        with np.errstate(invalid="ignore", divide="ignore"):
            half = np.sqrt(square) * self._quantiles(other, index, square, level, rows)
        result: Floats = (difference if over else -difference) - np.where(square > 0, half, 0.0)
        return result

    def _quantiles(
        self, other: Sides, index: int, square: Floats, level: float, rows: Rows
    ) -> Floats | float:
        """q of the normal distribution, or of t with ν = (Σse²)² / Σ(se⁴/(n − 1)), rounded down."""
        import numpy as np

        below = (
            self.squares[rows] ** 2 / self.freedom[rows] + other.squares[index] ** 2 / other.freedom[index]
        )
        if not (below > 0).any():
            return _quantile(level, math.inf)
        freedom = np.where(below > 0, square**2 / below, np.inf)
        freedom[~np.isfinite(freedom)] = np.inf
        digit = 10 ** np.floor(np.log10(np.maximum(freedom, _PLENTY) / 10))
        freedom = np.where(freedom < _PLENTY, np.floor(freedom), np.floor(freedom / digit) * digit)
        known, where = np.unique(freedom, return_inverse=True)
        quantiles = np.array([_quantile(level, max(1.0, float(nu))) for nu in known])
        result: Floats = quantiles[where].reshape(freedom.shape)
        return result
