"""StreamedFile: what it gives its readers, what it keeps, what it proves, and what is left when it ends."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.errors import RefusedFileError
from rsoup.remote import pool as pools
from rsoup.remote.file import StreamedFile, join, leave
from rsoup.remote.halting import Halt
from rsoup.remote.pool import Lane, Pool

CHUNK = 1000
DATA = random.Random(1).randbytes(20_500)


class Far:
    """A far file: how often it was asked, and for what."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data, self.asked = data, list[tuple[int, int]]()
        self.before: Callable[[int, int, Halt], object] = lambda *_: None

    def fetch(self, start: int, buffer: memoryview, halt: Halt) -> None:
        """A range of it."""
        self.asked.append((start, len(buffer)))
        self.before(start, len(buffer), halt)
        buffer[:] = self.data[start : start + len(buffer)]

    @property
    def sent(self) -> int:
        """Bytes that crossed the network."""
        return sum(count for _, count in self.asked)


def refused(code: str) -> Callable[[], RefusedFileError]:
    """What makes an error of this code."""
    return lambda: RefusedFileError(code, "asked for by the test")


@contextmanager
def streamed(
    far: Far, *, sha256: str | None = "right", head: int = 16, memory: int = 6 * CHUNK
) -> Iterator[StreamedFile]:
    """The far file as a stream in chunks of 1000 bytes; no thread may be left afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "CHUNK_BYTES", CHUNK)
        patch.setattr(pools, "MEMORY_BYTES", memory)
        patch.setattr(pools, "FEWEST", 4)
        pool = Pool()
        lane = Lane(pool)
        pool.lanes.append(lane)
        right = hashlib.sha256(far.data).hexdigest()
        made = join(lane, ("far",), lambda: StreamedFile(
            far.fetch, len(far.data), lane, head=far.data[:head], sha256=right if sha256 == "right" else sha256,
            stamp=("far",), wrong=refused("E0717"), differ=refused("E0740"),
        ))  # fmt: skip
        try:
            yield made
        finally:
            leave(made)
            pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rsoup-fetch")]


def read(file: StreamedFile, start: int, count: int) -> bytes:
    """Bytes of a file."""
    buffer = bytearray(count)
    file.read(start, memoryview(buffer))
    return bytes(buffer)


spans = st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 3 * CHUNK)).map(
    lambda span: (span[0], min(span[1], len(DATA) - span[0]))
)


@settings(max_examples=25)
@given(st.lists(spans, max_size=30), st.integers(1, 4), st.integers(0, 3 * CHUNK), st.integers(4, 12))
def test_every_read_gives_the_files_bytes(
    asked: list[tuple[int, int]], threads: int, head: int, chunks: int
) -> None:
    """∀ reads in any order, by any number of threads, whatever the memory: what is read is the file's bytes."""
    with streamed(Far(), head=head, memory=chunks * CHUNK) as file:
        wrong: list[tuple[int, int]] = []

        def reader(mine: list[tuple[int, int]]) -> None:
            wrong.extend(span for span in mine if read(file, *span) != DATA[span[0] : span[0] + span[1]])

        working = [threading.Thread(target=reader, args=(asked[i::threads],)) for i in range(threads)]
        for thread in working:
            thread.start()
        for thread in working:
            thread.join()
        file.check()

        assert wrong == []
        assert len(file.chunks) <= chunks + threads


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_what_is_read_in_order_crosses_the_network_once(readers: int) -> None:
    """However often each part is read on the way, each byte is fetched once, and proven without another."""
    far = Far()
    with streamed(far, memory=12 * CHUNK) as file:
        for start in range(0, len(DATA), 250):
            for _ in range(readers):
                read(file, start, min(250, len(DATA) - start))
        file.check()

        assert file.proven
        assert far.sent <= len(DATA) + CHUNK * (readers > 1)
        assert file.again == 0


def test_several_requests_are_in_flight() -> None:
    """A slow network costs one delay for several chunks, not one for each."""
    far = Far()
    at_once: list[int] = []
    waiting: set[int] = set()
    lock = threading.Lock()

    def slow(start: int, _: int, halt: Halt) -> None:
        with lock:
            waiting.add(start)
            at_once.append(len(waiting))
        time.sleep(0.02)
        with lock:
            waiting.discard(start)

    far.before = slow
    with streamed(far, memory=12 * CHUNK) as file:
        begun = time.monotonic()
        for start in range(0, 20_000, 500):
            read(file, start, 500)
        assert max(at_once) >= 4
        assert time.monotonic() - begun < 21 * 0.02


def test_another_digest_is_refused() -> None:
    """Right size, wrong bytes: E0717 at the end."""
    with streamed(Far(), sha256="0" * 64) as file:
        read(file, 0, 5000)
        with pytest.raises(RefusedFileError) as caught:
            file.check()

    assert caught.value.code == "E0717"


@pytest.mark.parametrize("count", [100, 3000])
def test_bytes_that_were_handed_out_are_those_that_are_proven(count: int) -> None:
    """A wrong byte that a reader got far from the others, right when it comes again for the digest: E0740."""
    far = Far()
    with streamed(far) as file:
        good, far.data = far.data, bytearray(far.data)  # type: ignore[assignment]
        far.data[15_050] ^= 1  # type: ignore[index]
        read(file, 15_000, count)
        far.data = good
        for start in range(0, 9000, 500):
            read(file, start, 500)
        with pytest.raises(RefusedFileError) as caught:
            file.check()

    assert caught.value.code == "E0740"


def test_what_passed_out_of_order_is_fetched_again_and_only_that() -> None:
    """The half that was read first cannot be hashed in passing: proven, with that half fetched twice."""
    far = Far()
    with streamed(far) as file:
        for start in [*range(10_000, 20_000, 500), *range(0, 10_000, 500)]:
            read(file, start, 500)
        file.check()

        assert file.proven
        assert 0 < file.again <= 12_000
        assert far.sent <= len(DATA) + file.again + 5 * CHUNK


def test_a_digest_nobody_states_is_no_digest() -> None:
    """Without a digest nothing is fetched for it, and nothing is called proven."""
    far = Far()
    with streamed(far, sha256=None) as file:
        read(file, 10_000, 500)
        before = far.sent
        file.check()

        assert not file.proven
        assert far.sent <= before + 3 * CHUNK


def test_a_head_of_other_bytes_is_refused() -> None:
    """The header that was parsed is the file's, or E0740."""
    far = Far()
    with streamed(far) as file:
        far.data = b"?" + far.data[1:]
        with pytest.raises(RefusedFileError) as caught:
            read(file, 500, 100)

    assert caught.value.code == "E0740"


def test_an_error_of_a_fetching_thread_is_its_readers() -> None:
    """Whoever reads the chunk that could not be fetched gets its error; what lies before it can still be read."""
    far = Far()

    def broken(start: int, count: int, _: Halt) -> None:
        if start <= 3500 < start + count:
            raise RefusedFileError("E0718", "no part of such a file")

    far.before = broken
    with streamed(far) as file:
        assert read(file, 0, 3000) == DATA[:3000]
        with pytest.raises(RefusedFileError) as caught:
            read(file, 3000, 10)

    assert caught.value.code == "E0718"


def test_the_end_breaks_off_what_waits() -> None:
    """A fetch that would wait for an hour ends with its pool."""
    far = Far()
    far.before = lambda start, _, halt: halt.wait(3600) if start >= 4000 else None
    begun = time.monotonic()
    with streamed(far) as file:
        read(file, 0, 2000)
        read(file, 2500, 500)

    assert time.monotonic() - begun < 5
