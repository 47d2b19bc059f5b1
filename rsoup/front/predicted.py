"""What the surrogate promises: the best λ for a preference, exactly, and the front. None of it is a measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rsoup.front.pareto import front
from rsoup.front.surrogate import Surrogate, scheffe_row

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

Mix = tuple[Fraction, ...]
DENOMINATOR: Final = 1000
FINEST: Final = 10**6
MOST_INGREDIENTS: Final = 12  # 2¹² faces
_STEPS: Final = (100, 50, 40, 25, 20, 10, 8, 5, 4, 2)
_MOST_PLACES: Final = 600
_ROUNDING: Final = 1e-12
_SAME: Final = 1e-9  # of the predicted range: what differs by less is the same value


@dataclass(frozen=True, slots=True)
class Predicted:
    """A λ and what the surrogate says of it: a type of its own, so that nobody takes it for a measured point.

    `errors` are the standard errors of the surface (`Surrogate.predicted_errors`), None where they are unknown.
    """

    kind: ClassVar[str] = "predicted"
    mix: Mix
    values: tuple[float, ...]
    errors: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Optimum:
    """The λ at which the surrogate's Σ wₖR̂ₖ is greatest.

    `exact` is that λ in float64 and `utility` the maximum; `point` is the nearest λ of the denominator asked for
    and what is predicted there, so its utility may be a little less.
    """

    exact: tuple[float, ...]
    utility: float
    point: Predicted


def maximiser(
    surrogate: Surrogate,
    weights: Sequence[float],
    maximise: Sequence[bool],
    *,
    denominator: int = DENOMINATOR,
) -> Optimum:
    """argmax over the simplex of Σ ±wₖR̂ₖ(λ) (− for rewards that are minimised), exact also where it is not concave.

    For two ingredients the vertex of a parabola, or the better end. In general every face of the simplex is asked
    for the point where the gradient vanishes along it: an inner maximum of a face needs a surface that is strictly
    concave there, or is as great on a smaller face; the greatest over all faces is the maximum. Of equals, the one
    with the fewest ingredients, then the first. Weights are of the rewards in their own units: divide them by the
    rewards' ranges for a preference between normalised ones. Raises ValueError for weights that are not one per
    reward, negative, not finite or all 0, for more than 12 ingredients, and a denominator that `rounded` refuses.
    """
    linear, mixed = _coefficients(surrogate, maximise)
    if (
        len(weights) != len(linear)
        or not all(math.isfinite(w) and w >= 0 for w in weights)
        or not any(weights)
    ):
        raise ValueError("there must be one weight per reward, none negative and not all 0")
    import numpy as np

    row = np.array([weights], dtype=np.float64)
    places, utilities = _maxima(row @ linear, row @ mixed)
    exact = tuple(map(float, places[0]))
    found = _described(surrogate, [rounded(exact, denominator)])
    return Optimum(exact, float(utilities[0]), found[0])


def predicted_front(
    surrogate: Surrogate, maximise: Sequence[bool], *, denominator: int = DENOMINATOR
) -> tuple[Predicted, ...]:
    """The λ that no other is predicted to dominate, in order of λ.

    Candidates are the `maximiser` of every preference on a lattice, between rewards divided by their predicted
    ranges, at the nearest λ of the denominator, and a lattice of λ, which has what no preference reaches where the
    front is hollow. Two ingredients: 101 preferences and 101 λ; at most 600 of each beyond. Values that differ by
    less than 10⁻⁹ of the range are equal. Deterministic. Raises ValueError for directions that are not one per
    reward, for more than 12 ingredients, and a denominator that `rounded` refuses.
    """
    linear, mixed = _coefficients(surrogate, maximise)
    import numpy as np

    count, size = linear.shape
    mixes = set(_lattice(size))
    values = _rows(surrogate, sorted(mixes)) @ np.hstack([linear, mixed]).T
    spans = np.ptp(values, axis=0)
    spans[spans == 0] = 1.0
    wanted = np.array([[float(w) for w in preference] for preference in _lattice(count)]) / spans
    places, _ = _maxima(wanted @ linear, wanted @ mixed)
    mixes |= {rounded(tuple(map(float, place)), denominator) for place in places}
    candidates = sorted(mixes)
    gains = _rows(surrogate, candidates) @ np.hstack([linear, mixed]).T / spans
    kept = front(np.round(gains / _SAME).tolist(), (True,) * count)
    return tuple(_described(surrogate, [candidates[i] for i in kept]))


def rounded(shares: Sequence[float], denominator: int = DENOMINATOR) -> Mix:
    """The shares as multiples of 1/denominator that sum to 1: the largest remainders are rounded up, the first of equals.

    Each is less than 1/denominator from its share; 0 and 1 stay. Raises ValueError for shares that are negative, not
    finite or do not sum to 1 (within 10⁻⁹), and for a denominator below 1 or above 10⁶.
    """
    if not 1 <= denominator <= FINEST:
        raise ValueError(f"a denominator is between 1 and {FINEST}")
    if not all(math.isfinite(s) and s >= 0 for s in shares) or abs(math.fsum(shares) - 1) > 1e-9:
        raise ValueError("shares are not negative, and sum to 1")
    units = [share * denominator for share in shares]
    whole = [math.floor(unit + _SAME) for unit in units]
    order = sorted(range(len(units)), key=lambda i: (whole[i] - units[i], i))
    for i in order[: denominator - sum(whole)]:
        whole[i] += 1
    return tuple(Fraction(unit, denominator) for unit in whole)


def _coefficients(surrogate: Surrogate, maximise: Sequence[bool]) -> tuple[Floats, Floats]:
    """(β, βᵢⱼ) per reward, turned so that all rewards are to be maximised."""
    import numpy as np

    if len(maximise) != len(surrogate.linear):
        raise ValueError(f"{len(maximise)} directions for {len(surrogate.linear)} rewards")
    if len(surrogate.linear[0]) > MOST_INGREDIENTS:
        raise ValueError(f"a simplex of more than {MOST_INGREDIENTS} ingredients has too many faces")
    signs = np.array([[1.0 if up else -1.0] for up in maximise])
    count = len(maximise)
    linear = np.array(surrogate.linear, dtype=np.float64).reshape(count, -1)
    mixed = np.array(surrogate.mixed, dtype=np.float64).reshape(count, -1)
    return linear * signs, mixed * signs


def _maxima(linear: Floats, mixed: Floats) -> tuple[Floats, Floats]:
    """(λ, maximum) of Σβᵢλᵢ + Σβᵢⱼλᵢλⱼ for each row of coefficients."""
    import numpy as np

    rows, size = linear.shape
    every = np.arange(rows)
    first, second = np.triu_indices(size, 1)
    bends = np.zeros((rows, size, size))
    bends[:, first, second] = bends[:, second, first] = mixed
    scale = np.maximum(abs(linear).max(axis=1), abs(bends).max(axis=(1, 2)))
    best = np.where(
        linear >= linear.max(axis=1, keepdims=True) - _ROUNDING * scale[:, None], 1.0, 0.0
    ).argmax(axis=1)
    places, highest = np.eye(size)[best], linear[every, best]
    for corners in range(2, size + 1):
        for face in combinations(range(size), corners):
            inner = list(face)
            bend = bends[:, inner][:, :, inner]
            # Along the edge from i to j the second derivative is −2βᵢⱼ: no strictly concave face has βᵢⱼ ≤ 0.
            above = np.triu_indices(corners, 1)
            edges = bend[:, above[0], above[1]].min(axis=1)
            asked = every[edges > _ROUNDING * scale]
            if len(asked):
                asked, shares = _inner(linear[asked][:, inner], bend[asked], asked)
                values = np.einsum("pi,pi->p", linear[asked][:, inner], shares)
                values += np.einsum("pi,pij,pj->p", shares, bend[asked], shares) / 2
                better = values > highest[asked] + _ROUNDING * scale[asked]
                won = asked[better]
                highest[won], places[won] = values[better], 0.0
                places[np.ix_(won, inner)] = shares[better]
    return places, highest


def _inner(slopes: Floats, bend: Floats, rows: Any) -> tuple[Any, Floats]:
    """The rows that have a strict maximum strictly inside their face, and its shares there."""
    import numpy as np

    last = bend[:, :, -1]
    curved = bend[:, :-1, :-1] - last[:, :-1, None] - last[:, None, :-1]  # of λ = e_last + Σ zᵢ(eᵢ − e_last)
    rising = slopes[:, :-1] - slopes[:, -1:] + last[:, :-1]
    steep = abs(curved).max(axis=(1, 2))
    strict = np.linalg.eigvalsh(curved)[:, -1] < -_ROUNDING * steep
    moved = np.linalg.solve(curved[strict], -rising[strict][:, :, None])[:, :, 0]
    shares = np.hstack([moved, 1 - moved.sum(axis=1, keepdims=True)])
    inside = (shares > 0).all(axis=1)
    return rows[strict][inside], shares[inside]


def _rows(surrogate: Surrogate, mixes: Sequence[Mix]) -> Floats:
    import numpy as np

    return np.array([scheffe_row(mix, surrogate.pairs) for mix in mixes], dtype=np.float64)


def _described(surrogate: Surrogate, mixes: Sequence[Mix]) -> list[Predicted]:
    """Values and standard errors of all λ at once."""
    import numpy as np

    rows = _rows(surrogate, mixes)
    linear, mixed = _coefficients(surrogate, (True,) * len(surrogate.linear))
    values = rows @ np.hstack([linear, mixed]).T
    errors: list[list[float | None]] = []
    for covariance in surrogate.covariance:
        if covariance is None:
            errors.append([None] * len(mixes))
        else:
            squares = np.einsum("pi,ij,pj->p", rows, np.array(covariance), rows)
            errors.append(np.sqrt(np.maximum(squares, 0.0)).tolist())
    columns = list(zip(*errors, strict=True))
    return [
        Predicted(mix, tuple(map(float, row)), tuple(column))
        for mix, row, column in zip(mixes, values, columns, strict=True)
    ]


def _lattice(size: int) -> Iterator[Mix]:
    """The finest of a few lattices on the simplex with at most 600 points; vertices and midpoints at least."""
    places = (steps for steps in _STEPS if math.comb(steps + size - 1, size - 1) <= _MOST_PLACES)
    steps = next(places, _STEPS[-1])
    for bars in combinations(range(steps + size - 1), size - 1):
        edges = (-1, *bars, steps + size - 1)
        yield tuple(Fraction(b - a - 1, steps) for a, b in pairwise(edges))
