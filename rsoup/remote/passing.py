"""What passed of a streamed file: SHA-256 in its order as far as it came in order, and a mark of every part."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from xxhash import xxh3_128_digest


@dataclass(frozen=True, slots=True)
class Mark:
    """XXH3-128 of the bytes [start, stop) of a file, as they were handed to a reader."""

    start: int
    stop: int
    digest: bytes


class Passing:
    """The bytes of one file as they pass, in chunks of `size` bytes.

    SHA-256 takes chunk after chunk, so it proves what passes in order. Whatever else was handed out is marked, and
    held against its mark when it passes (again): so what SHA-256 proves in the end is what the readers got.
    """

    def __init__(self, nbytes: int, size: int, differ: Callable[[], Exception]) -> None:
        self.nbytes, self.size, self._differ = nbytes, size, differ
        self.hashed = 0
        self._sha = hashlib.sha256()
        self._marks: dict[int, dict[tuple[int, int], bytes]] = {}
        self._lock = threading.Lock()
        self._made: list[Mark] = []

    def bounds(self, index: int) -> tuple[int, int]:
        """The bytes of a chunk."""
        return index * self.size, min((index + 1) * self.size, self.nbytes)

    def is_known(self, index: int) -> bool:
        """Whether this chunk came as a whole before."""
        return self.bounds(index) in self._marks.get(index, {})

    def mark_part(self, start: int, data: memoryview) -> bool:
        """Mark bytes of one or two chunks that are handed to a reader; False where a chunk came meanwhile: use that."""
        with self._lock:
            for index in range(start // self.size, (start + len(data) - 1) // self.size + 1):
                begin, stop = self.bounds(index)
                low, high = max(begin, start), min(stop, start + len(data))
                marks = self._marks.setdefault(index, {})
                if (begin, stop) in marks:
                    return False
                self._set(marks, low, high, xxh3_128_digest(data[low - start : high - start]))
        return True

    def mark_chunk(self, index: int, data: memoryview) -> None:
        """Mark a whole chunk, which is held against all marks in it."""
        begin, stop = self.bounds(index)
        digest = xxh3_128_digest(data)
        with self._lock:
            marks = self._marks.setdefault(index, {})
            for (low, high), known in marks.items():
                part = (
                    digest
                    if (low, high) == (begin, stop)
                    else xxh3_128_digest(data[low - begin : high - begin])
                )
                if part != known:
                    raise self._differ()
            if (begin, stop) not in marks:
                marks.clear()
                self._set(marks, begin, stop, digest)

    def _set(self, marks: dict[tuple[int, int], bytes], start: int, stop: int, digest: bytes) -> None:
        if marks.setdefault((start, stop), digest) != digest:
            raise self._differ()
        self._made.append(Mark(start, stop, digest))

    def hash(self, data: memoryview) -> None:
        """Take the next chunk into the SHA-256."""
        self._sha.update(data)
        self.hashed += len(data)

    def sha256(self) -> str:
        """Of all that was taken, hexadecimal."""
        return self._sha.hexdigest()

    def marks(self, since: int) -> list[Mark]:
        """The marks in the order they were made, but for the first `since`."""
        with self._lock:
            return self._made[since:]

    def remember(self, mark: Mark) -> None:
        """A mark that an earlier run made. Raises what `differ` makes where this run got other bytes already."""
        if 0 <= mark.start < mark.stop <= self.nbytes:
            with self._lock:
                marks = self._marks.setdefault(mark.start // self.size, {})
                if marks.setdefault((mark.start, mark.stop), mark.digest) != mark.digest:
                    raise self._differ()

    @property
    def nbytes_known(self) -> int:
        """Bytes that were handed out, now or in an earlier run."""
        with self._lock:
            return sum(stop - start for marks in self._marks.values() for start, stop in marks)

    @property
    def has_chunks(self) -> bool:
        """Whether a whole chunk came, now or in an earlier run: more than a few bytes here and there."""
        with self._lock:
            return any(self.bounds(index) in marks for index, marks in self._marks.items())
