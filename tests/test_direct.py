"""Weight files written past the page cache hold what they were given, wherever it begins and whatever the system refuses."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.storage import direct
from rsoup.storage.direct import ALIGNMENT, SMALLEST, WeightFile

SIZE = 8 * SMALLEST


@pytest.fixture
def file(tmp_path: Path) -> Iterator[WeightFile]:
    """An empty file of `SIZE` zeros."""
    fd = os.open(tmp_path / "weights", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.truncate(fd, SIZE)
    opened = WeightFile(fd)
    yield opened
    opened.close()


def content(file: WeightFile) -> bytes:
    """All bytes of the file."""
    return os.pread(file.fd, SIZE + 1, 0)


@given(
    st.integers(0, 3 * ALIGNMENT),
    st.integers(0, 3 * SMALLEST),
    st.booleans(),
)
@settings(max_examples=60)
def test_any_range_is_written(
    tmp_path_factory: pytest.TempPathFactory, start: int, size: int, past: bool
) -> None:
    """What is written lies there, and its neighbours stay as they were, for every begin and length."""
    path = tmp_path_factory.mktemp("direct") / "weights"
    before = random.Random(1).randbytes(SIZE)
    path.write_bytes(before)
    file = WeightFile(os.open(path, os.O_RDWR), past_cache=past)
    data = random.Random(2).randbytes(size)

    file.write(start, memoryview(data))
    file.close()

    assert path.read_bytes() == before[:start] + data + before[start + size :]


def test_the_buffer_may_be_used_again(file: WeightFile) -> None:
    """A write takes what it is given before it returns."""
    buffer = bytearray(b"a" * SMALLEST * 2)
    file.write(0, memoryview(buffer))
    buffer[:] = b"b" * len(buffer)

    assert content(file)[: len(buffer)] == b"a" * len(buffer)


def test_threads_write_side_by_side(file: WeightFile) -> None:
    """Threads that write neighbouring ranges with unaligned borders do not disturb each other."""
    expected = random.Random(3).randbytes(SIZE)
    borders = [0, *sorted(random.Random(4).sample(range(1, SIZE), 9)), SIZE]
    pairs = list(itertools.pairwise(borders))

    def work(part: list[tuple[int, int]]) -> None:
        for start, stop in part:
            file.write(start, memoryview(expected)[start:stop])

    threads = [threading.Thread(target=work, args=(pairs[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert content(file) == expected


@pytest.mark.fault("H14")
def test_a_system_that_refuses(file: WeightFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system takes no direct write after all, the bytes go through the cache, all of them."""
    real = os.pwrite
    tried = []

    def pwrite(fd: int, data: memoryview, start: int) -> int:
        if fd != file.fd:
            tried.append(start)
            if len(tried) == 2:
                raise OSError(errno.EINVAL, "no")
            return real(fd, data[:ALIGNMENT], start)
        return real(fd, data, start)

    monkeypatch.setattr(os, "pwrite", pwrite)
    data = random.Random(5).randbytes(3 * SMALLEST)
    file.write(0, memoryview(data))
    file.write(3 * SMALLEST, memoryview(data))

    assert content(file)[: 6 * SMALLEST] == data + data
    assert tried == [0, ALIGNMENT]


@pytest.mark.fault("H5", "H7")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails(file: WeightFile, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """An error that is no refusal is an error, not a second try."""
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, start: int) -> int:
        if fd != file.fd:
            raise OSError(number, os.strerror(number))
        return real(fd, data, start)

    monkeypatch.setattr(os, "pwrite", pwrite)

    with pytest.raises(OSError, match=os.strerror(number)):
        file.write(0, memoryview(bytes(2 * SMALLEST)))


def test_no_such_thing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without direct writes, or without leave to use them, everything goes through the cache."""
    for number, past in enumerate([True, False]):
        fd = os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT)
        with monkeypatch.context() as patch:
            if past:
                patch.delattr(os, "O_DIRECT", raising=False)
            file = WeightFile(fd, past_cache=past)
        assert direct.SMALLEST <= SIZE
        file.write(5, memoryview(b"x" * SIZE))
        file.close()

        assert (tmp_path / str(number)).read_bytes() == bytes(5) + b"x" * SIZE
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
