"""OUT.rsoup-<plan>.part on the disk: which ones there are, which a running merge holds, removing the others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator

from rsoup.errors import BusyError, TargetError, show
from rsoup.storage import journal

_NAME = re.compile(r"(?P<out>.+)\.rsoup-[0-9a-f]{12}\.part", re.DOTALL)
_PATIENCE_SECONDS = 5.0


def part_name(out_name: str, plan_sha256: str) -> str:
    """The staging folder's name for an output's name and a plan; it lies beside the output."""
    return f"{out_name}.rsoup-{plan_sha256[:12]}.part"


def leftovers(folder: str | int, out_name: str | None = None) -> list[str]:
    """The names of the staging folders in `folder`, of running merges and of interrupted ones, sorted.

    With `out_name`, those for the output of this name.
    """
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if (match := _NAME.fullmatch(entry.name))
            and out_name in (None, match["out"])
            and entry.is_dir(follow_symlinks=False)
        )


def lock(fd: int) -> bool:
    """Hold the folder open as `fd` until it is closed; False if another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here (some network file systems): the final rename decides
    return True


@contextlib.contextmanager
def alone(folder: int) -> Iterator[None]:
    """Hold the lock of the folder open as `folder` for a moment, so that of two runs one sees the other.

    A courtesy: somebody who holds it for long is not waited for.
    """
    patience = time.monotonic() + _PATIENCE_SECONDS
    while not lock(folder) and time.monotonic() < patience:
        time.sleep(0.01)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)


def open_folder(name: str, folder: int | None = None) -> int:
    """A descriptor of a folder, which may be no link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=folder)


def is_held(name: str, folder: int | None = None) -> bool:
    """Whether a running merge holds this staging folder."""
    try:
        fd = open_folder(name, folder)
    except OSError:
        return False
    try:
        return not lock(fd)
    finally:
        os.close(fd)


def is_same(name: str, fd: int, folder: int | None = None) -> bool:
    """Whether `name` is what is open as `fd`."""
    try:
        here = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(here, os.fstat(fd))


def remove_unheld(path: str) -> bool:
    """Remove a staging folder while holding it, so that no merge can take it up meanwhile; False if one has it."""
    fd = open_folder(path)
    try:
        if not lock(fd) or not is_same(path, fd):
            return False
        shutil.rmtree(path)
        return True
    finally:
        os.close(fd)


def resumable(out: str) -> str | None:
    """The staging folder beside `out` that the same command would go on with, if an interruption left one."""
    parent, name = os.path.split(out.rstrip("/"))
    try:
        found = leftovers(parent or ".", name)
    except OSError:
        return None
    for part in found:
        path = os.path.join(parent, part)
        try:
            fd = open_folder(path)
        except OSError:
            continue
        try:
            if journal.is_there(fd):
                return path
        finally:
            os.close(fd)
    return None


def busy(shown: str) -> BusyError:
    """The error of a run that finds another one at work on its output."""
    return BusyError(
        "E7501",
        "another run is making this output",
        where=shown,
        hint="wait for it to end, or choose another -o",
    )


def foreign(part: str) -> TargetError:
    """The error for a staging folder of this name that another user made."""
    return TargetError(
        "E0607",
        "somebody else's folder lies where the soup would be staged",
        where=show(part),
        hint="choose another -o, in a folder only you can write to",
    )
