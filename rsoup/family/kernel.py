"""One piece of a tensor across checkpoints: stored bits for what changed, float64 for the inner products.

Slices are as large as the processor's caches bear: below that the calls, not the arithmetic, take the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from rsoup.backends import Array, Backend
from rsoup.errors import TargetError
from rsoup.gram import finite_products
from rsoup.storage.protocols import Source
from rsoup.tensors import DTYPES, DType

if TYPE_CHECKING:
    import numpy as np

    Ints = np.ndarray[Any, np.dtype[Any]]

SLICE_ELEMENTS = 1 << 17
_ROWS_ELEMENTS = 1 << 20
_REMEMBERED_VIEWS = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements [start, stop) of a tensor."""

    name: str
    start: int
    stop: int


@dataclass(slots=True)
class Sum:
    """The sums over the slices of a piece, or over the pieces of a tensor."""

    products: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # changed…, unique…, moved, shared, conflicts
    apart: list[int] = field(default_factory=list)  # elements that rounding does not explain
    nonfinite: list[int] = field(default_factory=list)
    carried: int = 0

    def add(self, other: Sum) -> None:
        """Add what comes next."""
        self.products = _added(self.products, other.products)
        self.counts = _added(self.counts, other.counts)
        self.apart = _added(self.apart, other.apart)
        self.nonfinite = _added(self.nonfinite, other.nonfinite)
        self.carried += other.carried


_Number = TypeVar("_Number", int, float)


def _added(one: list[_Number], other: list[_Number]) -> list[_Number]:
    return [a + b for a, b in zip(one, other, strict=True)] if one and other else one or other


@dataclass(frozen=True, slots=True)
class Views:
    """A thread's buffers as the rows of one slice: one row per checkpoint, the reference's last."""

    typed: Array | None  # the stored elements; None for what is no float
    rows: Array  # float64
    bits: Ints  # the stored elements as signed integers of their size
    keys: Ints  # as many integers three times: a mask, the highest, the lowest
    flags: Ints
    sums: Ints


class Kernel:
    """The buffers of one thread, made once, and the loop over a piece of a tensor."""

    def __init__(self, sources: Sequence[Source], backend: Backend, *, moved: bool) -> None:
        self.sources, self.backend, self.moved = sources, backend, moved
        size = len(sources)
        self.step = max(4096, min(SLICE_ELEMENTS, 1 << (_ROWS_ELEMENTS // size).bit_length() - 1))
        try:
            self.raw = backend.buffer(size * self.step * 8)
            self.rows = backend.doubles(size * self.step)
            self.keys = backend.buffer(3 * self.step * 8)
            self.flags = backend.buffer((size + 1) * self.step)
            self.sums = backend.buffer(self.step * (1 if size < 256 else 2))
        except (RuntimeError, MemoryError) as error:  # torch says RuntimeError
            message = "there is not enough memory for a thread's buffers"
            raise TargetError("E0608", message, hint="fewer threads need less: --threads 1") from error
        self.raw_bytes, self.key_bytes = backend.data(self.raw), backend.data(self.keys)
        self._views: dict[tuple[str, int], Views] = {}

    def piece(self, piece: Piece) -> Sum:
        """Everything about the elements of a piece."""
        dtypes = [source.header[piece.name].dtype for source in self.sources]
        total = Sum()
        with self.backend.quiet():
            for start in range(piece.start, piece.stop, self.step):
                total.add(self._slice(piece.name, dtypes, start, min(self.step, piece.stop - start)))
        return total

    def _slice(self, name: str, dtypes: Sequence[DType], start: int, count: int) -> Sum:
        result = Sum()
        alike = len(set(dtypes)) == 1
        stored = dtypes[0] if alike else DTYPES["F64"]
        views = self._view(stored, count)
        for row, (source, dtype) in enumerate(zip(self.sources, dtypes, strict=True)):
            size = count * dtype.itemsize
            if alike:
                source.read(name, start * dtype.itemsize, self.raw_bytes[row * size : (row + 1) * size])
            else:  # all are widened, which changes no value
                assert views.typed is not None
                source.read(name, start * dtype.itemsize, self.key_bytes[:size])
                self.backend.widen(dtype, self.backend.view(self.keys[:size], dtype), views.typed[row])
        if views.typed is not None:
            rows = views.rows
            self._fill(rows, views.typed, stored)
            if self.moved and not alike:
                result.apart = [self._apart(row, rows[-1], dtype, dtypes[-1]) for row, dtype in zip(rows[:-1], dtypes[:-1], strict=True)]  # fmt: skip
            rows[:-1] -= rows[-1]
            result.products = self.backend.products(rows)
            if not math.isfinite(sum(result.products)):
                self._set_aside(views, stored, result)
        if self.moved or views.typed is None:  # last, as it may turn the stored bits over
            result.counts = counts(views, signed=views.typed is not None)
        return result

    def _fill(self, rows: Array, typed: Array, dtype: DType) -> None:
        for row, stored in zip(rows, typed, strict=True):
            self.backend.widen(dtype, stored, row)

    def _set_aside(self, views: Views, dtype: DType, result: Sum) -> None:
        """Count what is not finite, and take the products without it."""
        assert views.typed is not None
        import numpy as np

        rows = views.rows
        self._fill(rows, views.typed, dtype)
        bad = ~self.backend.finite(rows)
        result.nonfinite = bad.sum(1).tolist()
        carried = np.asarray(bad[-1]) & (views.bits == views.bits[-1]).all(0)
        result.carried = int(carried.sum())
        rows[:-1] -= rows[-1]
        result.products = finite_products(self.backend, rows)

    def _apart(self, one: Array, reference: Array, a: DType, b: DType) -> int:
        """The number of elements that differ even when both are rounded to the narrower dtype of the two."""
        narrow = min(a, b, key=lambda dtype: (dtype.significand_bits, dtype.maximum))
        sides = [self._rounded(side, narrow) for side in (one, reference)]
        return int((sides[0] != sides[1]).sum())

    def _rounded(self, values: Array, dtype: DType) -> Array:
        stored = self.backend.view(self.backend.buffer(len(values) * dtype.itemsize), dtype)
        wide = self.backend.doubles(len(values))
        self.backend.narrow(dtype, values, stored)
        self.backend.widen(dtype, stored, wide)
        return wide

    def _view(self, dtype: DType, count: int) -> Views:
        """The buffers as this many elements of this dtype; remembered: models have few sizes."""
        import numpy as np

        found = self._views.get((dtype.name, count))
        if found is None:
            if len(self._views) == _REMEMBERED_VIEWS:
                self._views.clear()
            size, integer = len(self.sources), np.dtype(f"i{dtype.itemsize}")
            raw = self.raw[: size * count * dtype.itemsize]
            keys = self.keys[: 3 * count * dtype.itemsize]
            sums = np.asarray(self.sums).view(np.uint8 if size < 256 else np.int16)
            found = self._views[dtype.name, count] = Views(
                self.backend.view(raw, dtype).reshape(size, count) if dtype.kind == "float" else None,
                self.rows[: size * count].reshape(size, count),
                np.asarray(raw).view(integer).reshape(size, count),
                np.asarray(keys).view(integer).reshape(3, count),
                np.asarray(self.flags[: (size + 1) * count]).view(np.bool_).reshape(size + 1, count),
                sums[:count],
            )
        return found


def counts(views: Views, *, signed: bool) -> list[int]:
    """[changed…, unique…, moved, shared, conflicts] against the last row, by the stored bits.

    The direction of a change is that of IEEE 754's total order, in which −0 comes before +0: with a negative
    reference all numbers have the order of their bits once all but the sign are turned over.
    """
    import numpy as np

    bits, flags, sums = views.bits, views.flags, views.sums
    *others, reference = bits
    size = len(others)
    differs = flags[:size]
    np.not_equal(bits[:-1], reference, out=differs)
    changed = [int(np.count_nonzero(row)) for row in differs]
    if size < 2 or not any(changed):
        return [*changed, *changed, *(changed or [0]) * 2, 0] if size < 2 else [0] * (2 * size + 3)
    np.add.reduce(differs.view(np.uint8), axis=0, dtype=sums.dtype, out=sums)
    once, moved = flags[size], int(np.count_nonzero(sums))
    shared = int(np.count_nonzero(np.equal(sums, size, out=once)))
    np.equal(sums, 1, out=once)
    np.logical_and(differs, once, out=differs)
    unique = [int(np.count_nonzero(row)) for row in differs]
    conflicts = 0
    if signed and moved > sum(unique):
        mask, high, low = views.keys
        np.right_shift(reference, 8 * bits.itemsize - 1, out=mask)
        np.bitwise_and(mask, np.iinfo(bits.dtype).max, out=mask)
        turned = np.bitwise_xor(bits, mask, out=bits)  # in place: these bits are needed no more
        np.maximum.reduce(turned[:-1], axis=0, out=high)
        np.minimum.reduce(turned[:-1], axis=0, out=low)
        np.greater(high, turned[-1], out=differs[0])
        np.less(low, turned[-1], out=differs[1])
        conflicts = int(np.count_nonzero(np.logical_and(differs[0], differs[1], out=once)))
    return [*changed, *unique, moved, shared, conflicts]
