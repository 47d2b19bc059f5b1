"""A checkpoint some of whose tensors are made as they are read, in float64, a few rows at a time."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from rsoup.lora.effective import Factors
from rsoup.lora.placed import Placed
from rsoup.storage.protocols import Source
from rsoup.storage.views import View

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 18  # elements that are made at once: enough rows for a product to be worth its call


class Chunked(View, ABC):
    """A View whose children make tensors: `width` says how many elements a row has, `fill` makes whole rows of them."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._spare = threading.local()

    @abstractmethod
    def width(self, tensor: str) -> int:
        """Elements of one row of a tensor that is made; 1 where rows mean nothing."""

    @abstractmethod
    def fill(self, tensor: str, begin: int, out: torch.Tensor) -> None:
        """Make the elements from `begin` on: whole rows, or a piece of one that is very long."""

    def read_made(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with float64 elements of a tensor that is made, from byte `start` on."""
        import torch

        if start < 0 or start % 8 or len(buffer) % 8 or start + len(buffer) > self.header[tensor].nbytes:
            msg = f"bytes {start} to {start + len(buffer)} are not all in {tensor}, or no whole elements"
            raise ValueError(msg)
        out = torch.frombuffer(buffer, dtype=torch.float64) if len(buffer) else torch.empty(0)
        begin, end = start // 8, start // 8 + len(out)
        at = begin
        while at < end:
            first, chunk = self._chunk(tensor, at)
            count = min(first + len(chunk) - at, end - at)
            out[at - begin : at - begin + count] = chunk[at - first : at - first + count]
            at += count

    def _chunk(self, tensor: str, at: int) -> tuple[int, torch.Tensor]:
        """(first element, elements) of the whole rows around element `at`, or of a piece of one that is very long.

        This thread keeps the last ones: slices come in order, and a product of few rows is not worth its call.
        """
        kept: tuple[str, int, torch.Tensor] | None = getattr(self._spare, "chunk", None)
        if kept is not None and kept[0] == tensor and kept[1] <= at < kept[1] + len(kept[2]):
            return kept[1:]
        self._spare.chunk = None
        width = self.width(tensor)
        start = at // width * width if width > _CHUNK else 0
        step = _CHUNK // width * width if width <= _CHUNK else _CHUNK
        begin = start + (at - start) // step * step
        end = min(begin + step, start + width if width > _CHUNK else self.header[tensor].numel)
        out = self.buffer("out", end - begin)
        self.fill(tensor, begin, out)
        self._spare.chunk = (tensor, begin, out)
        return begin, out

    def below(self, tensor: str, begin: int, out: torch.Tensor) -> None:
        """Put the elements of what lies below into `out`, from `begin` on, widened."""
        import torch

        dtype = self.source.header[tensor].dtype
        raw = self._bytes(len(out) * dtype.itemsize)
        self.source.read(tensor, begin * dtype.itemsize, raw)
        out.copy_(torch.frombuffer(raw, dtype=dtype.torch))

    def _bytes(self, size: int) -> memoryview:
        """Bytes of this thread's own, made once and again only where they are too few."""
        found: bytearray | None = getattr(self._spare, "raw", None)
        if found is None or len(found) < size:
            found = self._spare.raw = bytearray(size)
        return memoryview(found)[:size]

    def buffer(self, name: str, size: int) -> torch.Tensor:
        """Float64 numbers of this thread's own, made once and again only where they are too few."""
        import torch

        found: torch.Tensor | None = getattr(self._spare, name, None)
        if found is None or len(found) < size:
            found = torch.empty(size, dtype=torch.float64)
            setattr(self._spare, name, found)
        return found[:size]

    def add_update(self, where: Placed, factors: Factors, begin: int, out: torch.Tensor) -> None:
        """Add an update to elements that are whole rows, or a piece of one, from `begin` on."""
        at, end = begin, begin + len(out)
        while at < end:
            row, column = divmod(at, where.columns)
            expert, inside = divmod(row, where.rows)
            rows = max(1, min((end - at) // where.columns, where.rows - inside))
            columns = slice(column, min(where.columns, column + end - at))
            count = rows * (columns.stop - column)
            first = where.first + inside
            target = out[at - begin : at - begin + count].view(rows, -1)
            self._add_rows(factors, where.expert + expert, slice(first, first + rows), columns, target)
            at += count

    def _add_rows(
        self, factors: Factors, expert: int, rows: slice, columns: slice, target: torch.Tensor
    ) -> None:
        delta = self.buffer("delta", target.numel()).view(target.shape)
        spare = self.buffer("spare", target.numel()).view(target.shape)
        factors.products[expert].rows(rows, columns, delta, spare)
        target.add_(delta if factors.scaling == 1.0 else delta.mul_(factors.scaling))
        if factors.row_scale is not None:
            target.mul_(factors.row_scale[rows, None])
        if factors.column_scale is not None:
            target.mul_(factors.column_scale[None, columns])
