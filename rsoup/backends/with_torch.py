"""The arithmetic in torch: a second or two to load, the fastest passes there are without a compiler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch

from rsoup.tensors import DType


class TorchBackend:
    """See `Backend`."""

    name: Final = "torch"

    def quiet(self) -> AbstractContextManager[None]:
        """torch warns of nothing."""
        return nullcontext()

    def buffer(self, nbytes: int) -> Any:
        """So many uninitialised bytes."""
        return torch.empty(nbytes, dtype=torch.uint8)

    def doubles(self, *shape: int) -> Any:
        """An uninitialised array of float64."""
        return torch.empty(shape, dtype=torch.float64)

    def data(self, array: Any) -> memoryview:
        """The memory of an array of bytes."""
        found: memoryview = array.numpy().data
        return found

    def view(self, buffer: Any, dtype: DType) -> Any:
        """The stored elements."""
        return buffer.view(dtype.torch)

    def widen(self, dtype: DType, stored: Any, out: Any) -> None:  # noqa: ARG002 - the array knows
        """Stored elements → float64."""
        out.copy_(stored)

    def narrow(self, dtype: DType, values: Any, out: Any) -> None:  # noqa: ARG002 - the array knows
        """float64 → float32 → stored elements: torch's own conversion."""
        out.copy_(values)

    def multiply(self, values: Any, factor: float, out: Any) -> None:
        """values·factor."""
        torch.mul(values, factor, out=out)

    def finite(self, values: Any) -> Any:
        """Which elements are neither NaN nor infinite."""
        return values.isfinite()

    def same_bits(self, one: Any, other: Any) -> Any:
        """Which elements are equal to the bit."""
        return one.view(torch.int64) == other.view(torch.int64)

    def indices(self, mask: Any) -> Any:
        """Where a mask is true."""
        return mask.nonzero().flatten()

    def extremes(self, values: Any) -> tuple[float, float]:
        """(lowest, highest)."""
        low, high = torch.aminmax(values)
        return low.item(), high.item()

    def square(self, values: Any) -> float:
        """⟨v, v⟩."""
        return torch.dot(values, values).item()

    def products(self, rows: Any) -> list[float]:
        """⟨rᵢ, rⱼ⟩ for i ≤ j: matrix times vector, the fastest of six ways."""
        return [value for i in range(len(rows)) for value in torch.mv(rows[i:], rows[i]).tolist()]
