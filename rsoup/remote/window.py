"""Window: which chunks of a far file are here, wanted or let go of, for readers that mostly go through it in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from rsoup.remote.halting import Halt
from rsoup.remote.pool import Chunk, Lane
from rsoup.workers import no_memory

_RUNS: Final = 4


class Run:
    """Readers on their way through a file: `front` is the furthest chunk, `ahead` how many are fetched beyond it."""

    __slots__ = ("ahead", "front", "tick")

    def __init__(self, front: int, ahead: int, tick: int) -> None:
        self.front, self.ahead, self.tick = front, ahead, tick


class Window(ABC):
    """The chunks of a file of `nbytes` bytes, whose first `head` are never read from them. All of it with the pool's lock."""

    def __init__(self, nbytes: int, head: int, lane: Lane) -> None:
        self.nbytes, self.lane, self.pool = nbytes, lane, lane.pool
        self.chunks: dict[int, Chunk] = {}
        self.waiting: deque[Chunk] = deque()
        self.readers = 1  # how often each byte is read, as far as is known
        self._head = head
        self._runs: list[Run] = []
        self._jumps = 0

    @property
    def size(self) -> int:
        """Bytes of a chunk, but for the last."""
        return self.pool.chunk_bytes

    def bounds(self, index: int) -> tuple[int, int]:
        """The bytes of a chunk."""
        return index * self.size, min((index + 1) * self.size, self.nbytes)

    @abstractmethod
    def bring(self, chunk: Chunk, halt: Halt) -> None:
        """Fetch a chunk; without the lock."""

    @abstractmethod
    def wait(self) -> None:
        """Wait for news of chunks."""

    def demand(self, index: int) -> Chunk:
        """The chunk, fetched before all that nobody waits for."""
        while (chunk := self.chunks.get(index)) is None and not self.make_room(None):
            self.wait()
        if chunk is None:
            chunk = self.new(index, demanded=True)
        elif chunk.state == "wanted" and not chunk.demanded:
            self.put(chunk, demanded=True)
        return chunk

    def new(self, index: int, *, demanded: bool, is_read: bool = True) -> Chunk:
        """A chunk that is not here, now wanted; one that is not read is dropped once it is hashed."""
        begin, stop = self.bounds(index)
        left = max(0, stop - max(begin, self._head)) * self.readers if is_read else 0
        chunk = Chunk(index, begin, stop - begin, left)
        chunk.tick, chunk.only_hashed = self.pool.tick(), not is_read
        self.chunks[index] = chunk
        self.put(chunk, demanded=demanded)
        return chunk

    def put(self, chunk: Chunk, *, demanded: bool) -> None:
        """Have a chunk fetched. Raises TargetError E0608 where the system gives no thread for it."""
        try:
            self.pool.put(self, chunk, demanded=demanded)
        except RuntimeError as error:
            self.drop(chunk)
            raise no_memory("the system lets this process start no thread") from error

    def run_of(self, index: int) -> Run | None:
        """The readers this chunk is within reach of."""
        back = self.pool.share
        return next(
            (run for run in self._runs if run.front - back <= index <= run.front + run.ahead + 1), None
        )

    def read_ahead(self, index: int) -> None:
        """Want what comes after this chunk, the more of it the longer its readers go on, the less they jump."""
        run = self.run_of(index)
        if run is None:
            self._jumps += bool(self._runs)
            run = Run(index, 1, 0)
            self._runs = [*sorted(self._runs, key=lambda one: one.tick)[-_RUNS + 1 :], run]
        elif index > run.front:
            run.front = index
            run.ahead = min(2 * run.ahead, max(2, (self.pool.share - 2) // (1 + self._jumps)))
        run.tick = self.pool.tick()
        last = (self.nbytes - 1) // self.size
        for ahead in range(run.front + 1, min(run.front + run.ahead, last) + 1):
            if ahead not in self.chunks:
                if not self.make_room(run):
                    return
                self.new(ahead, demanded=False)

    def make_room(self, run: Run | None) -> bool:
        """Room for one chunk more: for a reader (`run` None), or for what `run` will read if nobody misses it.

        First goes what was read by all, then, for a reader, what was used longest ago; only chunks of this lane, so
        that no checkpoint takes another's share. False where a reader must wait: what could go is about to be hashed.
        """
        while sum(len(file.chunks) for file in self.lane.files) >= self.pool.share:
            here = [
                (chunk.tick, file, chunk)
                for file in self.lane.files
                for chunk in file.chunks.values()
                if chunk.state == "ready" and not chunk.pins
            ]
            spare = [one for one in here if one[1].is_spare(one[2], ahead=run is not None)]
            if not spare and (
                run is not None or any(not chunk.left and not chunk.hashed for *_, chunk in here)
            ):
                return False
            if not here:
                return True
            _, file, chunk = min(spare or here, key=lambda one: (one[2].left > 0, one[0]))
            file.drop(chunk)
        return True

    def is_spare(self, chunk: Chunk, *, ahead: bool) -> bool:
        """Whether nobody is expected to want a chunk that is here: all read it, or nobody comes near it.

        Not for what is only read `ahead`: where readers are, one may come once more than was known.
        """
        assert chunk.index is not None
        if not chunk.left:
            here = ahead and any(run.front - 1 <= chunk.index <= run.front for run in self._runs)
            return (chunk.hashed or not self.is_awaited(chunk)) and not here
        back = self.pool.share
        return not any(run.front - back <= chunk.index <= run.front + run.ahead for run in self._runs)

    def is_awaited(self, chunk: Chunk) -> bool:
        """Whether a chunk that nobody reads any more is to be hashed."""
        return chunk.only_hashed

    def drop(self, chunk: Chunk) -> None:
        """Let go of a chunk that nobody is at."""
        if chunk.index is not None and self.chunks.get(chunk.index) is chunk:
            del self.chunks[chunk.index]
        chunk.state = "dropped"
        self.pool.reuse(chunk)

    def used(self, chunk: Chunk, count: int) -> None:
        """A reader took so many bytes of a chunk. Read more often than was known, the next ones are kept for longer."""
        if not chunk.left and not chunk.only_hashed and chunk.start >= self._head:
            self.readers += 1
            chunk.left = chunk.nbytes
        chunk.left = max(0, chunk.left - count)

    def forget(self) -> None:
        """Drop every chunk that nobody is at, and want none any more."""
        self.waiting.clear()
        for chunk in list(self.chunks.values()):
            if not chunk.pins and chunk.state != "fetching":
                self.drop(chunk)
