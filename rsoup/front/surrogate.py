"""The Scheffé quadratic on the simplex: R̂(λ) = Σ βᵢλᵢ + Σ βᵢⱼλᵢλⱼ, the landscape that few points suggest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

Mix = Sequence[Fraction]
_DEPENDS_ON_ONE = 1e-9


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A quadratic per reward; what it predicts is no measurement and must never be shown as one.

    Per reward: `linear` has the βᵢ, `mixed` the βᵢⱼ in the order of `pairs`; `residual` is the standard
    deviation of measured minus predicted, √(Σr²/(points − coefficients)), None where no point is left over;
    `leave_one_out` the root mean square of what each point misses when the others predict it, over the points
    that can be left out, None where none can.
    """

    pairs: tuple[tuple[int, int], ...]
    linear: tuple[tuple[float, ...], ...]
    mixed: tuple[tuple[float, ...], ...]
    residual: tuple[float | None, ...]
    leave_one_out: tuple[float | None, ...]
    points: int
    weighted: tuple[bool, ...]

    @property
    def coefficients(self) -> int:
        """N(N+1)/2 for N ingredients: how many points it needs at least."""
        return len(self.linear[0]) + len(self.pairs)

    def predict(self, mix: Mix) -> tuple[float, ...]:
        """R̂(λ), one value per reward. Raises ValueError for a λ of another number of ingredients."""
        if len(mix) != len(self.linear[0]):
            raise ValueError(f"a λ of {len(mix)} for {len(self.linear[0])} ingredients")
        row = _row(mix, self.pairs)
        return tuple(
            math.fsum(b * x for b, x in zip((*linear, *mixed), row, strict=True))
            for linear, mixed in zip(self.linear, self.mixed, strict=True)
        )


def _row(mix: Mix, pairs: Sequence[tuple[int, int]]) -> list[float]:
    return [*map(float, mix), *(float(mix[i] * mix[j]) for i, j in pairs)]


def fit(
    mixes: Sequence[Mix],
    values: Sequence[Sequence[float]],
    errors: Sequence[Sequence[float | None]] | None = None,
) -> Surrogate | None:
    """The quadratic nearest to the measured values, by least squares; None where the λ do not determine it.

    A reward whose `errors` (standard errors, same shape as `values`) are all known and above 0 is weighted by
    1/error². On the {N,2} design (vertices and midpoints, nothing else) it is the closed form
    βᵢ = R(eᵢ), βᵢⱼ = 4R((eᵢ+eⱼ)/2) − 2R(eᵢ) − 2R(eⱼ), which meets every point.
    Raises ValueError for a λ off the simplex, for shapes that differ and values that are not finite.
    """
    _check(mixes, values, errors)
    if not mixes:
        return None
    size = len(mixes[0])
    pairs = tuple(combinations(range(size), 2))
    closed = _closed(mixes, values, pairs)
    if closed is not None:
        none: tuple[float | None, ...] = (None,) * len(values[0])
        unweighted = (False,) * len(values[0])
        return Surrogate(pairs, closed[0], closed[1], none, none, len(mixes), unweighted)
    import numpy as np

    design = np.array([_row(mix, pairs) for mix in mixes], dtype=np.float64)
    if len(mixes) < design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fits = []
    for k in range(len(values[0])):
        column = np.array([point[k] for point in values], dtype=np.float64)
        known = [row[k] for row in errors] if errors is not None else []
        fits.append(_least_squares(design, column, [e for e in known if e]))
    return Surrogate(
        pairs,
        tuple(found.beta[:size] for found in fits),
        tuple(found.beta[size:] for found in fits),
        tuple(found.residual for found in fits),
        tuple(found.leave_one_out for found in fits),
        len(mixes),
        tuple(found.weighted for found in fits),
    )


def _check(
    mixes: Sequence[Mix],
    values: Sequence[Sequence[float]],
    errors: Sequence[Sequence[float | None]] | None,
) -> None:
    if len(mixes) != len(values) or (errors is not None and len(errors) != len(values)):
        raise ValueError("there must be one row of values, and of errors, per λ")
    rewards = {len(row) for rows in (values, errors or ()) for row in rows}
    if len(rewards) > 1 or len({len(mix) for mix in mixes}) > 1:
        raise ValueError("every λ and every row must have the same length")
    if not all(math.isfinite(value) for row in values for value in row):
        raise ValueError("a value is not finite")
    if any(sum(mix) != 1 or min(mix) < 0 for mix in mixes):
        raise ValueError("a λ is not on the simplex")


def _closed(
    mixes: Sequence[Mix], values: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]]
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]] | None:
    size = len(mixes[0])
    if len(mixes) != size + len(pairs):
        return None
    half = Fraction(1, 2)
    measured: Mapping[tuple[Fraction, ...], Sequence[float]] = {
        tuple(map(Fraction, mix)): row for mix, row in zip(mixes, values, strict=True)
    }
    vertices = [tuple(Fraction(i == j) for j in range(size)) for i in range(size)]
    middles = [tuple(half if k in pair else Fraction(0) for k in range(size)) for pair in pairs]
    if measured.keys() != {*vertices, *middles}:
        return None
    linear, mixed = [], []
    for k in range(len(values[0])):
        beta = tuple(measured[vertex][k] for vertex in vertices)
        linear.append(beta)
        mixed.append(
            tuple(4 * measured[m][k] - 2 * beta[i] - 2 * beta[j] for m, (i, j) in zip(middles, pairs, strict=True))
        )  # fmt: skip
    return tuple(linear), tuple(mixed)


@dataclass(frozen=True, slots=True)
class _Fit:
    beta: tuple[float, ...]
    residual: float | None
    leave_one_out: float | None
    weighted: bool


def _least_squares(design: Any, column: Any, errors: Sequence[float]) -> _Fit:
    """Weighted where there is an error for every row; residuals are in the reward's unit either way."""
    import numpy as np

    rows, columns = design.shape
    weighted = len(errors) == rows and all(error > 0 and math.isfinite(error) for error in errors)
    # The largest weight is 1, so that no square of a tiny error leaves the range of floats.
    roots = min(errors) / np.array(errors) if weighted else np.ones(rows)
    q, r = np.linalg.qr(design * roots[:, None])
    beta = np.linalg.solve(r, q.T @ (column * roots))
    misses = column - design @ beta
    spare = rows - columns
    leverage = np.einsum("ij,ij->i", q, q)
    free = leverage < 1 - _DEPENDS_ON_ONE
    left_out = misses[free] / (1 - leverage[free])
    return _Fit(
        tuple(map(float, beta)),
        float(np.sqrt(misses @ misses / spare)) if spare else None,
        float(np.sqrt(np.mean(left_out**2))) if free.any() else None,
        weighted,
    )
