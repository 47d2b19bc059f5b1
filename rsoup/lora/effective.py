"""The factors of an update as they act on the base: PiSSA's beginnings taken off, DoRA's magnitudes as scales."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsoup.lora.adapter import Adapter
from rsoup.lora.placed import Placed
from rsoup.lora.product import Product, row_norms
from rsoup.storage.protocols import Source

if TYPE_CHECKING:
    import torch

_NORM_ELEMENTS = 1 << 16  # three such pieces fit into a processor's cache


@dataclass(frozen=True, slots=True)
class Factors:
    """θ = g ∘ (θ₀ + `scaling`·product) in the stored orientation, for each expert; all float64.

    `row_scale` or `column_scale` is DoRA's g, along the rows or the columns of the stored matrix.
    """

    products: tuple[Product, ...]
    scaling: float
    row_scale: torch.Tensor | None = None
    column_scale: torch.Tensor | None = None


def factors_of(adapter: Adapter, where: Placed, base: Source) -> Factors:
    """The factors of an update, in the orientation in which the base stores the tensor."""
    pairs = expert_factors(adapter, where, base)
    if where.transposed:
        pairs = [(a.T.contiguous(), b.T.contiguous()) for b, a in pairs]
    return Factors(tuple(Product(left, right) for left, right in pairs), where.update.scaling)


def expert_factors(adapter: Adapter, where: Placed, base: Source) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(B, A) of every expert of an update, with what PiSSA or OLoRA took out of the base subtracted."""
    import torch

    update = where.update
    a, b = adapter.a(update), adapter.b(update)
    if update.experts > 1:
        a3 = a.reshape(update.experts, update.rank, update.columns)
        b3 = b.reshape(update.rows, update.rank, update.experts)
        return [(b3[:, :, e].contiguous(), a3[e]) for e in range(update.experts)]
    init = adapter.began(update)
    if init is None:
        return [(b, a)]
    from rsoup.lora.beginning import beginning

    b0, a0 = beginning(init, matrix(base, where), update.rank, update.scaling)
    return [(torch.cat([b, -b0], dim=1), torch.cat([a, a0]))]


def matrix(base: Source, where: Placed) -> torch.Tensor:
    """The base's tensor as rows × columns of the update's orientation, float64, whole."""
    import torch

    spec = base.header[where.tensor]
    buffer = bytearray(spec.nbytes)
    base.read(where.tensor, 0, memoryview(buffer))
    found = (
        torch.frombuffer(buffer, dtype=spec.dtype.torch).to(torch.float64).reshape(where.rows, where.columns)
    )
    return found.T if where.transposed else found


def magnitudes(adapter: Adapter, where: Placed, base: Source, factors: Factors) -> Factors:
    """The factors with DoRA's g = m / ‖θ₀ + s·B·A‖, the norm taken over the inputs of each output.

    Source: Liu et al. 2024, DoRA, eq. 5; PEFT 0.21, `DoraLinearLayer.get_weight_norm`.
    """
    assert where.update.keys.magnitude is not None
    magnitude = adapter.read(where.update.keys.magnitude).reshape(-1)
    scale = magnitude / adapted_norms(where, base, factors)
    return replace(factors, column_scale=scale) if where.transposed else replace(factors, row_scale=scale)


def adapted_norms(where: Placed, base: Source, factors: Factors | None) -> torch.Tensor:
    """‖θ₀ + s·B·A‖ of every output of a tensor (of θ₀ alone without factors), float64; the base is read in pieces."""
    import torch

    spec = base.header[where.tensor]
    width = where.columns
    step = max(1, _NORM_ELEMENTS // max(width, 1))
    norms: list[torch.Tensor] = []
    total = torch.zeros(width, dtype=torch.float64)
    buffer = bytearray(min(step, where.rows) * width * spec.dtype.itemsize)
    raw = torch.frombuffer(buffer, dtype=spec.dtype.torch).view(-1, width)
    pieces = [torch.empty(raw.shape, dtype=torch.float64) for _ in range(3)]
    for first in range(0, where.rows, step):
        rows = min(step, where.rows - first)
        nbytes = width * spec.dtype.itemsize
        base.read(where.tensor, first * nbytes, memoryview(buffer)[: rows * nbytes])
        piece, delta, spare = (part[:rows] for part in pieces)
        piece.copy_(raw[:rows])
        if factors is not None:
            factors.products[0].rows(slice(first, first + rows), slice(0, width), delta, spare)
            piece.add_(delta.mul_(factors.scaling))
        if not where.transposed:
            norms.append(row_norms(piece))
        else:
            total += row_norms(piece.T.contiguous()).square_()
    return total.sqrt() if where.transposed else torch.cat(norms)
