"""The ledger: one line of JSON per evaluation, on the disk as soon as it exists, each line verifying itself.

`results.jsonl` in the sweep's folder is appended to under a lock and never changed. A last line without its
newline is not there yet; any other line that does not verify is skipped and reported. One machine is meant: on
network file systems locks may not hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Final

from rsoup.errors import Problem, RefusedFileError, RsoupError, show_path
from rsoup.storage.files import open_error
from rsoup.storage.parts import is_same, open_folder
from rsoup.storage.plain import open_plain, write_all
from rsoup.storage.rename import sync_folder
from rsoup.storage.target import target_error
from rsoup.sweep.record import NAME, Record, decode, encode

DAMAGED: Final = "results.jsonl.damaged"
_NEW: Final = "results.jsonl.new"
_TAIL_BYTES: Final = 64


class Ledger:
    """The results of the sweep in `folder`; any number of threads and processes may append at once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._shown = show_path(os.path.join(folder, NAME))
        self._named = False  # whether the file's name is known to be on the disk
        self._forget()

    def _forget(self) -> None:
        self._file: tuple[int, int] | None = None
        self._offset = self._lines = 0
        self._tail = b""
        self._records: list[Record] = []
        self._damaged: list[int] = []

    def append(self, record: Record) -> None:
        """Add a record; when this returns it is on the disk.

        A line torn by a killed run is ended first. Raises TargetError E060x or AccessError E0704 if the disk does
        not obey; then the file is as it was, unless the disk itself fails.
        """
        line = encode(record)
        with self._writing(), self._locked(os.O_CREAT) as (folder, fd):
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            try:
                write_all(fd, memoryview(b"\n" + line if torn else line))
            except OSError:
                os.ftruncate(fd, size)
                raise
            os.fsync(fd)
            if size == 0 or not self._named:  # whoever made the file may have been killed before this
                sync_folder(folder)
                self._named = True

    @property
    def damaged(self) -> tuple[int, ...]:
        """The numbers of the lines that were skipped, from 1, as of the last `records()`."""
        return tuple(self._damaged)

    def damage(self) -> RefusedFileError | None:
        """What is damaged as an error (E0828) to raise or to show, None if nothing is."""
        if not self._damaged:
            return None
        return RefusedFileError(
            "E0828",
            "lines of the results are damaged, or were torn when a run was killed; the others are used",
            where=self._shown,
            hint=f"rsoup sweep RUN --repair  (moves them to {DAMAGED}; what they held is evaluated again)",
            details=tuple(Problem(f"{self._shown}:{line}", "does not verify") for line in self._damaged),
        )

    def records(self) -> tuple[Record, ...]:
        """All records in the order they were appended; only what is new is read, all of it if the file is another.

        No file, no records. To be called by one thread at a time. Raises RefusedFileError E0829 (a newer schema)
        and what opening a file raises.
        """
        try:
            folder = open_folder(self._folder)
        except OSError as error:
            raise open_error(error, self._shown) from error
        try:
            fd = open_plain(NAME, os.O_RDONLY, folder)
        except FileNotFoundError:
            self._forget()
            return ()
        except OSError as error:
            raise open_error(error, self._shown) from error
        finally:
            os.close(folder)
        with open(fd, "rb") as file:
            self._read(file.fileno())
        return tuple(self._records)

    def _read(self, fd: int) -> None:
        status = os.fstat(fd)
        here = max(0, self._offset - len(self._tail))
        same = self._file == (status.st_dev, status.st_ino)
        if not same or os.pread(fd, len(self._tail), here) != self._tail:
            self._forget()
            self._file = status.st_dev, status.st_ino
        data = _bytes_from(fd, self._offset)
        whole = data[: data.rfind(b"\n") + 1]
        records, damaged = [], []
        for number, line in enumerate(whole.split(b"\n")[:-1], self._lines + 1):
            record = decode(line)
            if record is None:
                damaged.append(number)
            else:
                records.append(record)
        self._records += records
        self._damaged += damaged
        self._lines += whole.count(b"\n")
        self._offset += len(whole)
        self._tail = (self._tail + whole)[-_TAIL_BYTES:]

    def repair(self) -> int:
        """Take the damaged lines out of the file, add them to `results.jsonl.damaged`; how many there were.

        A last line that was torn counts, too. The file is replaced in one step. Raises as `append`, AccessError
        E0701 where there is no file, RefusedFileError E0829.
        """
        with self._writing(), self._locked(0) as (folder, fd):
            data = _bytes_from(fd, 0)
            lines = data.split(b"\n")
            if not lines[-1]:
                lines.pop()
            damaged = [decode(line) is None for line in lines]
            bad = [line for line, is_damaged in zip(lines, damaged, strict=True) if is_damaged]
            sound = [line for line, is_damaged in zip(lines, damaged, strict=True) if not is_damaged]
            if bad:
                _write(folder, DAMAGED, os.O_APPEND, bad)
                _write(folder, _NEW, os.O_TRUNC, sound)
                os.replace(_NEW, NAME, src_dir_fd=folder, dst_dir_fd=folder)
                sync_folder(folder)
            return len(bad)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _write_error(error, self._shown) from error

    @contextlib.contextmanager
    def _locked(self, create: int) -> Iterator[tuple[int, int]]:
        """(folder, file), the file locked until the end and still the one of that name."""
        with contextlib.ExitStack() as stack:
            folder = open_folder(self._folder)
            stack.callback(os.close, folder)
            while True:
                fd = open_plain(NAME, os.O_RDWR | os.O_APPEND | create, folder)
                held = stack.enter_context(contextlib.ExitStack())
                held.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX)
                if is_same(NAME, fd, folder):
                    break
                held.close()
            yield folder, fd


def _write_error(error: OSError, shown: str) -> RsoupError:
    return open_error(error, shown) if isinstance(error, FileNotFoundError) else target_error(error, shown)


def _write(folder: int, name: str, flag: int, lines: list[bytes]) -> None:
    fd = open_plain(name, os.O_WRONLY | os.O_CREAT | flag, folder)
    try:
        write_all(fd, memoryview(b"".join(line + b"\n" for line in lines)))
        os.fsync(fd)
    finally:
        os.close(fd)


def _bytes_from(fd: int, start: int) -> bytes:
    parts = []
    while part := os.pread(fd, 1 << 20, start):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
