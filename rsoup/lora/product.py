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


class Product:
    """L·R for a fixed R (rank × columns, float64), any rows of it at a time."""

    def __init__(self, right: torch.Tensor) -> None:
        import torch

        self.bits = part_bits(right.shape[0])
        self._high, low = parts(right, 0, self.bits)
        self._mixed = torch.cat([low, self._high])

    def rows(self, left: torch.Tensor, start: int, stop: int, out: torch.Tensor, spare: torch.Tensor) -> None:
        """out ← left · R[:, start:stop]; `left` is n × rank, `out` and `spare` are n × (stop − start), all float64."""
        import torch

        high, low = parts(left, 1, self.bits)
        torch.mm(high, self._high[:, start:stop], out=out)
        torch.mm(torch.cat([high, low], dim=1), self._mixed[:, start:stop], out=spare)
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
