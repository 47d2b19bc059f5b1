"""What computes: NumPy for what is small, torch for what is large; the same bits of the same elements."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final, Literal, Protocol

from rsoup.tensors import DType

Kind = Literal["numpy", "torch"]

Array = Any
"""A backend's own array: `numpy.ndarray` or `torch.Tensor`. Indexing, `==`, `&`, `|`, `~` and in-place operators are alike."""

LARGE_NBYTES: Final = 1 << 30
"""From so many bytes on that are read, torch's faster passes are worth the second or two of its import."""


class Backend(Protocol):
    """Passes over runs of elements, none of which mixes elements except the sums; no threads of its own."""

    @property
    def name(self) -> Kind:
        """Which of them it is."""

    def quiet(self) -> AbstractContextManager[None]:
        """No warnings of overflow or NaN, which are looked for anyway."""

    def buffer(self, nbytes: int) -> Array:
        """So many uninitialised bytes. Raises MemoryError or RuntimeError."""

    def doubles(self, *shape: int) -> Array:
        """An uninitialised array of float64. Raises MemoryError or RuntimeError."""

    def data(self, array: Array) -> memoryview:
        """The memory of a one-dimensional array of bytes."""

    def view(self, buffer: Array, dtype: DType) -> Array:
        """The stored elements in a buffer of bytes."""

    def widen(self, dtype: DType, stored: Array, out: Array) -> None:
        """Stored elements → float64, exactly."""

    def narrow(self, dtype: DType, values: Array, out: Array) -> None:
        """float64 → float32 → stored elements, each to the nearest, ties to even (rsoup-arith/1); NaN stays NaN.

        What is too large for the dtype may become anything.
        """

    def multiply(self, values: Array, factor: float, out: Array) -> None:
        """values·factor."""

    def finite(self, values: Array) -> Array:
        """Which float64 elements are neither NaN nor infinite."""

    def same_bits(self, one: Array, other: Array) -> Array:
        """Which float64 elements are equal to the bit, NaN too."""

    def indices(self, mask: Array) -> Array:
        """Where a mask is true, ascending."""

    def extremes(self, values: Array) -> tuple[float, float]:
        """(lowest, highest); NaN where there is any."""

    def square(self, values: Array) -> float:
        """⟨v, v⟩ of float64."""

    def products(self, rows: Array) -> list[float]:
        """⟨rᵢ, rⱼ⟩ for i ≤ j of `rows` (k, n) float64 → k(k+1)/2 floats, row by row of the upper triangle."""


SLICE_ELEMENTS: Final = {"numpy": 1 << 16, "torch": 1 << 18}
"""As many as the caches bear and the calls ask for: one into torch costs two to three microseconds."""


def kind_for(nbytes: int) -> Kind:
    """Who computes when so many bytes are read: it depends on nothing else, so the last digits of sums do not either."""
    return "numpy" if nbytes < LARGE_NBYTES else "torch"


def make(kind: Kind) -> Backend:
    """A backend for one thread."""
    if kind == "numpy":
        from rsoup.backends.with_numpy import NumpyBackend

        return NumpyBackend()
    from rsoup.backends.with_torch import TorchBackend

    return TorchBackend()
