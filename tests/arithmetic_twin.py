"""The arithmetic rsoup-arith/1 once more, in NumPy alone: what the pot's bytes are held against.

It shares no line with rsoup and none with torch. λ, scale: fractions; weights: (safetensors dtype, bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Weights = tuple[str, bytes]
Doubles = npt.NDArray[np.float64]
PLAIN = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")}


def fp8_table(mantissa_bits: int, bias: int) -> Doubles:
    """The values of the codes 0 … 127 of an fp8 format, the sign bit left out, as if all were finite."""
    codes = np.arange(128)
    exponent, mantissa = codes >> mantissa_bits, (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    normal = (1 + mantissa) * 2.0 ** (exponent - bias)
    return np.asarray(np.where(exponent > 0, normal, mantissa * 2.0 ** (1 - bias)))


FP8 = {"F8_E4M3": fp8_table(3, 7)[:127], "F8_E5M2": fp8_table(2, 15)[:124]}  # the finite codes only


def widen(weights: Weights) -> Doubles:
    """Stored bytes → float64, exactly."""
    dtype, data = weights
    if dtype in PLAIN:
        return np.frombuffer(data, PLAIN[dtype]).astype(np.float64)
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    codes = np.frombuffer(data, np.uint8)
    values = np.append(FP8[dtype], [np.nan] * (128 - len(FP8[dtype])))
    return np.asarray(np.where(codes > 127, -1.0, 1.0) * values[codes & 127])


def narrow(dtype: str, values: Doubles) -> bytes:
    """float64 → float32 → the stored type, each to the nearest, ties to even; NaN where it is too large."""
    if dtype == "F64":
        return values.tobytes()
    single = values.astype(np.float32)
    if dtype in PLAIN:
        return single.astype(PLAIN[dtype]).tobytes()
    if dtype == "BF16":
        bits = single.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    table, size = FP8[dtype], np.abs(single.astype(np.float64))
    low = np.clip(np.searchsorted(table, size, side="right") - 1, 0, len(table) - 2)
    below, above = size - table[low], table[low + 1] - size
    codes = np.where((above < below) | ((above == below) & (low % 2 == 1)), low + 1, low)
    codes[size >= table[-1] + (table[-1] - table[-2]) / 2] = 127  # NaN in both formats
    return (codes + np.where(np.signbit(single), 128, 0)).astype(np.uint8).tobytes()


def coefficients(
    mix: Sequence[Fraction], groups: Sequence[int], scale: Fraction, *, base: bool
) -> list[Fraction]:
    """One factor per checkpoint (groups of so many share their λ evenly), the base's, 1 − s·Σλ, as the last."""
    shares = [scale * share / size for share, size in zip(mix, groups, strict=True) for _ in range(size)]
    return [*shares, 1 - scale * sum(mix)] if base else shares


def soup(factors: Sequence[Fraction], weights: Sequence[Weights], dtype: str) -> bytes:
    """Σ factorᵢ·θᵢ stored as `dtype`: ascending factors, ties in order; fp64, multiply, then add."""
    used = [(factor, i) for i, factor in enumerate(factors) if factor != 0]
    if len(used) == 1 and used[0][0] == 1 and weights[used[0][1]][0] == dtype:
        return weights[used[0][1]][1]
    used.sort(key=lambda item: item[0])
    wide = {i: widen(weights[i]) for _, i in used}
    with np.errstate(all="ignore"):
        total = wide[used[0][1]] * float(used[0][0])
        for factor, i in used[1:]:
            total = total + wide[i] * float(factor)
        if dtype == "F64":
            first = wide[used[0][1]]
            equal = np.all([wide[i] == first for _, i in used], axis=0)
            total = np.where(equal & (sum(factors) == 1), first, total)
        return narrow(dtype, total)
