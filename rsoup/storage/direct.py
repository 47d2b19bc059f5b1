"""Weight files written past the page cache where the system lets us: a new page of the cache costs more than the mixing.

What is aligned goes straight to the disk; the few bytes before and after it go the ordinary way. The soup
needs no room in the cache, and what the cache holds of the inputs stays there.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading

from rsoup.storage.plain import write_all

ALIGNMENT = 4096
SMALLEST = 1 << 17  # bytes; below it the wait for the disk costs more than the copy into the cache
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


class WeightFile:
    """A file open as `fd` that takes bytes anywhere, from any number of threads; owns the descriptor."""

    def __init__(self, fd: int, *, past_cache: bool = True) -> None:
        self.fd = fd
        self._direct = _open_again(fd) if past_cache else -1
        self._refused = False
        self._local = threading.local()

    def write(self, start: int, data: memoryview) -> None:
        """Put `data` at byte `start`; all of it, or OSError."""
        first = -(-start // ALIGNMENT) * ALIGNMENT
        last = (start + len(data)) // ALIGNMENT * ALIGNMENT
        if self._direct < 0 or self._refused or last - first < SMALLEST:
            write_all(self.fd, data, start)
            return
        write_all(self.fd, data[: first - start], start)
        self._write_aligned(first, data[first - start : last - start])
        write_all(self.fd, data[last - start :], last)

    def _write_aligned(self, start: int, data: memoryview) -> None:
        """Put `data` at `start`, both of them aligned; through the cache where the file system refuses."""
        done = 0
        try:
            staged = self._buffer(len(data))
            staged[:] = data
            while done < len(data) and done % ALIGNMENT == 0:
                done += os.pwrite(self._direct, staged[done:], start + done)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            self._refused = True
        write_all(self.fd, data[done:], start + done)

    def _buffer(self, size: int) -> memoryview:
        """Memory of this thread that begins at a page, as a direct write wants it."""
        held: memoryview | None = getattr(self._local, "buffer", None)
        if held is None or len(held) < size:
            held = self._local.buffer = memoryview(mmap.mmap(-1, size))
        return held[:size]

    def close(self) -> None:
        """Let go of the file."""
        direct, self._direct = self._direct, -1
        try:
            if direct >= 0:
                os.close(direct)
        finally:
            os.close(self.fd)


def _open_again(fd: int) -> int:
    """A second descriptor of the file that writes past the cache; -1 where there is no such thing."""
    flag = getattr(os, "O_DIRECT", 0)  # not on macOS
    if not flag:
        return -1
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC | flag)
    except OSError:
        return -1
