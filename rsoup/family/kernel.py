"""One piece of a tensor across checkpoints: stored bits for what changed, float64 for the inner products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from rsoup.backends import Backend, Row
from rsoup.gram import finite_products, without
from rsoup.reading import Reading
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Source
from rsoup.tensors import DType
from rsoup.workers import no_memory

if TYPE_CHECKING:
    from rsoup.backends.elements import Doubles


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


class Kernel:
    """The buffers of one thread, made once, and the loop over a piece of a tensor."""

    def __init__(self, sources: Sequence[Source], backend: Backend, *, moved: bool) -> None:
        self.sources, self.backend, self.moved = sources, backend, moved
        try:
            self.scratch = Scratch(len(sources), backend)
        except MemoryError as error:
            raise no_memory("there is not enough memory for a thread's buffers") from error

    def piece(self, piece: Piece) -> Sum:
        """Everything about the elements of a piece."""
        reading = Reading(self.sources, piece.name, piece.stop, self.backend)
        total, step = Sum(), self.scratch.slice_elements
        for start in range(piece.start, piece.stop, step):
            count = min(step, piece.stop - start)
            buffers = self.scratch.rows([count * dtype.itemsize for dtype in reading.dtypes])
            total.add(self._sum(reading.dtypes, reading.rows(start, count, buffers)))
        return total

    def _sum(self, dtypes: Sequence[DType], rows: list[Row]) -> Sum:
        result = Sum()
        floats = dtypes[0].kind == "float"
        if floats:
            if self.moved and len(set(dtypes)) > 1:
                result.apart = [_apart(row, rows[-1]) for row in rows[:-1]]
            result.products = self.backend.products(rows)
            if not math.isfinite(sum(result.products)):
                _set_aside(rows, result)
                result.products = finite_products(self.backend, rows)
        if self.moved or not floats:
            alike = _alike(rows)
            result.counts = self.backend.counts(
                [data for _, data in alike], alike[0][0].itemsize, signed=floats
            )
        return result


def _alike(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows in one dtype: widened, which changes no value, where they are not."""
    return rows if len({dtype for dtype, _ in rows}) == 1 else without(rows, [])


def _set_aside(rows: Sequence[Row], result: Sum) -> None:
    """Count what is not finite, and what is so in every checkpoint to the bit."""
    import numpy as np

    from rsoup.backends.elements import widened

    bad = [~np.isfinite(widened(row)) for row in rows]
    result.nonfinite = [int(np.count_nonzero(row)) for row in bad]
    *others, reference = (np.frombuffer(data, f"<u{dtype.itemsize}") for dtype, data in _alike(rows))
    same = bad[-1]
    for row in others:
        same = same & (row == reference)
    result.carried = int(np.count_nonzero(same))


def _apart(one: Row, reference: Row) -> int:
    """The number of elements that differ even when both are rounded to the narrower dtype of the two."""
    import numpy as np

    narrower = min(one[0], reference[0], key=lambda dtype: (dtype.significand_bits, dtype.maximum))
    return int(np.count_nonzero(_rounded(one, narrower) != _rounded(reference, narrower)))


def _rounded(row: Row, dtype: DType) -> Doubles:
    from rsoup.backends.elements import narrow, typed, widened

    wide = widened(row)
    stored = memoryview(bytearray(len(wide) * dtype.itemsize))
    narrow(dtype, wide, typed(dtype, stored))
    return widened((dtype, stored))
