"""The arithmetic in NumPy: loaded in a tenth of a second, somewhat slower for each element."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Final

import numpy as np

from rsoup.tensors import DType

_Doubles = np.ndarray[Any, np.dtype[np.float64]]
_PIECE: Final = 1 << 15  # elements whose passes stay in the processor's second cache


class NumpyBackend:
    """See `Backend`. Sums are NumPy's own loops, not a BLAS, which would bring threads of its own."""

    name: Final = "numpy"

    def __init__(self) -> None:
        self._single = np.empty(_PIECE, dtype=np.float32)
        self._odd = np.empty(_PIECE, dtype=np.uint32)

    def quiet(self) -> AbstractContextManager[None]:
        """No warnings of what is looked for anyway."""
        return np.errstate(all="ignore")

    def buffer(self, nbytes: int) -> Any:
        """So many uninitialised bytes."""
        return np.empty(nbytes, dtype=np.uint8)

    def doubles(self, *shape: int) -> Any:
        """An uninitialised array of float64."""
        return np.empty(shape)

    def data(self, array: Any) -> memoryview:
        """The memory of an array of bytes."""
        found: memoryview = array.data
        return found

    def view(self, buffer: Any, dtype: DType) -> Any:
        """The stored elements; what NumPy has no dtype for as unsigned integers of its size."""
        return buffer.view(_STORED.get(dtype.name, f"<u{dtype.itemsize}"))

    def widen(self, dtype: DType, stored: Any, out: Any) -> None:
        """Stored elements → float64."""
        if dtype.name == "BF16":
            for start in range(0, len(stored), _PIECE):
                single = self._single[: min(_PIECE, len(stored) - start)]
                bits = single.view(np.uint32)
                np.copyto(bits, stored[start : start + _PIECE])
                np.left_shift(bits, 16, out=bits)
                np.copyto(out[start : start + _PIECE], single)
        elif dtype.bits == 8:
            np.take(_values(dtype.name), stored, out=out, mode="clip")
        else:
            np.copyto(out, stored)

    def narrow(self, dtype: DType, values: Any, out: Any) -> None:
        """float64 → float32 → stored elements."""
        if dtype.name in ("F64", "F32"):
            np.copyto(out, values, casting="same_kind")
        elif dtype.bits == 8:
            _to_fp8(dtype, values, out)
        else:
            for start in range(0, len(values), _PIECE):
                single = self._single[: min(_PIECE, len(values) - start)]
                np.copyto(single, values[start : start + _PIECE], casting="same_kind")
                self._halve(dtype, single, out[start : start + _PIECE])

    def _halve(self, dtype: DType, single: Any, out: Any) -> None:
        if dtype.name == "F16":
            np.copyto(out, single, casting="same_kind")
            return
        bits, odd = single.view(np.uint32), self._odd[: len(single)]  # BF16 is the upper half, rounded
        np.right_shift(bits, 16, out=odd)
        np.bitwise_and(odd, 1, out=odd)
        np.add(odd, 0x7FFF, out=odd)
        nan = np.isnan(single) if np.isnan(single.max()) else None
        np.add(bits, odd, out=bits)
        np.right_shift(bits, 16, out=bits)
        np.copyto(out, bits, casting="unsafe")
        if nan is not None:
            out[nan] = 0x7FC0  # rounding would carry over into the sign

    def multiply(self, values: Any, factor: float, out: Any) -> None:
        """values·factor."""
        np.multiply(values, factor, out=out)

    def finite(self, values: Any) -> Any:
        """Which elements are neither NaN nor infinite."""
        return np.isfinite(values)

    def same_bits(self, one: Any, other: Any) -> Any:
        """Which elements are equal to the bit."""
        return one.view(np.int64) == other.view(np.int64)

    def indices(self, mask: Any) -> Any:
        """Where a mask is true."""
        return np.flatnonzero(mask)

    def extremes(self, values: Any) -> tuple[float, float]:
        """(lowest, highest)."""
        return float(values.min()), float(values.max())

    def square(self, values: Any) -> float:
        """⟨v, v⟩."""
        return float(np.einsum("i,i->", values, values))

    def products(self, rows: Any) -> list[float]:
        """⟨rᵢ, rⱼ⟩ for i ≤ j."""
        total = np.zeros(len(rows) * (len(rows) + 1) // 2)
        for start in range(0, rows.shape[1], _PIECE):
            part = rows[:, start : start + _PIECE]
            total += np.concatenate([np.einsum("ij,j->i", part[i:], part[i]) for i in range(len(part))])
        found: list[float] = total.tolist()
        return found


_STORED: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def _to_fp8(dtype: DType, values: Any, out: Any) -> None:
    import torch

    single = torch.from_numpy(np.ascontiguousarray(values)).to(torch.float32)
    np.copyto(out, single.to(dtype.torch).view(torch.uint8).numpy())


@cache
def _values(name: str) -> _Doubles:
    """The value of each of the 256 codes of an fp8 format."""
    mantissa_bits, bias, largest = (3, 7, 126) if name == "F8_E4M3" else (2, 15, 123)
    codes = np.arange(128)
    exponent, mantissa = codes >> mantissa_bits, codes & ((1 << mantissa_bits) - 1)
    hidden = np.where(exponent > 0, 1 << mantissa_bits, 0)
    sizes = np.ldexp((hidden + mantissa).astype(np.float64), np.maximum(exponent, 1) - bias - mantissa_bits)
    sizes[largest + 1 :] = np.nan
    if name == "F8_E5M2":
        sizes[largest + 1] = np.inf
    return np.concatenate([sizes, -sizes])
