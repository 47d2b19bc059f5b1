"""The Gram matrix of the deltas: distances, cosines and angles from inner products summed block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsoup.backends import Backend, Row
from rsoup.tensors import DTYPES

Gram = list[list[float]]
"""Gᵢⱼ = ⟨δᵢ, δⱼ⟩ in float64, δᵢ = θᵢ − θ₀."""


def finite_products(backend: Backend, rows: Sequence[Row]) -> list[float]:
    """`backend.products` over the elements that are finite in every row, and in its difference from the last."""
    found = backend.products(rows)
    if math.isfinite(sum(found)):
        return found
    import numpy as np

    from rsoup.backends.elements import widened

    broken = np.zeros(len(widened(rows[0])), dtype=np.bool_)
    with np.errstate(all="ignore"):
        last = widened(rows[-1])
        for row in rows:
            broken |= ~np.isfinite(widened(row) - last)
        broken |= ~np.isfinite(last)
    return backend.products(without(rows, np.flatnonzero(broken)))


def without(rows: Sequence[Row], elements: Any) -> list[Row]:
    """The rows in float64, with 0 in these elements: they add nothing to any product."""
    from rsoup.backends.elements import widened

    wide = [widened(row) for row in rows]
    for values in wide:
        values[elements] = 0.0
    return [(DTYPES["F64"], values.data.cast("B")) for values in wide]


def unfold(upper: Sequence[float], count: int) -> Gram:
    """The symmetric (count, count) matrix whose upper triangle, row by row, is `upper`."""
    matrix = [[0.0] * count for _ in range(count)]
    values = iter(upper)
    for i in range(count):
        for j in range(i, count):
            matrix[i][j] = matrix[j][i] = next(values)
    return matrix


def grouped(gram: Gram, groups: Sequence[Sequence[int]]) -> Gram:
    """The Gram matrix of the groups' mean deltas: G_gh = Σ_{i∈g, j∈h} Gᵢⱼ / (|g||h|)."""
    return [[math.fsum(gram[i][j] for i in g for j in h) / (len(g) * len(h)) for h in groups] for g in groups]


@dataclass(frozen=True, slots=True)
class Distances:
    """How far each checkpoint moved from the base, and whether they moved the same way.

    `relative[i]` = ‖δᵢ‖/‖θ₀‖ over the tensors in which checkpoint i was read, None where it was not read
    (or beyond what float64 can square), infinite for a base of zeros;
    `cosine[i][j]` = ⟨δᵢ, δⱼ⟩/(‖δᵢ‖‖δⱼ‖), None where a delta is zero or was not read everywhere.
    """

    absolute: tuple[float | None, ...]
    relative: tuple[float | None, ...]
    cosine: tuple[tuple[float | None, ...], ...]


class GramSum:
    """Sums of inner products over tensors in which different checkpoints may have been read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.gram: Gram = [[0.0] * count for _ in range(count)]
        self.base_squared = [0.0] * count
        self.read = [[0] * count for _ in range(count)]  # tensors in which both i and j were read

    def add(self, checkpoints: Sequence[int], upper: Sequence[float]) -> None:
        """Add one tensor's products of rows (δ of `checkpoints`…, θ₀), as `products` gives them."""
        part = unfold(upper, len(checkpoints) + 1)
        for a, i in enumerate(checkpoints):
            self.base_squared[i] += part[-1][-1]
            for b, j in enumerate(checkpoints):
                self.gram[i][j] += part[a][b]
                self.read[i][j] += 1

    def distances(self) -> Distances:
        """The distances and cosines of everything that was added."""
        size = range(self.count)
        return Distances(
            tuple(self._absolute(i) for i in size),
            tuple(self._relative(i) for i in size),
            tuple(tuple(self._cosine(i, j) for j in size) for i in size),
        )

    def _absolute(self, i: int) -> float | None:
        return math.sqrt(self.gram[i][i]) if self.read[i][i] and math.isfinite(self.gram[i][i]) else None

    def _relative(self, i: int) -> float | None:
        moved, size = self.gram[i][i], self.base_squared[i]
        if not self.read[i][i] or not math.isfinite(moved + size):
            return None
        if size == 0.0:
            return 0.0 if moved == 0.0 else math.inf
        return math.sqrt(moved / size)

    def _cosine(self, i: int, j: int) -> float | None:
        together = 0 < self.read[i][j] == self.read[i][i] == self.read[j][j]
        norms = math.sqrt(self.gram[i][i]) * math.sqrt(self.gram[j][j]) if together else 0.0
        if norms == 0.0 or not math.isfinite(norms):
            return None
        return max(-1.0, min(1.0, self.gram[i][j] / norms))
