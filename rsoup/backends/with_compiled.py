"""The arithmetic in compiled passes (compiled.c): an installation that found a C compiler has them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from rsoup.backends.passes import CODES, VERSION, Gather, GatherMix, Kind, Row
from rsoup.backends.with_numpy import NumpyBackend
from rsoup.tensors import DType

_passes: Final[Any] = import_module("rsoup.backends.compiled")
if getattr(_passes, "VERSION", None) != VERSION:
    message = "these compiled passes are of another version of rsoup"
    raise ImportError(message)


class CompiledBackend(NumpyBackend):
    """See `Backend`. One pass where NumPy makes several; float8, and counts over very many rows, are left to NumPy."""

    name: Kind = "compiled"
    gather: Gather | None = staticmethod(_passes.gather)
    gather_mix: GatherMix | None = staticmethod(_passes.gather_mix)

    def mix(
        self,
        rows: Sequence[Row],
        coefficients: Sequence[float],
        dtype: DType,
        out: memoryview,
        *,
        measured: bool = False,
    ) -> tuple[float, float]:
        """out = Σ cᵢ·xᵢ, rounded once."""
        codes = _codes(rows)
        if codes is None or dtype.name not in CODES:
            return super().mix(rows, coefficients, dtype, out, measured=measured)
        data, code = [row[1] for row in rows], CODES[dtype.name]
        found: tuple[float, float] = _passes.mix(codes, data, list(coefficients), code, out, measured)
        return found

    def largest(self, row: Row) -> float:
        """The largest magnitude."""
        codes = _codes([row])
        if codes is None:
            return super().largest(row)
        found: float = _passes.largest(codes, [row[1]])
        return found

    def products(self, rows: Sequence[Row]) -> list[float]:
        """⟨rᵢ, rⱼ⟩ for i ≤ j."""
        codes = _codes(rows)
        if codes is None:
            return super().products(rows)
        found: list[float] = _passes.products(codes, [row[1] for row in rows])
        return found

    def counts(self, rows: Sequence[memoryview], itemsize: int, *, signed: bool) -> list[int]:
        """What changed, by the bits."""
        if not 2 <= len(rows) <= 255:
            return super().counts(rows, itemsize, signed=signed)
        found: list[int] = _passes.counts(itemsize, list(rows))
        return found if signed else [*found[:-1], 0]


def _codes(rows: Sequence[Row]) -> bytes | None:
    try:
        return bytes([CODES[dtype.name] for dtype, _ in rows])
    except KeyError:
        return None
