"""The Gram matrix of the deltas: distances, cosines and angles from inner products summed block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Gram = list[list[float]]
"""Gᵢⱼ = ⟨δᵢ, δⱼ⟩ in float64, δᵢ = θᵢ − θ₀."""


def products(rows: Sequence[torch.Tensor]) -> list[float]:
    """⟨rᵢ, rⱼ⟩ for i ≤ j of k rows (n,) float64 → k(k+1)/2 floats, row by row of the upper triangle."""
    import torch

    count = len(rows)
    return [torch.dot(rows[i], rows[j]).item() for i in range(count) for j in range(i, count)]


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

    `relative[i]` = ‖δᵢ‖/‖θ₀‖ over the tensors in which checkpoint i was read, None where it was not read;
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
        self.read = [False] * count

    def add(self, checkpoints: Sequence[int], upper: Sequence[float]) -> None:
        """Add one tensor's products of rows (δ of `checkpoints`…, θ₀), as `products` gives them."""
        part = unfold(upper, len(checkpoints) + 1)
        for a, i in enumerate(checkpoints):
            self.read[i] = True
            self.base_squared[i] += part[-1][-1]
            for b, j in enumerate(checkpoints):
                self.gram[i][j] += part[a][b]

    def distances(self) -> Distances:
        """The distances and cosines of everything that was added."""
        squared = [self.gram[i][i] for i in range(self.count)]
        absolute = tuple(math.sqrt(s) if read else None for s, read in zip(squared, self.read, strict=True))
        relative = tuple(self._relative(i) for i in range(self.count))
        cosine = tuple(tuple(self._cosine(i, j) for j in range(self.count)) for i in range(self.count))
        return Distances(absolute, relative, cosine)

    def _relative(self, i: int) -> float | None:
        if not self.read[i]:
            return None
        if self.base_squared[i] == 0.0:
            return 0.0 if self.gram[i][i] == 0.0 else math.inf
        return math.sqrt(self.gram[i][i] / self.base_squared[i])

    def _cosine(self, i: int, j: int) -> float | None:
        if not (self.read[i] and self.read[j]) or self.base_squared[i] != self.base_squared[j]:
            return None
        norms = math.sqrt(self.gram[i][i]) * math.sqrt(self.gram[j][j])
        return None if norms == 0.0 else max(-1.0, min(1.0, self.gram[i][j] / norms))
