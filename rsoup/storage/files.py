"""Opening files that others wrote: regular files only, inside their folder only, watched for changes."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rsoup.errors import AccessError, RefusedFileError, RsoupError, TargetError, show

MAX_JSON_BYTES = 100_000_000


class Elsewhere(Protocol):
    """The bytes of a file that has only a placeholder here; `stamp` differs when they may differ."""

    @property
    def stamp(self) -> tuple[object, ...]:
        """What the bytes are those of."""

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` on."""

    def check(self) -> None:
        """Raise RefusedFileError where what was read is not what it should have been, as far as that can be known."""


_elsewhere: dict[
    tuple[int, int], Elsewhere
] = {}  # (device, inode) of placeholders, while their folder is there


def keep_elsewhere(place: tuple[int, int], found: Elsewhere) -> None:
    """From now on the file at `place` (device, inode) is read from `found`; whoever made it forgets it, too."""
    _elsewhere[place] = found


def forget_elsewhere(place: tuple[int, int]) -> None:
    """The file at `place` is about to be removed."""
    _elsewhere.pop(place, None)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file held open for reading, with what it looked like when it was opened.

    Where it is a placeholder, its bytes come from `elsewhere`.
    """

    path: str
    shown: str
    fd: int
    size: int
    stamp: tuple[object, ...]
    elsewhere: Elsewhere | None = None

    @property
    def plain(self) -> int | None:
        """Its descriptor, unless its bytes are elsewhere."""
        return self.fd if self.elsewhere is None else None

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` on; RefusedFileError E0804 if the file ends too early."""
        if self.elsewhere is not None:
            if start + len(buffer) > self.size:
                raise changed(self.shown)
            self.elsewhere.read(start, buffer)
            return
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self.fd, [buffer[done:]], start + done)
            except OSError as error:
                raise RefusedFileError(
                    "E0806",
                    f"reading byte {start + done} failed: {error.strerror}",
                    where=self.shown,
                    hint="check the disk, then run the same command again",
                ) from error
            if got == 0:
                raise changed(self.shown)
            done += got

    def check_unchanged(self) -> None:
        """Raise RefusedFileError E0804 if size, time of change or identity are not what they were.

        What lies elsewhere is proven now, if it can be: what its `check` raises.
        """
        if self.elsewhere is not None:
            self.elsewhere.check()
        elif _stamp(os.fstat(self.fd)) != self.stamp:
            raise changed(self.shown)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)


def changed(shown: str) -> RefusedFileError:
    """The error for a file that was rewritten or cut while rsoup read it."""
    return RefusedFileError(
        "E0804",
        "the file changed while it was read",
        where=shown,
        hint="wait until nobody writes to it, then run the same command again",
    )


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_regular(path: str, shown: str) -> OpenFile:
    """`path` opened for reading if it is a regular file; a FIFO, device, socket or folder is refused at once.

    Raises AccessError E0701 (not there, no permission), RefusedFileError E0807 (not a regular file).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise open_error(error, shown) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise RefusedFileError("E0807", f"this is {_kind(status.st_mode)}, not a regular file", where=shown)
    found = _elsewhere.get((status.st_dev, status.st_ino))
    stamp = _stamp(status) if found is None else found.stamp
    return OpenFile(path, shown, fd, status.st_size, stamp, found)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


_SPELLING = "check the spelling; relative paths start where you are"
_OWNER = "ask its owner, or copy it somewhere you may read"
_OPENING: Mapping[int, tuple[type[RsoupError], str, str, str | None]] = {
    errno.ENOENT: (AccessError, "E0701", "no such file or folder", _SPELLING),
    errno.ENAMETOOLONG: (AccessError, "E0701", "the path is too long for this file system", None),
    errno.EACCES: (AccessError, "E0702", "no permission to read it", _OWNER),
    errno.EPERM: (AccessError, "E0702", "no permission to read it", _OWNER),
    errno.ELOOP: (RefusedFileError, "E0807", "the symbolic links go round in a loop", None),
    errno.ENXIO: (RefusedFileError, "E0807", "this is a socket or a device, not a regular file", None),
    errno.EMFILE: (
        TargetError,
        "E0606",
        "too many open files for this process",
        "raise the limit: ulimit -n 4096",
    ),
}


def open_error(error: OSError | ValueError, shown: str) -> RsoupError:
    """The error for a path that cannot be opened, in words."""
    if isinstance(error, FileNotFoundError) and os.path.islink(error.filename):
        return RefusedFileError(
            "E0807", "this link points to nothing", where=shown, hint="fetch the file it stands for again"
        )
    if isinstance(error, OSError) and error.errno is not None and error.errno in _OPENING:
        kind, code, what, hint = _OPENING[error.errno]
        return kind(code, what, where=shown, hint=hint)
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return AccessError("E0701", f"it cannot be opened: {show(reason)}", where=shown)


def read_whole(path: str, shown: str, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes; RefusedFileError E0805 beyond that."""
    opened = open_regular(path, shown)
    try:
        if opened.size > limit:
            raise RefusedFileError(
                "E0805", f"the file has {opened.size} bytes; {limit} is the limit", where=shown
            )
        buffer = bytearray(opened.size)
        opened.read(0, memoryview(buffer))
        return bytes(buffer)
    finally:
        opened.close()


def parse_json(data: bytes, shown: str) -> object:
    """The value of a JSON text in UTF-8 without duplicate keys or NaN.

    `Infinity` is no JSON either, but transformers 4 wrote it (the time step limit of Mamba 2). Raises
    RefusedFileError E0808 for anything else.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_distinct, parse_constant=_constant)
    except UnicodeDecodeError:
        what = "it is not UTF-8"
    except RecursionError:
        what = "it is nested too deeply"
    except ValueError as error:
        what = show(error)
    raise RefusedFileError("E0808", f"not a JSON file rsoup can trust: {what}", where=shown)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        msg = f"the key '{show(next(key for key in keys if keys.count(key) > 1))}' occurs twice"
        raise ValueError(msg)
    return result


def _constant(text: str) -> float:
    if text == "NaN":
        msg = f"{text} is not JSON"
        raise ValueError(msg)
    return float(text)


def safe_name(name: str) -> bool:
    """Whether `name` names a file in its own folder and nothing else, on any operating system."""
    return (
        0 < len(name) <= 255
        and name not in (".", "..")
        and not any(character in "/\\:" or ord(character) < 32 for character in name)
        and not any("\ud800" <= character <= "\udfff" for character in name)
    )


def stays_inside(folder: str, relative: str) -> bool:
    """Whether `folder/relative` leads, links followed, to a file of the same folder or the same Hub cache.

    A Hub cache keeps `models--org--name/snapshots/REV/file` as links into `models--org--name/blobs`.
    """
    root = os.path.realpath(folder)
    target = os.path.realpath(os.path.join(folder, relative))
    if target.startswith(root.rstrip("/") + "/"):
        return True
    repository, snapshots, _ = root.rpartition("/snapshots/")
    return bool(snapshots) and os.path.dirname(target) == f"{repository}/blobs"
