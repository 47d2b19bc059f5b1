"""Regular files in an open folder: nothing else is opened, links are not followed, everything is written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat

_CHUNK_BYTES = 1 << 20
_WRITEBACK_BYTES = 1 << 17  # smaller pieces are better left to be written together


def open_plain(name: str, flags: int, folder: int) -> int:
    """A regular file in an open folder, links not followed, pipes not waited for; OSError for anything else."""
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return fd


def write_all(fd: int, data: memoryview, start: int | None = None) -> None:
    """Write all of `data` at byte `start`, or where the file stands."""
    done = 0
    while done < len(data):
        rest = data[done:]
        done += os.write(fd, rest) if start is None else os.pwrite(fd, rest, start + done)


def begin_writeback(fd: int, start: int, size: int) -> None:
    """Let the disk begin with these bytes now, so that the fsync at the end finds little left to wait for."""
    if size >= _WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):  # not on macOS
        with contextlib.suppress(OSError):  # only advice
            os.posix_fadvise(
                fd, start, size, os.POSIX_FADV_DONTNEED
            )  # what is not written yet is written, not dropped


def reserve(fd: int, size: int) -> None:
    """Give the file its size, and its place on the disk where the file system can; ENOSPC comes now."""
    if size == 0:
        return
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(fd, 0, size)
        else:
            os.ftruncate(fd, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        os.ftruncate(fd, size)


def is_as_left(folder: int, name: str, head: bytes, size: int) -> bool:
    """Whether there is a regular file of this size that begins with `head`."""
    try:
        fd = open_plain(name, os.O_RDONLY, folder)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_size == size and os.pread(fd, len(head), 0) == head
    finally:
        os.close(fd)


def sha256(fd: int) -> str:
    """The SHA-256 of all bytes of a file, hexadecimal."""
    digest, at = hashlib.sha256(), 0
    while data := os.pread(fd, _CHUNK_BYTES, at):
        digest.update(data)
        at += len(data)
    return digest.hexdigest()


def remove(path: str) -> None:
    """Remove a file, a link or a whole folder."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def make_folders(name: str, folder: int) -> None:
    """Make the folders above `name` in the folder open as `folder`, where they are missing."""
    above = ""
    for part in name.split("/")[:-1]:
        above = os.path.join(above, part)
        try:
            os.mkdir(above, dir_fd=folder)
        except FileExistsError:
            continue
