"""The buffers of one thread, made once: allocating an array per step would cost more than the arithmetic."""

from __future__ import annotations

from rsoup.backends import SLICE_ELEMENTS, Array, Backend, kind_for
from rsoup.tensors import DType

ROWS_ELEMENTS = 1 << 20
_REMEMBERED_VIEWS = 64


def scratch_nbytes(checkpoints: int, nbytes: int, *, measured: bool) -> int:
    """Bytes of one thread's buffers for a plan over so many checkpoints, of which so many bytes are read."""
    size = SLICE_ELEMENTS[kind_for(nbytes)]
    rows = min(size, _measured_elements(checkpoints)) * checkpoints if measured else 0
    return 8 * (4 * size + rows)


def _measured_elements(checkpoints: int) -> int:
    return int(max(4096, 1 << (ROWS_ELEMENTS // (checkpoints + 2)).bit_length() - 1))


class Scratch:
    """The buffers of one thread, made once: raw bytes, float64 rows, the rounded output of a run."""

    def __init__(self, checkpoints: int, backend: Backend, slice_elements: int | None = None) -> None:
        self.backend = backend
        self.slice_elements = size = slice_elements or SLICE_ELEMENTS[backend.name]
        self.raw, self.out = backend.buffer(size * 8), backend.buffer(size * 8)
        self.raw_bytes, self.out_bytes = backend.data(self.raw), backend.data(self.out)
        self.acc, self.product = backend.doubles(size), backend.doubles(size)
        self._checkpoints = checkpoints
        self._rows: Array | None = None
        self._views: dict[tuple[str, str, int], Array] = {}
        self.measured_elements = min(size, _measured_elements(checkpoints))

    def rows(self) -> Array:
        """One float64 row of a slice per checkpoint; made when the first run asks for distances."""
        if self._rows is None:
            self._rows = self.backend.doubles(self._checkpoints, self.measured_elements)
        return self._rows

    def typed(self, dtype: DType, count: int) -> Array:
        """`count` elements of `dtype` over the raw buffer."""
        return self._view("raw", self.raw, dtype, count)

    def typed_out(self, dtype: DType, count: int) -> Array:
        """`count` elements of `dtype` over the output buffer."""
        return self._view("out", self.out, dtype, count)

    def _view(self, name: str, buffer: Array, dtype: DType, count: int) -> Array:
        """A view, remembered: models have thousands of tensors and few sizes."""
        key = (name, dtype.name, count)
        found = self._views.get(key)
        if found is None:
            if len(self._views) == _REMEMBERED_VIEWS:
                self._views.clear()
            found = self._views[key] = self.backend.view(buffer[: count * dtype.itemsize], dtype)
        return found
