"""Reading the same elements of one tensor from several checkpoints: in one go where they lie in plain files."""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh3_128

from rsoup.backends import Backend, Row
from rsoup.backends.passes import CHUNK_NBYTES, Gather, Places
from rsoup.digests import CHUNK_BYTES, ChunkHasher, fingerprint_hasher
from rsoup.storage.protocols import Source
from rsoup.workers import go_on

_SHORT_BYTES = 240
"""The digest of a chunk of so few bytes is left to the hash's own library."""


class Reading:
    """The elements of one tensor in several sources up to `stop`: slice by slice, from a chunk's beginning on.

    `dtypes` has the dtype of each. With `fingerprints`, what is read is digested (rsoup-digest/1).
    """

    def __init__(
        self, sources: Sequence[Source], tensor: str, stop: int, backend: Backend, *, fingerprints: bool = False
    ) -> None:
        self.dtypes = [source.header[tensor].dtype for source in sources]
        self._sources, self._tensor, self._stop, self._gather = sources, tensor, stop, backend.gather
        self._places = _places(sources, tensor) if self._gather is not None else None
        self._digests = [b""] * len(sources) if fingerprints else []
        self._hashers: list[ChunkHasher] = []
        self._chunks: bytearray | None = None
        if fingerprints and self._places is None:
            self._hashers = [ChunkHasher(fingerprint_hasher) for _ in sources]
        elif fingerprints:
            self._chunks = bytearray(CHUNK_NBYTES * len(sources))

    def rows(self, start: int, count: int, buffers: list[memoryview]) -> list[Row]:
        """Fill `buffers` with `count` elements from `start` on. Raises StoppedError, and what the sources raise."""
        if self._gather is not None and self._places is not None:
            go_on()
            self._at_once(self._gather, self._places, start, count, buffers)
        else:
            self._one_by_one(start, buffers)
            for hasher, data in zip(self._hashers, buffers, strict=False):
                hasher.update(data)
        return list(zip(self.dtypes, buffers, strict=True))

    def _one_by_one(self, start: int, buffers: list[memoryview]) -> None:
        for source, dtype, data in zip(self._sources, self.dtypes, buffers, strict=True):
            go_on()
            source.read(self._tensor, start * dtype.itemsize, data)

    def _at_once(
        self, gather: Gather, places: Places, start: int, count: int, buffers: list[memoryview]
    ) -> None:
        last = start + count == self._stop
        try:
            found = gather(places, start, count, buffers, self._chunks, last)
        except (OSError, EOFError):
            self._one_by_one(start, buffers)  # says in words what is wrong
            found = gather(places, start, count, buffers, self._chunks, last)
        for i, digests in enumerate(found):
            self._digests[i] += digests
            tail = self._stop * self.dtypes[i].itemsize % CHUNK_BYTES
            if last and 0 < tail <= _SHORT_BYTES:
                self._digests[i] += xxh3_128(buffers[i][-tail:]).digest()

    def digests(self) -> list[bytes]:
        """The fingerprints of what was read of each source, chunk after chunk; empty without `fingerprints`."""
        return [hasher.digests() for hasher in self._hashers] or self._digests


def _places(sources: Sequence[Source], tensor: str) -> Places | None:
    found = []
    for source in sources:
        place = source.place(tensor)
        if place is None:
            return None
        found.append(place)
    return tuple(found)
