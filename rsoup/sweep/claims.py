"""Claims: of several processes and threads on one sweep, one does a point; a killed one's point is free at once.

A claim is an exclusive lock on `claims/KEY`, which the system lets go of when its process ends. The file's lines
say who holds it and carry the mark of the evaluation, so that the next one can end what a killed process left
running. One machine is meant: on network file systems locks may not hold. A child made by a bare `fork` shares the
locks of its parent; programs that are started do not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from rsoup.errors import show_path
from rsoup.storage.parts import is_same, open_folder
from rsoup.storage.plain import open_plain, write_all
from rsoup.storage.target import target_error

FOLDER: Final = "claims"
_NAME = re.compile(r"[0-9A-Za-z_-]{1,128}")
_MAX_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Claim:
    """A point that this thread does and nobody else.

    `orphan_marks` are the marks of earlier evaluations of it, of this boot, that did not end in order: end what
    they left running before you begin. Look into the ledger once you have the claim: the point may be done.
    """

    key: str
    orphan_marks: tuple[str, ...]
    _folder: int
    _fd: int

    def release(self, done: bool) -> None:
        """Let go, once; `done`: nothing of the evaluation runs any more. Otherwise the next one gets its mark."""
        if self._fd < 0:
            return
        try:
            if done:
                with contextlib.suppress(OSError):  # what stays is an old mark that matches nothing
                    os.unlink(self.key, dir_fd=self._folder)
        finally:
            _let_go(self._folder, self._fd)
            self._fd = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(kind is None)


class Claims:
    """The claims of the sweep in `folder`, which must exist."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FOLDER)
        self._shown = show_path(self._path)
        try:
            os.mkdir(self._path)
        except FileExistsError:
            return
        except OSError as error:
            raise target_error(error, self._shown) from error

    def claim(self, key: str, mark: str) -> Claim | None:
        """The claim of a key, with `mark` written down before anything is started; None: somebody else has it.

        Raises TargetError E060x or AccessError E0704 if nothing can be written or locked there, ValueError for a
        key that is no plain name.
        """
        try:
            taken = self._take(key, wait=False)
            if taken is None:
                return None
            folder, fd = taken
            try:
                before = os.pread(fd, _MAX_BYTES, 0)
                line = json.dumps({**_owner(), "mark": mark}).encode("ascii") + b"\n"
                start = b"\n" if before and not before.endswith(b"\n") else b""
                write_all(fd, memoryview(start + line), os.fstat(fd).st_size)
            except BaseException:
                _let_go(folder, fd)
                raise
        except OSError as error:
            raise target_error(error, self._shown) from error
        return Claim(key, _marks(before), folder, fd)

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock of this name (the merge of a batch); False, at once, if somebody has it and `wait` is off.

        Raises as `claim`.
        """
        try:
            taken = self._take(f"{name}_lock", wait=wait)
        except OSError as error:
            raise target_error(error, self._shown) from error
        if taken is None:
            yield False
            return
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                os.unlink(f"{name}_lock", dir_fd=taken[0])
            _let_go(*taken)

    def _take(self, name: str, *, wait: bool) -> tuple[int, int] | None:
        """(folder, locked file); the file is still the one of that name, as its last holder may have removed it."""
        if not _NAME.fullmatch(name):
            raise ValueError("a claim's name is letters, digits, _ and -")
        folder = open_folder(self._path)
        fd = -1
        try:
            while True:
                fd = open_plain(name, os.O_RDWR | os.O_CREAT, folder)
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if is_same(name, fd, folder):
                    return folder, fd
                os.close(fd)
                fd = -1
        except BaseException as error:
            for opened in (fd, folder):
                if opened >= 0:
                    os.close(opened)
            if isinstance(error, BlockingIOError):
                return None
            raise


def _let_go(folder: int, fd: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was just being started may hold a copy
    os.close(fd)
    os.close(folder)


def _owner() -> dict[str, object]:
    """Who this is: process id, its start in clock ticks since boot, the boot; 0 and empty where not known."""
    return {"pid": os.getpid(), "start": _start_ticks(), "boot": _boot()}


def _start_ticks() -> int:
    try:
        with open("/proc/self/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _marks(data: bytes) -> tuple[str, ...]:
    """The marks in a claim's lines that are of this boot; a torn line began nothing."""
    found = []
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("boot") == _boot() and isinstance(value.get("mark"), str):
            found.append(value["mark"])
    return tuple(dict.fromkeys(found))
