"""Putting a finished folder or file in its place in one step: never half there, never over something unseen."""

from __future__ import annotations

import ctypes
import errno
import os

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def _renameat2(old: str, new: str, flags: int) -> bool:
    """Rename by the one system call that can refuse or exchange; False where the system does not have it."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), new)


def rename_new(old: str, new: str) -> None:
    """Rename `old` to `new`, which must not exist: FileExistsError if it does, even as an empty folder."""
    if _renameat2(old, new, _NOREPLACE):
        return
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new)


def exchange(old: str, new: str) -> None:
    """Let `old` and `new`, which both exist, change places, so that at no time one of them is missing.

    Where the system cannot do that, `new` is set aside for a moment; a crash in that moment leaves it
    beside its place under the name `new.rsoup-old`.
    """
    if _renameat2(old, new, _EXCHANGE):
        return
    aside = f"{new}.rsoup-old"
    os.rename(new, aside)
    try:
        os.rename(old, new)
    except OSError:
        os.rename(aside, new)
        raise
    os.rename(aside, old)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable. EINVAL (some network file systems) is tolerated, EIO is not."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)
