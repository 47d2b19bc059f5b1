"""One dense update Δ as a product of two factors: the best of a rank, its singular values, what is left. Pure; float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

SMALL: Final = 256  # up to this many rows or columns a whole SVD costs nothing
DIRECT: Final = 2048  # up to this many the eigenvectors of ΔᵀΔ are had in a second or two
OVERSAMPLING: Final = 16
ITERATIONS: Final = 4
_SEED: Final = 20240229  # any number: the same matrix gives the same factors, on every day
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Δ ≈ left·right: rows × r and r × columns, balanced; `values` are the norms of their r products, falling."""

    left: torch.Tensor
    right: torch.Tensor
    values: tuple[float, ...]


def best(delta: torch.Tensor, rank: int, *, exact: bool) -> Pair:
    """The rank-r product nearest to Δ in the Frobenius norm, r at most the smaller side of Δ.

    With `exact`, and wherever that is cheap, it is the best there is (Eckart and Young 1936). Else it comes out of a
    randomised range of r + 16 columns and 4 power iterations, some tenths of a percent from the best (Halko,
    Martinsson and Tropp 2011, algorithm 4.4). In each case left·right is an orthogonal projection of Δ, so that
    ‖Δ − left·right‖² = ‖Δ‖² − Σ values². The sign of each pair is fixed: the same Δ gives the same factors.
    """
    side = min(delta.shape)
    rank = min(rank, side)
    if side <= SMALL:
        return _by_svd(delta, rank)
    if exact or side <= DIRECT or 4 * (rank + OVERSAMPLING) > side:
        return _by_gram(delta, rank)
    return _by_range(delta, rank)


def spectrum(delta: torch.Tensor) -> tuple[float, ...]:
    """All singular values of Δ, falling; those of a large Δ are right to some 10⁻⁸ of the largest."""
    import torch

    if min(delta.shape) <= SMALL:
        return tuple(float(value) for value in torch.linalg.svdvals(delta))
    squares = torch.linalg.eigvalsh(_gram(delta))
    return tuple(float(value) for value in squares.clamp(min=0.0).sqrt().flip(0))


def square(delta: torch.Tensor) -> float:
    """‖Δ‖² (Frobenius)."""
    import torch

    flat = delta.reshape(-1)
    return math.fsum(float(torch.dot(part, part)) for part in torch.split(flat, _PIECE))


def left_over(delta: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> float:
    """‖Δ − left·right‖², of these very factors, a few rows at a time."""
    import torch

    found = []
    step = max(1, _PIECE // delta.shape[1])
    for start in range(0, len(delta), step):
        part = (delta[start : start + step] - left[start : start + step] @ right).reshape(-1)
        found.append(float(torch.dot(part, part)))
    return math.fsum(found)


def with_rest(values: Sequence[float], rest: float) -> tuple[float, ...]:
    """Leading singular values and one more that stands for all others: `rest` is the sum of their squares."""
    return (*values, math.sqrt(max(0.0, rest)))


def _by_svd(delta: torch.Tensor, rank: int) -> Pair:
    import torch

    u, values, vh = torch.linalg.svd(delta, full_matrices=False)
    return _pair(u[:, :rank], values[:rank], vh[:rank])


def _by_gram(delta: torch.Tensor, rank: int) -> Pair:
    """By the eigenvectors V of the smaller of ΔᵀΔ and ΔΔᵀ: Δ·V·Vᵀ is a projection however exact they are."""
    import torch

    vectors = torch.linalg.eigh(_gram(delta)).eigenvectors.flip(1)[:, :rank]
    if delta.shape[0] >= delta.shape[1]:
        found = _scaled(delta @ vectors)
        return _pair(*found, vectors.T)
    u, values = _scaled((vectors.T @ delta).T)
    return _pair(vectors, values, u.T)


def _gram(delta: torch.Tensor) -> torch.Tensor:
    return delta.T @ delta if delta.shape[0] >= delta.shape[1] else delta @ delta.T


def _scaled(products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(columns of norm 1, their norms): a column of nothing but noise keeps its direction and its size."""
    import torch

    values = torch.linalg.vector_norm(products, dim=0)
    return products / values.clamp(min=torch.finfo(values.dtype).tiny), values


def _by_range(delta: torch.Tensor, rank: int) -> Pair:
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    width = rank + OVERSAMPLING
    start = torch.randn(delta.shape[1], width, generator=generator, dtype=torch.float64)
    q = torch.linalg.qr(delta @ start).Q
    for _ in range(ITERATIONS):
        q = torch.linalg.qr(delta @ torch.linalg.qr(delta.T @ q).Q).Q
    u, values, vh = torch.linalg.svd(q.T @ delta, full_matrices=False)
    return _pair(q @ u[:, :rank], values[:rank], vh[:rank])


def _pair(u: torch.Tensor, values: torch.Tensor, vh: torch.Tensor) -> Pair:
    import torch

    largest = u.abs().argmax(dim=0)
    sign = torch.where(u[largest, torch.arange(u.shape[1])] < 0, -1.0, 1.0).to(torch.float64)
    root = values.sqrt() * sign
    return Pair(u * root, root[:, None] * vh, tuple(float(value) for value in values))
