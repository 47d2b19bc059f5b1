"""Reading the same elements of one tensor from several checkpoints: in one go where they lie in plain files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from xxhash import xxh3_128

from rsoup.backends import Backend, Row
from rsoup.backends.passes import CHUNK_NBYTES, CODES, SHORT_NBYTES, Places
from rsoup.digests import CHUNK_BYTES, ChunkHasher, fingerprint_hasher
from rsoup.errors import RefusedFileError, show
from rsoup.storage.protocols import Source
from rsoup.tensors import DType
from rsoup.workers import StoppedError, go_on, stop_byte

FEW_TENSORS = 8
"""More of them in a block are small ones: what is done for each counts, not their bytes."""

_Found = TypeVar("_Found")


class Reading:
    """The elements of one tensor in several sources up to `stop`: slice by slice, from a chunk's beginning on.

    `dtypes` has the dtype of each of the `sources`. With `fingerprints`, what is read is digested (rsoup-digest/1).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tensor: str,
        stop: int,
        backend: Backend,
        *,
        fingerprints: bool = False,
    ) -> None:
        self.dtypes = [source.header[tensor].dtype for source in sources]
        self.sources, self._tensor, self._stop, self._backend = sources, tensor, stop, backend
        self._places = None if backend.gather is None else _places(sources, tensor)
        self._digests = [b""] * len(sources) if fingerprints else []
        self._hashers: list[ChunkHasher] = []
        self._chunks: bytearray | None = None
        if fingerprints and self._places is None:
            self._hashers = [ChunkHasher(fingerprint_hasher) for _ in sources]
        elif fingerprints:
            self._chunks = bytearray(CHUNK_NBYTES * len(sources))

    def rows(self, start: int, count: int, buffers: list[memoryview]) -> list[Row]:
        """Fill `buffers` with `count` elements from `start` on. Raises StoppedError, and what the sources raise."""
        gather, places, last = self._backend.gather, self._places, start + count == self._stop
        if gather is None or places is None:
            self._one_by_one(start, buffers)
            for hasher, data in zip(self._hashers, buffers, strict=False):
                hasher.update(data)
        else:
            stop, sizes = stop_byte(), bytes([dtype.itemsize for dtype in self.dtypes])
            found = self._at_once(
                start, count, lambda: gather(stop, places, start, count, self._chunks, last, sizes, buffers)
            )
            self._keep(found, last)
        return list(zip(self.dtypes, buffers, strict=True))

    @property
    def mixes(self) -> bool:
        """Whether it can `mix`: compiled passes there are, plain files, and dtypes that they know."""
        known = all(dtype.name in CODES for dtype in self.dtypes)
        return known and self._places is not None and self._backend.gather_mix is not None

    def mix(
        self,
        start: int,
        count: int,
        coefficients: list[float],
        space: memoryview,
        dtype: DType,
        out: memoryview,
    ) -> float:
        """out = Σ cᵢ·xᵢ as `Backend.mix` of the `rows`, none of which is kept; returns the largest |Σ|."""
        mix, places, last = self._backend.gather_mix, self._places, start + count == self._stop
        assert mix is not None
        assert places is not None
        stop, codes, code = stop_byte(), bytes([CODES[read.name] for read in self.dtypes]), CODES[dtype.name]
        found, largest = self._at_once(
            start,
            count,
            lambda: mix(
                stop, places, start, count, self._chunks, last, codes, coefficients, space, code, out
            ),
        )
        self._keep(found, last)
        return largest

    def _at_once(self, start: int, count: int, read: Callable[[], _Found]) -> _Found:
        go_on()
        try:
            return read()
        except InterruptedError:
            raise StoppedError from None
        except (OSError, EOFError) as error:
            rows = [memoryview(bytearray(count * dtype.itemsize)) for dtype in self.dtypes]
            self._one_by_one(start, rows)  # says in words what is wrong with which file
            what, name = ("E0806", "failed for a moment"), show(self._tensor)
            if isinstance(error, EOFError):
                what = ("E0804", "found a file cut short, which is whole again")
            raise RefusedFileError(
                what[0],
                f"reading tensor '{name}' {what[1]}: {show(error)}",
                hint="wait until nobody writes to it, check the disk, then run the same command again",
            ) from error

    def _one_by_one(self, start: int, buffers: Sequence[memoryview]) -> None:
        for source, dtype, data in zip(self.sources, self.dtypes, buffers, strict=True):
            go_on()
            source.read(self._tensor, start * dtype.itemsize, data)

    def _keep(self, found: Sequence[bytes], last: bool) -> None:
        for i, digests in enumerate(found):
            self._digests[i] += digests
            nbytes = self._stop * self.dtypes[i].itemsize
            if last and 0 < nbytes % CHUNK_BYTES <= SHORT_NBYTES:
                tail = bytearray(nbytes % CHUNK_BYTES)
                self.sources[i].read(self._tensor, nbytes - len(tail), memoryview(tail))
                self._digests[i] += xxh3_128(tail).digest()

    def digests(self) -> list[bytes]:
        """The fingerprints of what was read of each source, chunk after chunk; empty without `fingerprints`."""
        return [hasher.digests() for hasher in self._hashers] or self._digests


def taking_turns(
    lock: threading.Lock, sources: Sequence[Source], tensors: Sequence[str]
) -> AbstractContextManager[object]:
    """The lock, for work on many small tensors in plain files: threads would wait longer for the interpreter than work."""
    if len(tensors) > FEW_TENSORS and _places(sources, tensors[0]) is not None:
        return lock
    return nullcontext()


def _places(sources: Sequence[Source], tensor: str) -> Places | None:
    found = []
    for source in sources:
        place = source.place(tensor)
        if place is None:
            return None
        found.append(place)
    return tuple(found)
