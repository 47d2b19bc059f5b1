"""StreamedFile: one far file, read by any number of threads as if it were near, and proven by its SHA-256."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rsoup.errors import RsoupError
from rsoup.remote.halting import Halt
from rsoup.remote.passing import Passing
from rsoup.remote.pool import Chunk, Fetch, Lane
from rsoup.remote.window import Run, Window
from rsoup.workers import StoppedError, stopping

_APART_BYTES: Final = 1 << 18
_POLL_SECONDS: Final = 0.2


class StreamedFile(Window):
    """Bytes from `fetch`, in chunks, ahead of readers that go through the file; SHA-256 of what passes in order.

    Memory is the pool's. A few bytes far from all readers are a request of their own. `head` are the first bytes,
    which are here already; `sha256` is what the bytes must have, None where nobody says. `wrong` and `differ` make
    the errors for bytes of another SHA-256, and for bytes that came twice and were not the same.
    """

    def __init__(
        self,
        fetch: Fetch,
        nbytes: int,
        lane: Lane,
        *,
        head: bytes,
        sha256: str | None,
        stamp: tuple[object, ...],
        wrong: Callable[[], RsoupError],
        differ: Callable[[], RsoupError],
    ) -> None:
        super().__init__(nbytes, len(head), lane)
        self.sha256, self.stamp = sha256, stamp
        self.openings = 1
        self.unstated = "nobody states its SHA-256"  # why it is not proven, without a digest
        self.in_parts = False  # whether it need not be proven whole
        self.again = 0  # bytes that were fetched only to be proven
        self.proven = False
        self.catches_up = False  # whether what lies before the first read is hashed first
        self._fetch, self._first = fetch, head
        self._wrong, self._differ = wrong, differ
        self._passing: Passing | None = None
        self._catching = self._hashing = False

    @property
    def passing(self) -> Passing:
        """What passed of it; chunks get their size with the first."""
        if self._passing is None:
            with self.pool.lock:
                if self._passing is None:
                    self._passing = Passing(self.nbytes, self.size, self._differ)
        return self._passing

    @property
    def was_read(self) -> bool:
        """Whether anybody got more of it than its head and a few bytes here and there."""
        return self._passing is not None and self._passing.has_chunks

    @property
    def was_touched(self) -> bool:
        """Whether anybody got any of it but its head."""
        return self._passing is not None

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` on. Raises what `fetch` raises."""
        ready = min(max(0, len(self._first) - start), len(buffer))
        buffer[:ready] = self._first[start : start + ready]
        at, rest = start + ready, buffer[ready:]
        if not len(rest) or (self._is_apart(at, len(rest)) and self._read_apart(at, rest)):
            return
        self._announce(at // self.size, (at + len(rest) - 1) // self.size)
        while len(rest):
            count = min((at // self.size + 1) * self.size - at, len(rest))
            chunk = self._pinned(at // self.size)
            try:
                assert chunk.data is not None
                begin = at - chunk.start
                rest[:count] = memoryview(chunk.data)[begin : begin + count]
            finally:
                with self.pool.lock:
                    chunk.pins -= 1
                    self.used(chunk, count)
            at, rest = at + count, rest[count:]

    def _is_apart(self, at: int, count: int) -> bool:
        """Whether these few bytes lie where nobody reads, in a chunk that has not come yet."""
        if count > _APART_BYTES:
            return False
        with self.pool.lock:
            return all(
                index > 0
                and index not in self.chunks
                and not self.passing.is_known(index)
                and self.run_of(index) is None
                for index in (at // self.size, (at + count - 1) // self.size)
            )

    def _read_apart(self, at: int, buffer: memoryview) -> bool:
        """A request for these bytes alone; False where their chunk came meanwhile."""
        chunk = Chunk(None, at, len(buffer), 0)
        chunk.data = bytearray(len(buffer))
        with self.pool.lock:
            self.put(chunk, demanded=True)
            self._await(chunk)
        buffer[:] = chunk.data
        return self.passing.mark_part(at, buffer)

    def _announce(self, first: int, last: int) -> None:
        """Have the chunks of a read fetched, all at once, and some beyond."""
        with self.pool.lock:
            while self._catching:
                self.wait()
            if self.catches_up:
                self.catches_up = False
                self._catch_up(first)
            for index in range(first, last + 1):
                self.demand(index)
                self.read_ahead(index)

    def _pinned(self, index: int) -> Chunk:
        with self.pool.lock:
            chunk = self.demand(index)
            chunk.pins += 1
            try:
                self._await(chunk)
            except BaseException:
                chunk.pins -= 1
                raise
            chunk.tick = self.pool.tick()
        return chunk

    def _await(self, chunk: Chunk) -> None:
        while chunk.state in ("wanted", "fetching"):
            self.wait()
        if chunk.error is not None:
            raise chunk.error

    def wait(self) -> None:
        """Wait for news of chunks, with the lock; StoppedError where this reader's loop stops."""
        if stopping() or self.pool.halt.is_set():
            raise StoppedError
        self.pool.lock.wait(_POLL_SECONDS)

    def is_awaited(self, chunk: Chunk) -> bool:
        """Whether the hash comes to a chunk in passing: what lies next for it is here or on its way."""
        following = self.chunks.get(self.passing.hashed // self.size)
        return chunk.only_hashed or (following is not None and following.error is None)

    def bring(self, chunk: Chunk, halt: Halt) -> None:
        """Fetch a chunk, hold it against what is known of it, and hash whatever is in order now."""
        assert chunk.data is not None
        data = memoryview(chunk.data)[: chunk.nbytes]
        self._fetch(chunk.start, data, halt)
        if chunk.index is not None:
            head = self._first[chunk.start : chunk.start + chunk.nbytes]
            if data[: len(head)] != head:
                raise self._differ()
            self.passing.mark_chunk(chunk.index, data)
        with self.pool.lock:
            chunk.state = "ready"
            chunk.hashed = self.sha256 is None or chunk.start < self.passing.hashed
            self.pool.lock.notify_all()
            if chunk.index is None or self._hashing or self.sha256 is None:
                return
            self._hashing = True
        self._hash()

    def _hash(self) -> None:
        """Hash chunks as long as the next one is here; one thread at a time does this."""
        passing = self.passing
        while True:
            with self.pool.lock:
                chunk = self.chunks.get(passing.hashed // self.size)
                if chunk is None or chunk.state != "ready" or passing.hashed == self.nbytes:
                    self._hashing = False
                    return
                chunk.pins += 1
            assert chunk.data is not None
            passing.hash(memoryview(chunk.data)[: chunk.nbytes])
            with self.pool.lock:
                chunk.pins -= 1
                chunk.hashed = True
                if chunk.only_hashed and not chunk.pins:
                    self.drop(chunk)
                self.pool.lock.notify_all()

    def _catch_up(self, stop: int) -> None:
        """Hash all chunks before `stop`; those that are not here are fetched for that alone. With the lock."""
        passing, share = self.passing, self.pool.share
        self._catching = True
        try:
            while passing.hashed < min(stop * self.size, self.nbytes):
                first = passing.hashed // self.size
                for index in range(first, min(first + share, stop)):
                    chunk = self.chunks.get(index)
                    if chunk is not None and chunk.error is not None:
                        raise chunk.error
                    if chunk is None:
                        if not self.make_room(None if index == first else Run(first, share, 0)):
                            break
                        self.again += self.new(index, demanded=True, is_read=False).nbytes
                self.wait()
        finally:
            self._catching = False

    def check(self) -> None:
        """Prove by SHA-256 what was read of it; what did not pass, or not in order, is fetched for that.

        Raises what `wrong` makes for another SHA-256 than `sha256`. Nothing is done where that is None, where nothing
        was read, and for what is only read in parts.
        """
        if self.proven or self.sha256 is None or not self.was_read:
            return
        if self.in_parts and self.passing.hashed < self.nbytes:
            return
        with self.pool.lock:
            self._catch_up(-(-self.nbytes // self.size))
        if self.passing.sha256() != self.sha256:
            raise self._wrong()
        self.proven = True


def join(lane: Lane, stamp: tuple[object, ...], make: Callable[[], StreamedFile]) -> StreamedFile:
    """The file of this stamp that is streamed already, for one reader more, or the one that `make` makes."""
    with lane.pool.lock:
        for file in lane.pool.files:
            if isinstance(file, StreamedFile) and file.stamp == stamp:
                file.openings += 1
                file.readers += 1
                return file
        made = make()
        lane.files.append(made)
        return made


def leave(file: StreamedFile) -> None:
    """One reader less; the last one drops what is here of it."""
    with file.pool.lock:
        file.openings -= 1
        if not file.openings:
            file.lane.files.remove(file)
            file.forget()
