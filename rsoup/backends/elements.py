"""Stored elements and float64: widened exactly, rounded once. NumPy, for what is not in the inner loop as well."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

from rsoup.backends.passes import Row
from rsoup.tensors import DType

Doubles = np.ndarray[Any, np.dtype[np.float64]]

_PIECE: Final = 1 << 14  # elements whose passes stay in the processor's second cache
_STORED: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def typed(dtype: DType, data: memoryview) -> Any:
    """The stored elements; what NumPy has no dtype for as unsigned integers of its size."""
    return np.frombuffer(data, _STORED.get(dtype.name, f"<u{dtype.itemsize}"))


def widened(row: Row) -> Doubles:
    """Stored elements as float64."""
    dtype, data = row
    out = np.empty(len(data) // dtype.itemsize)
    widen(dtype, typed(dtype, data), out)
    return out


@np.errstate(all="ignore")
def widen(dtype: DType, stored: Any, out: Doubles) -> None:
    """Stored elements → float64, exactly."""
    if dtype.name == "BF16":
        single = np.empty(min(_PIECE, len(stored)), dtype=np.float32)
        for start in range(0, len(stored), _PIECE):
            part = single[: min(_PIECE, len(stored) - start)]
            bits = part.view(np.uint32)
            np.copyto(bits, stored[start : start + _PIECE])
            np.left_shift(bits, 16, out=bits)
            np.copyto(out[start : start + _PIECE], part)
    elif dtype.bits == 8:
        np.take(_values(dtype.name), stored, out=out, mode="clip")
    else:
        np.copyto(out, stored)


@np.errstate(all="ignore")  # what is too large is looked for elsewhere
def narrow(dtype: DType, values: Doubles, out: Any) -> None:
    """float64 → float32 → stored elements, each to the nearest, ties to even (rsoup-arith/1); NaN stays NaN.

    What is too large for the dtype may become anything.
    """
    if dtype.name in ("F64", "F32"):
        np.copyto(out, values, casting="same_kind")
    elif dtype.bits == 8:
        _to_fp8(dtype, values, out)
    else:
        single = np.empty(min(_PIECE, len(values)), dtype=np.float32)
        for start in range(0, len(values), _PIECE):
            part = single[: min(_PIECE, len(values) - start)]
            np.copyto(part, values[start : start + _PIECE], casting="same_kind")
            _halve(dtype, part, out[start : start + _PIECE])


def _halve(dtype: DType, single: Any, out: Any) -> None:
    if dtype.name == "F16":
        np.copyto(out, single, casting="same_kind")
        return
    bits = single.view(np.uint32)  # BF16 is the upper half, rounded
    odd = np.right_shift(bits, 16)
    np.bitwise_and(odd, 1, out=odd)
    np.add(odd, 0x7FFF, out=odd)
    nan = np.isnan(single) if np.isnan(single.max()) else None
    np.add(bits, odd, out=bits)
    np.right_shift(bits, 16, out=bits)
    np.copyto(out, bits, casting="unsafe")
    if nan is not None:
        out[nan] = 0x7FC0  # rounding would carry over into the sign


def _to_fp8(dtype: DType, values: Doubles, out: Any) -> None:
    import torch

    single = torch.from_numpy(np.ascontiguousarray(values)).to(torch.float32)
    np.copyto(out, single.to(dtype.torch).view(torch.uint8).numpy())


@cache
def _values(name: str) -> Doubles:
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
