"""Whether a quadratic is the right surface, and whether the λ measured determine one at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

from rsoup.front.surrogate import fit, scheffe_row

Mix = tuple[Fraction, ...]
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class LackOfFit:
    """The centroid, measured and predicted by a fit to all other points; per reward, in its unit.

    `miss` is measured − predicted; `error` the standard error of that difference, from what `errors_from` says
    ("errors": those of the evaluations; "residuals": of the fit), None where neither is known; `ratio` is
    miss/error: beyond ±2 the landscape is no quadratic, and the missing part is cubic at least (for three
    ingredients, the special cubic's coefficient is 27·miss if the rest is exact). `repeats` is how often the
    centroid was measured; `measured` is their mean.
    """

    measured: tuple[float, ...]
    predicted: tuple[float, ...]
    miss: tuple[float, ...]
    error: tuple[float | None, ...]
    ratio: tuple[float | None, ...]
    errors_from: tuple[str | None, ...]
    repeats: int


@dataclass(frozen=True, slots=True)
class Undetermined:
    """Why λ do not determine the quadratic: `rank` of its `coefficients` can be known from them.

    `dimension` is that of the smallest flat part of the simplex that holds all λ; `missing` are the coefficients
    that stay open, (i,) for βᵢ and (i, j) for βᵢⱼ; `needed` the fewest vertices and midpoints that would do.
    """

    points: int
    coefficients: int
    rank: int
    dimension: int
    missing: tuple[tuple[int, ...], ...]
    needed: tuple[Mix, ...]
    why: str


def lack_of_fit(
    mixes: Sequence[Sequence[Fraction]],
    values: Sequence[Sequence[float]],
    errors: Sequence[Sequence[float | None]] | None = None,
) -> LackOfFit | None:
    """What the quadratic through all other points misses at the centroid λᵢ = 1/N.

    None where the centroid is not measured, or the others do not determine a quadratic: for two ingredients it is
    one of the three points that do. Raises ValueError like `surrogate.fit`.
    """
    centre = [sum(mix) == 1 and len(set(mix)) == 1 for mix in mixes]
    others = [i for i, inside in enumerate(centre) if not inside]
    own = [i for i, inside in enumerate(centre) if inside]
    fit(mixes, values, errors)
    if not own or not others:
        return None
    found = fit(
        [mixes[i] for i in others],
        [values[i] for i in others],
        None if errors is None else [errors[i] for i in others],
    )
    if found is None:
        return None
    mix = mixes[own[0]]
    predicted, uncertain = found.predict(mix), found.predicted_errors(mix)
    measured = tuple(math.fsum(values[i][k] for i in own) / len(own) for k in range(len(predicted)))
    error = []
    for k, (source, residual) in enumerate(zip(found.errors_from, found.residual, strict=True)):
        noise = residual if source == "residuals" else None
        alone = [noise if errors is None or source == "residuals" else errors[i][k] for i in own]
        known = [e for e in alone if e is not None and math.isfinite(e) and e >= 0]
        surface = uncertain[k]
        whole = surface is not None and len(known) == len(own)
        error.append(math.hypot(surface or 0.0, math.hypot(*known) / len(own)) if whole else None)
    miss = tuple(value - guess for value, guess in zip(measured, predicted, strict=True))
    ratio = tuple(m / e if e else None for m, e in zip(miss, error, strict=True))
    sources = tuple(s if e is not None else None for s, e in zip(found.errors_from, error, strict=True))
    return LackOfFit(measured, predicted, miss, tuple(error), ratio, sources, len(own))


def undetermined(mixes: Sequence[Sequence[Fraction]]) -> Undetermined | None:
    """Why these λ do not determine the quadratic; None where they do.

    Raises ValueError without λ, for λ of different lengths and off the simplex.
    """
    if not mixes or len({len(mix) for mix in mixes}) > 1:
        raise ValueError("there must be λ, all of one length")
    if any(sum(mix) != 1 or min(mix) < 0 for mix in mixes):
        raise ValueError("a λ is not on the simplex")
    import numpy as np

    size = len(mixes[0])
    pairs = tuple(combinations(range(size), 2))
    distinct = sorted({tuple(map(Fraction, mix)) for mix in mixes})
    design = np.array([scheffe_row(mix, pairs) for mix in distinct], dtype=np.float64)
    columns, rank = design.shape[1], int(np.linalg.matrix_rank(design))
    if rank == columns:
        return None
    flat = design[:, :size] - design[0, :size]
    dimension = int(np.linalg.matrix_rank(flat)) if len(distinct) > 1 else 0
    square = np.linalg.qr(design, mode="r") if len(design) > columns else design
    known: Any = np.linalg.svd(square)[2]
    names = [*((i,) for i in range(size)), *pairs]
    open_ones: Any = (abs(known[rank:]) > _NOTHING).any(axis=0)
    missing = tuple(name for name, is_open in zip(names, open_ones, strict=True) if is_open)
    needed = _needed(known[:rank], size, pairs)
    why = _why(len(distinct), rank, columns, dimension, size)
    return Undetermined(len(distinct), columns, rank, dimension, missing, needed, why)


def _needed(known: Any, size: int, pairs: Sequence[tuple[int, int]]) -> tuple[Mix, ...]:
    """Vertices, then midpoints, each taken if it tells what all before it do not."""
    import numpy as np

    half = Fraction(1, 2)
    design = [tuple(Fraction(i == j) for j in range(size)) for i in range(size)]
    design += [tuple(half if k in pair else Fraction(0) for k in range(size)) for pair in pairs]
    found = []
    for mix in design:
        more = np.vstack([known, scheffe_row(mix, pairs)])
        if np.linalg.matrix_rank(more) > len(known):
            found.append(mix)
            known = more
    return tuple(found)


def _why(points: int, rank: int, columns: int, dimension: int, size: int) -> str:
    have = f"{points} different λ" if points != 1 else "one λ"
    flat = {0: "in one point", 1: "on one line"}.get(dimension, f"in {dimension} of {size - 1} dimensions")
    if dimension < size - 1:
        return f"{have} lie {flat} of the simplex: they tell {rank} of the {columns} coefficients of {size} ingredients"
    if points < columns:
        return f"{have} are too few for the {columns} coefficients of {size} ingredients"
    return f"{have} lie on one quadratic curve or surface: they tell {rank} of the {columns} coefficients"
