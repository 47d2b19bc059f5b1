"""The buffers of one thread, made once: allocating an array per step would cost more than the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.backends import Backend

SLICE_ELEMENTS = 1 << 18
"""Elements of a slice, unless there are many checkpoints: with smaller ones, threads wait for the interpreter's lock."""

STRETCH_NBYTES = 1 << 21
"""Bytes of a stretch of the soup, where its rows need not be kept: whole chunks, and more for the disk at a time."""

_ALL_ELEMENTS = 1 << 21
_LINE = 64
_APART = 3 * _LINE  # rows that lie a power of two apart would fight for the same lines of the cache


def slice_elements(checkpoints: int) -> int:
    """Elements of a slice of so many checkpoints: it depends on nothing else, so sums over slices do not either."""
    return min(SLICE_ELEMENTS, max(4096, 1 << (_ALL_ELEMENTS // (checkpoints + 2)).bit_length() - 1))


def scratch_nbytes(checkpoints: int) -> int:
    """Bytes of one thread's buffers for so many checkpoints: of 8-byte elements, fewer of smaller ones."""
    return (checkpoints + 1) * (slice_elements(checkpoints) * 8 + _LINE + _APART) + _LINE


class Scratch:
    """The buffers of one thread, made once: the stored bytes of a slice of every checkpoint, and those of the soup."""

    def __init__(self, checkpoints: int, backend: Backend) -> None:
        import numpy as np

        self.backend = backend
        self.slice_elements = slice_elements(checkpoints)
        space = np.empty(scratch_nbytes(checkpoints), dtype=np.uint8)
        begin = -space.ctypes.data % _LINE
        self._space = space.data[begin:]

    @property
    def raw(self) -> memoryview:
        """All of it, for bytes that are only passed on."""
        return self._space

    def stretch(self) -> tuple[memoryview, memoryview]:
        """(room for a stretch of the soup, room for pieces of the rows), for `Reading.mix`."""
        return self._space[:STRETCH_NBYTES], self._space[STRETCH_NBYTES + _APART :]

    def rows(self, sizes: Sequence[int]) -> list[memoryview]:
        """Buffers of so many bytes, one after the other, each aligned for any dtype."""
        found, at = [], 0
        for size in sizes:
            found.append(self._space[at : at + size])
            at += -(-size // _LINE) * _LINE + _APART
        return found
