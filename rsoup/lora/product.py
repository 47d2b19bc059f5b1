"""B·A in float64, the same bits on every processor, for any library, thread count and split into rows or columns.

A matrix product adds up in an order that differs between processors. Here each factor is cut into two numbers
of few enough bits (the first 24 or fewer of a row's or column's largest element, and as many after them) that
all products of parts and all their partial sums are exact in float64; then no order changes them. What is left
out is below rank·2⁻⁴⁴ of (the row's largest element × the column's). Source: Ozaki et al. 2012, Error-free
transformations of matrix multiplication.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


_PREPARED = (
    1 << 20
)  # elements of a left factor whose parts are kept; those of a larger one are made row by row


def part_bits(rank: int) -> int:
    """How many bits each part of an element has, so that 2·rank products of two parts add up exactly."""
    return (53 - max(1, 2 * rank - 1).bit_length()) // 2


def parts(matrix: torch.Tensor, dim: int, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(high, low) of a float64 matrix: high + low is `matrix` up to 2^(−2·bits) of the largest element along `dim`.

    Both are integers of at most `bits` bits times a power of two that all elements along `dim` share.
    """
    import torch

    largest = matrix.abs().amax(dim=dim, keepdim=True)
    _, exponent = torch.frexp(largest)  # largest < 2**exponent
    exponent = torch.where(largest > 0, exponent, torch.ones_like(exponent)).clamp_(min=-900)
    unit = torch.ldexp(torch.ones_like(largest), exponent - bits)
    high = torch.round(matrix / unit) * unit
    small = torch.ldexp(torch.ones_like(largest), exponent - 2 * bits)
    low = torch.round((matrix - high) / small) * small
    return high, low


def balanced(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same product with the largest element of every row of R between ½ and 1: powers of two change sides.

    `parts` cuts a row of L by its largest element, so that columns of L must be of the size their products are.
    """
    import torch

    _, exponent = torch.frexp(right.abs().amax(dim=1))
    exponent = exponent.clamp_(-500, 500)
    return torch.ldexp(left, exponent[None, :]), torch.ldexp(right, -exponent[:, None])


class Product:
    """L·R of float64 factors (rows × rank, rank × columns), any rows and columns of it at a time."""

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        import torch

        left, right = balanced(left, right)
        self._bits = part_bits(right.shape[0])
        self._high, low = parts(right, 0, self._bits)
        self._mixed = torch.cat([low, self._high])
        self._left = left
        self._cut = self._parts(left) if left.numel() <= _PREPARED else None

    def _parts(self, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        high, low = parts(left, 1, self._bits)
        return high, torch.cat([high, low], dim=1)

    def rows(self, rows: slice, columns: slice, out: torch.Tensor, spare: torch.Tensor) -> None:
        """out ← L[rows]·R[:, columns]; `out` and `spare` are float64 of that shape."""
        import torch

        high, both = self._parts(self._left[rows]) if self._cut is None else (c[rows] for c in self._cut)
        torch.mm(high, self._high[:, columns], out=out)
        torch.mm(both, self._mixed[:, columns], out=spare)
        out.add_(spare)


def row_norms(matrix: torch.Tensor) -> torch.Tensor:
    """‖row‖₂ of a float64 matrix, summed in halves: the order is fixed, so that the bits are the same everywhere.

    The matrix is used up.
    """
    matrix.mul_(matrix)
    width = matrix.shape[1]
    while width > 1:
        half = math.ceil(width / 2)
        matrix[:, : width - half].add_(matrix[:, half:width])
        width = half
    return matrix[:, 0].sqrt()
