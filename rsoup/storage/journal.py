"""The journal of a staging folder: which blocks are on the disk, written after their data was made durable."""

from __future__ import annotations

import errno
import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping

from rsoup.storage.plain import open_plain, write_all

NAME = ".journal"
FLUSH_SECONDS = 4.0


def is_there(folder: int) -> bool:
    """Whether the staging folder open as `folder` holds a journal."""
    try:
        os.stat(NAME, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def belongs(folder: int, plan: str) -> bool:
    """Whether the staging folder open as `folder` holds a journal of this plan."""
    first = f"{plan}\n".encode()
    try:
        fd = open_plain(NAME, os.O_RDONLY, folder)
    except OSError:
        return False
    try:
        return os.pread(fd, len(first), 0) == first
    finally:
        os.close(fd)


def _sync_data(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


class Journal:
    """Lines of (checksum, record): a line is there only if the bytes it tells of are on the disk.

    A thread makes the `files` (descriptors) durable every few seconds and then appends what was noted
    until then. Its errors are kept in `error`: after a failed fsync nothing may be believed.
    """

    def __init__(self, folder: int, plan: str, files: Iterable[int], *, resumes: bool) -> None:
        fresh = 0 if resumes else os.O_CREAT | os.O_EXCL
        self._fd = open_plain(NAME, os.O_RDWR | os.O_APPEND | fresh, folder)
        self._files = tuple(files)
        self._pending: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="rsoup-journal", daemon=True)
        self.error: OSError | None = None
        if not resumes:
            write_all(self._fd, memoryview(f"{plan}\n".encode()))
        try:
            self._thread.start()
        except RuntimeError as error:
            os.close(self._fd)
            raise OSError(errno.EAGAIN, "the system lets this process start no thread") from error

    def records(self) -> Iterator[dict[str, object]]:
        """What an earlier run noted, one record at a time, up to the first line that is torn or damaged.

        The rest is cut off, so that what is noted from now on is readable.
        """
        valid = 0
        with open(os.dup(self._fd), "rb") as lines:
            lines.seek(0)
            valid += len(lines.readline())
            for line in lines:
                record = _record(line)
                if record is None:
                    break
                yield record
                valid += len(line)
        os.ftruncate(self._fd, valid)

    def note(self, record: Mapping[str, object]) -> None:
        """Remember that a block is written; it goes to the disk once its bytes are durable."""
        text = json.dumps(record, separators=(",", ":"))
        with self._lock:
            self._pending.append(f"{zlib.crc32(text.encode()):08x} {text}\n")

    def _loop(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            if not self.flush():
                return

    def flush(self) -> bool:
        """Make the files durable, then the lines about them; False, with `error` set, if the disk fails."""
        if self.error is not None:
            return False
        with self._lock:
            lines, self._pending = self._pending, []
        if not lines:
            return True
        try:
            for fd in self._files:
                _sync_data(fd)
            write_all(self._fd, memoryview("".join(lines).encode()))
            _sync_data(self._fd)
        except OSError as error:
            self.error = error
        return self.error is None

    def stop(self) -> None:
        """End the thread; nothing is flushed any more by itself."""
        self._stop.set()
        self._thread.join()

    def close(self) -> None:
        """Stop, and let go of the file."""
        self.stop()
        os.close(self._fd)


def _record(line: bytes) -> dict[str, object] | None:
    """The record of a whole line with the right checksum, or None."""
    check, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != f"{zlib.crc32(text):08x}".encode():
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
