"""The buffers of one thread, made once: allocating a tensor per step would cost more than the arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsoup.tensors import DType

if TYPE_CHECKING:
    import torch

SLICE_ELEMENTS = 1 << 18
ROWS_ELEMENTS = 1 << 20
_REMEMBERED_VIEWS = 64


def scratch_nbytes(checkpoints: int, *, measured: bool) -> int:
    """Bytes of one thread's buffers for a plan over so many checkpoints."""
    rows = min(SLICE_ELEMENTS, _measured_elements(checkpoints)) * checkpoints if measured else 0
    return 8 * (4 * SLICE_ELEMENTS + rows)


def _measured_elements(checkpoints: int) -> int:
    return int(max(4096, 1 << (ROWS_ELEMENTS // (checkpoints + 2)).bit_length() - 1))


class Scratch:
    """The buffers of one thread, made once: raw bytes, float64 rows, the rounded output of a run."""

    def __init__(self, checkpoints: int, slice_elements: int = SLICE_ELEMENTS) -> None:
        import torch

        self.slice_elements = slice_elements
        self.raw = torch.empty(slice_elements * 8, dtype=torch.uint8)
        self.raw_bytes = self.raw.numpy().data
        self.out = torch.empty(slice_elements * 8, dtype=torch.uint8)
        self.out_bytes = self.out.numpy().data
        self.acc = torch.empty(slice_elements, dtype=torch.float64)
        self.product = torch.empty(slice_elements, dtype=torch.float64)
        self._checkpoints = checkpoints
        self._rows: torch.Tensor | None = None
        self._views: dict[tuple[str, str, int], torch.Tensor] = {}
        self.measured_elements = min(slice_elements, _measured_elements(checkpoints))

    def rows(self) -> torch.Tensor:
        """One float64 row of a slice per checkpoint; made when the first run asks for distances."""
        import torch

        if self._rows is None:
            self._rows = torch.empty(self._checkpoints, self.measured_elements, dtype=torch.float64)
        return self._rows

    def typed(self, dtype: DType, count: int) -> torch.Tensor:
        """`count` elements of `dtype` over the raw buffer."""
        return self._view("raw", self.raw, dtype, count)

    def typed_out(self, dtype: DType, count: int) -> torch.Tensor:
        """`count` elements of `dtype` over the output buffer."""
        return self._view("out", self.out, dtype, count)

    def _view(self, name: str, buffer: torch.Tensor, dtype: DType, count: int) -> torch.Tensor:
        """A view, remembered: models have thousands of tensors and few sizes."""
        key = (name, dtype.name, count)
        found = self._views.get(key)
        if found is None:
            if len(self._views) == _REMEMBERED_VIEWS:
                self._views.clear()
            found = self._views[key] = buffer[: count * dtype.itemsize].view(dtype.torch)
        return found
