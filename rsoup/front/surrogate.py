"""The Scheffé quadratic on the simplex: R̂(λ) = Σ βᵢλᵢ + Σ βᵢⱼλᵢλⱼ, the landscape that few points suggest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

Mix = Sequence[Fraction]
Matrix = tuple[tuple[float, ...], ...]
_DEPENDS_ON_ONE = 1e-9


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A quadratic per reward; what it predicts is no measurement and must never be shown as one.

    Per reward: `linear` has the βᵢ, `mixed` the βᵢⱼ in the order of `pairs`; `residual` is the standard
    deviation of measured minus predicted, √(Σr²/(points − coefficients)), None where no point is left over;
    `leave_one_out` the root mean square of what each point misses when the others predict it, over the points
    that can be left out, None where none can.
    `covariance` is that of the coefficients (`linear`, then `mixed`): (XᵀX)⁻¹ with each row divided by its standard
    error where these are known, σ̂²(XᵀX)⁻¹ with σ̂ the `residual` where they are not, None where there is neither;
    `errors_from` says which: "errors", "residuals", None. `chi_square` is Σ(r/error)², to be held against
    points − coefficients (much more: it is no quadratic), None without errors or with no point left over.
    """

    pairs: tuple[tuple[int, int], ...]
    linear: tuple[tuple[float, ...], ...]
    mixed: tuple[tuple[float, ...], ...]
    residual: tuple[float | None, ...]
    leave_one_out: tuple[float | None, ...]
    points: int
    weighted: tuple[bool, ...]
    covariance: tuple[Matrix | None, ...]
    errors_from: tuple[str | None, ...]
    chi_square: tuple[float | None, ...]

    @property
    def coefficients(self) -> int:
        """N(N+1)/2 for N ingredients: how many points it needs at least."""
        return len(self.linear[0]) + len(self.pairs)

    def predict(self, mix: Mix) -> tuple[float, ...]:
        """R̂(λ), one value per reward. Raises ValueError for a λ of another number of ingredients."""
        if len(mix) != len(self.linear[0]):
            raise ValueError(f"a λ of {len(mix)} for {len(self.linear[0])} ingredients")
        row = scheffe_row(mix, self.pairs)
        return tuple(
            math.fsum(b * x for b, x in zip((*linear, *mixed), row, strict=True))
            for linear, mixed in zip(self.linear, self.mixed, strict=True)
        )

    def predicted_errors(self, mix: Mix) -> tuple[float | None, ...]:
        """√(xᵀΣx), the standard error of R̂(λ) per reward: of the surface, not of a new measurement on it.

        What a quadratic cannot follow is no part of it. Raises ValueError like `predict`.
        """
        if len(mix) != len(self.linear[0]):
            raise ValueError(f"a λ of {len(mix)} for {len(self.linear[0])} ingredients")
        row = scheffe_row(mix, self.pairs)
        return tuple(None if matrix is None else _deviation(row, matrix) for matrix in self.covariance)

    def coefficient_errors(self) -> tuple[tuple[float, ...] | None, ...]:
        """The standard errors of β per reward, `linear`, then `mixed`: a βᵢⱼ within two of 0 has no known sign."""
        return tuple(
            None if matrix is None else tuple(math.sqrt(matrix[c][c]) for c in range(len(matrix)))
            for matrix in self.covariance
        )


def _deviation(row: Sequence[float], matrix: Matrix) -> float:
    parts = (x * math.fsum(m * y for m, y in zip(line, row, strict=True)) for x, line in zip(row, matrix, strict=True))  # fmt: skip
    return math.sqrt(max(0.0, math.fsum(parts)))


def scheffe_row(mix: Mix, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """λᵢ, then λᵢλⱼ in the order of `pairs`: what the coefficients are multiplied with."""
    shares = [float(share) for share in mix]
    return [*shares, *(shares[i] * shares[j] for i, j in pairs)]


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
        linear, mixed, order = closed
        none: tuple[None, ...] = (None,) * len(linear)
        spread = tuple(
            _propagated(pairs, size, [row[k] for row in _at(errors, order)]) for k in range(len(linear))
        )
        told = tuple("errors" if matrix else None for matrix in spread)
        return Surrogate(
            pairs, linear, mixed, none, none, len(mixes), (False,) * len(linear), spread, told, none
        )
    import numpy as np

    design = np.array([scheffe_row(mix, pairs) for mix in mixes], dtype=np.float64)
    if len(mixes) < design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fits: list[_Fit] = []
    decompositions: dict[bytes, tuple[Any, Any]] = {}
    for k in range(len(values[0])):
        column = np.array([point[k] for point in values], dtype=np.float64)
        known = [row[k] for row in errors] if errors is not None else []
        fits.append(_least_squares(design, column, [e for e in known if e], decompositions))
    return Surrogate(
        pairs,
        tuple(found.beta[:size] for found in fits),
        tuple(found.beta[size:] for found in fits),
        tuple(found.residual for found in fits),
        tuple(found.leave_one_out for found in fits),
        len(mixes),
        tuple(found.weighted for found in fits),
        tuple(found.covariance for found in fits),
        tuple(found.errors_from for found in fits),
        tuple(found.chi_square for found in fits),
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
) -> tuple[Matrix, Matrix, list[int]] | None:
    """(βᵢ, βᵢⱼ, which points are the vertices and then the middles); None for any other design."""
    size = len(mixes[0])
    if len(mixes) != size + len(pairs):
        return None
    half = Fraction(1, 2)
    places = {tuple(map(Fraction, mix)): k for k, mix in enumerate(mixes)}
    vertices = [tuple(Fraction(i == j) for j in range(size)) for i in range(size)]
    middles = [tuple(half if k in pair else Fraction(0) for k in range(size)) for pair in pairs]
    if places.keys() != {*vertices, *middles}:
        return None
    order = [places[mix] for mix in (*vertices, *middles)]
    linear, mixed = [], []
    for k in range(len(values[0])):
        column = [values[place][k] for place in order]
        linear.append(tuple(column[:size]))
        both = zip(column[size:], pairs, strict=True)
        mixed.append(tuple(4 * middle - 2 * column[i] - 2 * column[j] for middle, (i, j) in both))
    return tuple(linear), tuple(mixed), order


def _at(
    errors: Sequence[Sequence[float | None]] | None, order: Sequence[int]
) -> list[Sequence[float | None]]:
    return [] if errors is None else [errors[place] for place in order]


def _propagated(pairs: Sequence[tuple[int, int]], size: int, errors: Sequence[float | None]) -> Matrix | None:
    """The covariance of the closed form's coefficients: C·diag(error²)·Cᵀ, C their weights. An error may be 0."""
    known = [error for error in errors if error is not None and math.isfinite(error) and error >= 0]
    if not known or len(known) != size + len(pairs):
        return None
    import numpy as np

    weights = np.eye(len(known))
    for row, (i, j) in enumerate(pairs, start=size):
        weights[row, [row, i, j]] = 4.0, -2.0, -2.0
    scaled = weights * np.array(known)
    return _tuples(scaled @ scaled.T)


def _tuples(matrix: Any) -> Matrix:
    return tuple(tuple(map(float, row)) for row in matrix)


@dataclass(frozen=True, slots=True)
class _Fit:
    beta: tuple[float, ...]
    residual: float | None
    leave_one_out: float | None
    weighted: bool
    covariance: Matrix | None
    errors_from: str | None
    chi_square: float | None


def _least_squares(
    design: Any, column: Any, errors: Sequence[float], decompositions: dict[bytes, tuple[Any, Any]]
) -> _Fit:
    """Weighted where there is an error for every row; residuals are in the reward's unit either way.

    `decompositions` remembers those of weights that came before: most rewards have the same.
    """
    import numpy as np

    rows, columns = design.shape
    weighted = len(errors) == rows and all(error > 0 and math.isfinite(error) for error in errors)
    # The largest weight is 1, so that no square of a tiny error leaves the range of floats.
    roots = min(errors) / np.array(errors) if weighted else np.ones(rows)
    key = roots.tobytes()
    if key not in decompositions:
        decompositions[key] = np.linalg.qr(design * roots[:, None])
    q, r = decompositions[key]
    beta = np.linalg.solve(r, q.T @ (column * roots))
    misses = column - design @ beta
    spare = rows - columns
    leverage = np.einsum("ij,ij->i", q, q)
    free = leverage < 1 - _DEPENDS_ON_ONE
    left_out = misses[free] / (1 - leverage[free])
    residual = float(np.sqrt(misses @ misses / spare)) if spare else None
    unit = min(errors) if weighted else residual
    inverse = np.linalg.solve(r, np.eye(columns)) * (0.0 if unit is None else unit)
    return _Fit(
        tuple(map(float, beta)),
        residual,
        float(np.sqrt(np.mean(left_out**2))) if free.any() else None,
        weighted,
        None if unit is None else _tuples(inverse @ inverse.T),
        "errors" if weighted else None if unit is None else "residuals",
        float(((misses / np.array(errors)) ** 2).sum()) if weighted and spare else None,
    )
