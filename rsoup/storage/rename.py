"""Putting a finished folder or file in its place in one step: never half there, never over something unseen."""

from __future__ import annotations

import ctypes
import errno
import os

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def _renameat2(old: str, new: str, flags: int, dir_fd: int | None) -> bool:
    """Rename by the one system call that can refuse or exchange; False where the system does not have it."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    at = _AT_FDCWD if dir_fd is None else dir_fd
    if function(at, os.fsencode(old), at, os.fsencode(new), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), new)


def exists(path: str, *, dir_fd: int | None = None) -> bool:
    """Whether there is anything under this name, be it a link that leads nowhere."""
    try:
        os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def rename_new(old: str, new: str, *, dir_fd: int | None = None) -> None:
    """Rename `old` to `new`, which must not exist: FileExistsError if it does, even as an empty folder.

    Relative names start in the folder open as `dir_fd`. Where the system cannot refuse by itself, a file
    is linked (which refuses) and a folder renamed (which replaces at most an empty folder).
    """
    if _renameat2(old, new, _NOREPLACE, dir_fd):
        return
    if exists(new, dir_fd=dir_fd):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    try:
        os.link(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        pass  # a folder, or a file system without links
    else:
        os.unlink(old, dir_fd=dir_fd)
        return
    try:
        os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from error
        raise


def exchange(old: str, new: str, *, dir_fd: int | None = None) -> None:
    """Let `old` and `new`, which both exist, change places, so that at no time one of them is missing.

    Relative names start in the folder open as `dir_fd`. Where the system cannot do that, `new` is set
    aside for a moment; a crash in that moment leaves it beside its place under the name `new.rsoup-old`.
    """
    if _renameat2(old, new, _EXCHANGE, dir_fd):
        return
    aside = f"{new}.rsoup-old"
    if exists(aside, dir_fd=dir_fd):
        raise OSError(errno.ENOTEMPTY, f"{aside}, left by a crash, is in the way", aside)

    def rename(a: str, b: str) -> None:
        os.rename(a, b, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    rename(new, aside)
    try:
        rename(old, new)
    except BaseException:
        rename(aside, new)
        raise
    rename(aside, old)


def sync_folder(path: str | int) -> None:
    """Make the names in a folder durable. EINVAL (some network file systems) is tolerated, EIO is not."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(path, str) else path
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        if isinstance(path, str):
            os.close(fd)
