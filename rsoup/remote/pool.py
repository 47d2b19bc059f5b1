"""Pool: the threads that fetch chunks of far files before they are read, in memory that depends on no file's size.

One pool serves all streamed files of a process. It is made with the first and ended with the last of them, and none
of its threads outlives it: what waits for a network then is broken off.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from rsoup.remote.halting import Halt, HaltedError

THREADS: Final = 16
CHUNK_BYTES = 8 << 20
MEMORY_BYTES = 256 << 20
FEWEST = 20  # chunks of a checkpoint: one for each thread that reads, and some ahead
_SMALLEST: Final = 1 << 19
_JOIN_SECONDS: Final = 1.0

Fetch = Callable[[int, memoryview, Halt], None]
"""Fill a buffer from a byte of a file on, or raise; from any number of threads. The Halt breaks it off."""


class Chunk:
    """Bytes of a file from `start` on: `left` of them are still wanted by readers, `pins` of whom are at it now.

    `index` is None for what is fetched for one reader alone.
    """

    __slots__ = (
        "data",
        "demanded",
        "error",
        "hashed",
        "index",
        "left",
        "nbytes",
        "only_hashed",
        "pins",
        "start",
        "state",
        "tick",
    )

    def __init__(self, index: int | None, start: int, nbytes: int, left: int) -> None:
        self.index, self.start, self.nbytes, self.left = index, start, nbytes, left
        self.state = "wanted"  # fetching, ready, failed, dropped
        self.data: bytearray | None = None
        self.error: BaseException | None = None
        self.demanded = self.hashed = self.only_hashed = False
        self.pins = self.tick = 0


class Streamed(Protocol):
    """What the pool asks of a file; all of it under the pool's lock, but `bring`."""

    lane: Lane
    chunks: dict[int, Chunk]
    waiting: deque[Chunk]

    def bring(self, chunk: Chunk, halt: Halt) -> None:
        """Fetch a chunk and take note of it; without the lock."""

    def drop(self, chunk: Chunk) -> None:
        """Let go of a chunk that nobody is at."""

    def is_spare(self, chunk: Chunk, *, ahead: bool) -> bool:
        """Whether nobody is expected to want a chunk that is here."""


class Lane:
    """The files of one checkpoint, which have one share of the pool's memory."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.files: list[Streamed] = []


class Pool:
    """Threads, memory and the lock of all streamed files, which belong to `lanes` that share them fairly."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.halt = Halt()
        self.lanes: list[Lane] = []
        self._chunk_bytes: int | None = None
        self._demanded: deque[tuple[Streamed, Chunk]] = deque()
        self._spare: list[bytearray] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._turn = 0
        self._ticks = 0

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk: fixed when the first is asked for, smaller for many checkpoints."""
        if self._chunk_bytes is None:
            size = CHUNK_BYTES
            while size > _SMALLEST and size * FEWEST * len(self.lanes) > MEMORY_BYTES:
                size //= 2
            self._chunk_bytes = size
        return self._chunk_bytes

    @property
    def share(self) -> int:
        """Chunks that the files of one lane may keep."""
        return max(FEWEST, MEMORY_BYTES // (self.chunk_bytes * max(1, len(self.lanes))))

    @property
    def files(self) -> list[Streamed]:
        """All files."""
        return [file for lane in self.lanes for file in lane.files]

    def tick(self) -> int:
        """Numbers that grow: what was used longest ago has the smallest."""
        self._ticks += 1
        return self._ticks

    def put(self, file: Streamed, chunk: Chunk, *, demanded: bool) -> None:
        """Have a chunk fetched: at once, or when nobody waits for another. Raises RuntimeError without any thread."""
        if demanded:
            chunk.demanded = True
            self._demanded.append((file, chunk))
        else:
            file.waiting.append(chunk)
        work = len(self._demanded) + sum(len(one.waiting) for one in self.files)
        if work > self._idle and len(self._threads) < THREADS:
            self._start()
        self.lock.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._loop, name=f"rsoup-fetch-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.pop()
            if not self._threads:
                raise

    def _loop(self) -> None:
        while True:
            with self.lock:
                self._idle += 1
                while not self.halt.is_set() and (found := self._next()) is None:
                    self.lock.wait()
                self._idle -= 1
                if self.halt.is_set():
                    return
                assert found is not None
                file, chunk = found
                chunk.state = "fetching"
                if chunk.data is None:
                    chunk.data = self._spare.pop() if self._spare else bytearray(self.chunk_bytes)
            try:
                file.bring(chunk, self.halt)
            except HaltedError:
                return
            except BaseException as error:
                if self.halt.is_set():
                    return
                with self.lock:
                    chunk.error, chunk.state = error, "failed"
                    self.reuse(chunk)
                    self.lock.notify_all()

    def _next(self) -> tuple[Streamed, Chunk] | None:
        while self._demanded:
            file, chunk = self._demanded.popleft()
            if chunk.state == "wanted":
                return file, chunk
        files = self.files
        for _ in files:
            self._turn = (self._turn + 1) % len(files)
            file = files[self._turn]
            while file.waiting:
                chunk = file.waiting.popleft()
                if chunk.state == "wanted":
                    return file, chunk
        return None

    def reuse(self, chunk: Chunk) -> None:
        """Take a chunk's memory back for the next one."""
        if chunk.data is not None and len(chunk.data) == self._chunk_bytes and len(self._spare) < THREADS:
            self._spare.append(chunk.data)
        chunk.data = None

    def close(self) -> None:
        """End every thread; what is on its way is broken off."""
        self.halt.set()
        with self.lock:
            self.lock.notify_all()
        until = time.monotonic() + _JOIN_SECONDS
        for thread in (
            self._threads
        ):  # one that waits for the first byte of an answer ends with it, or with the process
            thread.join(max(0.0, until - time.monotonic()))
        with self.lock:
            self._spare.clear()


_pools: list[Pool] = []
_guard: Final = threading.Lock()


def hire() -> Lane:
    """A lane in the pool of this process, for one checkpoint; `dismiss` gives it back."""
    with _guard:
        if not _pools:
            _pools.append(Pool())
        lane = Lane(_pools[0])
        with lane.pool.lock:
            lane.pool.lanes.append(lane)
        return lane


def dismiss(lane: Lane) -> None:
    """One checkpoint less; the last one ends the pool."""
    pool = lane.pool
    with _guard:
        with pool.lock:
            pool.lanes.remove(lane)
            if pool.lanes:
                for file in lane.files:  # somebody else opened it, too
                    file.lane = pool.lanes[0]
                pool.lanes[0].files += lane.files
                return
        if pool in _pools:
            _pools.remove(pool)
    pool.close()


def streaming() -> Sequence[Streamed]:
    """The files that are streamed in this process now."""
    with _guard:
        return [file for pool in _pools for file in pool.files]
