"""The arithmetic in NumPy: what there is everywhere, and what the compiled passes are held to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from rsoup.backends.elements import Doubles, narrow, typed, widen, widened
from rsoup.backends.passes import BLOCK, LANES, Gather, GatherMix, Kind, Row
from rsoup.tensors import DType

_SUM_PIECE: Final = 1 << 14  # elements whose sum stays in the processor's second cache
_PIECE: Final = 8 * BLOCK  # elements whose products with one row stay in the processor's second cache


class NumpyBackend:
    """See `Backend`. Sums are NumPy's own loops, not a BLAS, which would bring threads and an order of its own."""

    name: Kind = "numpy"
    gather: Gather | None = None
    gather_mix: GatherMix | None = None

    def __init__(self) -> None:
        self._space: dict[str, Doubles] = {}  # the memory of a new array would cost more than the arithmetic

    def _rows(self, name: str, rows: int, count: int) -> Doubles:
        space = self._space.get(name)
        if space is None or space.size < rows * count:
            space = self._space[name] = np.empty(rows * count)
        return space[: rows * count].reshape(rows, count)

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
        stored = typed(dtype, out)
        inputs = [(kind, typed(kind, data)) for kind, data in rows]
        sums, largest = self._rows("sum", 2, _SUM_PIECE), 0.0
        lost = self._rows("lost", 1, len(stored))[0] if measured else None
        with np.errstate(all="ignore"):
            for start in range(0, len(stored), _SUM_PIECE):
                stop = min(len(stored), start + _SUM_PIECE)
                total, term = sums[:, : stop - start]
                add_up([(kind, row[start:stop]) for kind, row in inputs], coefficients, total, term)
                narrow(dtype, total, stored[start:stop])
                size = _magnitude(total)
                largest = largest if size <= largest or math.isnan(largest) else size
                if lost is not None:
                    widen(dtype, stored[start:stop], term)
                    np.subtract(term, total, out=lost[start:stop])
            return largest, 0.0 if lost is None else self.squares(lost)

    def largest(self, row: Row) -> float:
        """The largest magnitude."""
        with np.errstate(all="ignore"):
            return _magnitude(widened(row))

    def products(self, rows: Sequence[Row]) -> list[float]:
        """⟨rᵢ, rⱼ⟩ for i ≤ j."""
        with np.errstate(all="ignore"):
            count = len(rows[0][1]) // rows[0][0].itemsize
            stored = [(dtype, typed(dtype, data)) for dtype, data in rows]
            space = self._rows("wide", len(rows), _PIECE)

            def part(start: int, stop: int) -> Doubles:
                wide = space[:, : stop - start]
                for values, (dtype, row) in zip(wide, stored, strict=True):
                    widen(dtype, row[start:stop], values)
                wide[:-1] -= wide[-1]
                return wide

            return self._sums(part, count, [(i, slice(i, len(rows))) for i in range(len(rows))])

    def squares(self, values: Doubles) -> float:
        """Σ v², in the order of `BLOCK` and `LANES`."""
        return self._sums(lambda start, stop: values[None, start:stop], len(values), [(0, slice(0, 1))])[0]

    def _sums(
        self, part: Callable[[int, int], Doubles], count: int, pairs: Sequence[tuple[int, slice]]
    ) -> list[float]:
        """Σ of the products of row i with those of a slice, in the order of `BLOCK` and `LANES`."""
        ends = np.cumsum([others.stop - others.start for _, others in pairs]).tolist()
        lanes = np.zeros((ends[-1], LANES))
        for start in range(0, count, _PIECE):
            rows = part(start, min(count, start + _PIECE))
            size = rows.shape[1]
            padded = -(-size // BLOCK) * BLOCK
            for (i, others), begin, end in zip(pairs, [0, *ends[:-1]], ends, strict=True):
                space = self._rows("products", end - begin, _PIECE)
                np.multiply(rows[others], rows[i], out=space[:, :size])
                space[:, size:padded] = 0.0
                blocks = _folded(space[:, :padded].reshape(end - begin, -1, BLOCK), LANES)
                for block in range(blocks.shape[1]):
                    np.add(lanes[begin:end], blocks[:, block], out=lanes[begin:end])
        found: list[float] = _folded(lanes, 1)[:, 0].tolist()
        return found

    def counts(self, rows: Sequence[memoryview], itemsize: int, *, signed: bool) -> list[int]:
        """What changed, by the bits."""
        return _counts([np.frombuffer(row, f"<i{itemsize}") for row in rows], signed=signed)


def add_up(
    rows: Sequence[tuple[DType, Any]], coefficients: Sequence[float], total: Doubles, term: Doubles
) -> None:
    """total = Σ cᵢ·xᵢ of stored elements in float64, one product and one sum after the other; `term` is used up."""
    for i, ((dtype, stored), coefficient) in enumerate(zip(rows, coefficients, strict=True)):
        target = total if i == 0 else term
        widen(dtype, stored, target)
        np.multiply(target, coefficient, out=target)
        if i > 0:
            np.add(total, term, out=total)


def _folded(values: Doubles, size: int) -> Doubles:
    """The last axis, in place, its second half added to its first until `size` are left."""
    while values.shape[-1] > size:
        half = values.shape[-1] // 2
        np.add(values[..., :half], values[..., half:], out=values[..., :half])
        values = values[..., :half]
    return values


def _magnitude(values: Doubles) -> float:
    return max(float(values.max()), -float(values.min())) + 0.0 if len(values) else 0.0


def _counts(bits: Sequence[Any], *, signed: bool) -> list[int]:
    *others, reference = bits
    if not others:
        return [0] * 3
    differs = np.stack([row != reference for row in others])
    changed = [int(np.count_nonzero(row)) for row in differs]
    if not any(changed):
        return [0] * (2 * len(others) + 3)
    many = np.add.reduce(differs, axis=0, dtype=np.uint16)
    once = many == 1
    unique = [int(np.count_nonzero(row & once)) for row in differs]
    moved, shared = int(np.count_nonzero(many)), int(np.count_nonzero(many == len(others)))
    conflicts = 0
    if signed and moved > sum(unique):
        # with a negative reference, numbers have the order of their bits once all but the sign are turned over
        turned = (reference >> (8 * reference.itemsize - 1)) & np.iinfo(reference.dtype).max
        keys = np.stack([row ^ turned for row in others])
        zero = reference ^ turned
        conflicts = int(np.count_nonzero((keys.max(0) > zero) & (keys.min(0) < zero)))
    return [*changed, *unique, moved, shared, conflicts]
