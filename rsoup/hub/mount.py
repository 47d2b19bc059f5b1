"""A folder that looks like a checkpoint's and holds no weights: placeholders whose bytes come from the Hub when read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rsoup.errors import RefusedFileError, show
from rsoup.hub.cache import bring, is_cached, wrong_bytes
from rsoup.hub.choice import local
from rsoup.hub.commit import Commit, RemoteFile, url_of
from rsoup.hub.ranges import Ranges
from rsoup.remote.file import StreamedFile, join, leave
from rsoup.remote.halting import Halt
from rsoup.remote.pool import Lane, dismiss, hire
from rsoup.storage.files import Elsewhere, OpenFile, forget_elsewhere, keep_elsewhere, open_regular

LARGE_BYTES: Final = 1 << 24
_FIRST: Final = 1 << 14
_AT_ONCE: Final = 8
_MAX_HEADER: Final = 100_000_000


class RemoteBytes:
    """The bytes of one file of a commit: its header at hand, the rest by range requests, none of them proven."""

    def __init__(self, commit: Commit, path: str, file: RemoteFile) -> None:
        self.has_header = path.endswith(".safetensors")
        self.where = f"{commit.repo}@{commit.id[:12]}/{show(path)}"
        self.nbytes, self.sha256 = file.nbytes, file.sha256
        self.ranges = Ranges(url_of(commit.repo, commit.id, path), file.nbytes, self.where)
        self.head = b""
        self.stamp: tuple[object, ...] = ("hub", commit.repo, commit.id, path, file.nbytes, file.sha256)

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` on."""
        ready = min(max(0, len(self.head) - start), len(buffer))
        buffer[:ready] = self.head[start : start + ready]
        if ready < len(buffer):
            self.ranges.fetch(start + ready, buffer[ready:], Halt())

    def check(self) -> None:
        """Nothing: what is read here and there has no digest."""


def head_of(read: Callable[[int, memoryview], None], nbytes: int, *, has_header: bool) -> bytes:
    """The first 16 KiB of a file, and all of its header where it is safetensors'."""
    head = memoryview(bytearray(min(_FIRST, nbytes)))
    read(0, head)
    length = 8 + int.from_bytes(head[:8], "little")
    if has_header and len(head) < length <= min(nbytes, _MAX_HEADER):
        head = memoryview(bytearray(head) + bytearray(length - len(head)))
        read(_FIRST, head[_FIRST:])
    return bytes(head)


class KeptBytes:
    """The bytes of a file that lies in the shared cache, beside others that do not."""

    def __init__(self, path: str, shown: str) -> None:
        self._file: OpenFile = open_regular(os.path.realpath(path), shown)
        self.stamp = self._file.stamp

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` on."""
        self._file.read(start, buffer)

    def check(self) -> None:
        """Raise RefusedFileError E0804 if somebody wrote to it."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


class Mount:
    """A temporary folder of a commit's files: small ones as they are, weights as placeholders. Closed with its source."""

    def __init__(
        self,
        commit: Commit,
        folder: str,
        names: Sequence[str],
        weights: Sequence[str],
        *,
        stream: bool,
        in_parts: bool = False,
    ) -> None:
        """`names` are files in `folder` of the repository; `weights` those of them that are never downloaded.

        With `stream` they are read as streams and proven (`in_parts`: where they happen to be read whole), else a range
        at a time as it is asked for.
        """
        assert commit.files is not None
        self._keys: list[tuple[int, int]] = []
        self._lane: Lane | None = hire() if stream else None
        self._in_parts = in_parts
        self.streams: list[tuple[str, StreamedFile]] = []
        self._kept: list[KeptBytes] = []
        self.folder = tempfile.mkdtemp(prefix="rsoup-hub-")
        prefix = f"{folder}/" if folder else ""
        try:
            far = [n for n in names if n in weights or commit.files[prefix + n].nbytes > LARGE_BYTES]
            far = [n for n in far if not is_cached(commit, prefix + n) or n in weights]
            near = [prefix + n for n in names if n not in far]
            bring(commit, near)
            for path in near:
                self._put(path.removeprefix(prefix), local(commit.folder, path))
            with ThreadPoolExecutor(_AT_ONCE) as several:
                found = several.map(lambda name: self._found(commit, prefix + name), far)
                for name, (head, elsewhere) in zip(far, found, strict=True):
                    self._place(name, commit.files[prefix + name].nbytes, head, elsewhere)
        except BaseException:
            self.close()
            raise

    def _put(self, name: str, source: str) -> None:
        at = local(self.folder, name)
        os.makedirs(os.path.dirname(at), exist_ok=True)
        shutil.copyfile(source, at)

    def _place(self, name: str, nbytes: int, head: bytes, found: Elsewhere) -> None:
        at = local(self.folder, name)
        os.makedirs(os.path.dirname(at), exist_ok=True)
        with open(at, "wb") as placeholder:
            placeholder.write(head)
            placeholder.truncate(nbytes)
            status = os.fstat(placeholder.fileno())
        key = (status.st_dev, status.st_ino)
        keep_elsewhere(key, found)
        self._keys.append(key)

    def _found(self, commit: Commit, path: str) -> tuple[bytes, Elsewhere]:
        """(the first bytes of a file, all of them)."""
        assert commit.files is not None
        file = commit.files[path]
        remote = RemoteBytes(commit, path, file)
        if self._lane is not None and is_cached(commit, path):
            kept = KeptBytes(local(commit.folder, path), remote.where)
            self._kept.append(kept)
            return head_of(kept.read, file.nbytes, has_header=remote.has_header), kept
        remote.head = head_of(remote.read, file.nbytes, has_header=remote.has_header)
        if self._lane is None:
            return remote.head, remote
        made = join(self._lane, remote.stamp, streamed(self._lane, remote, lambda: wrong_bytes(commit, path)))
        made.in_parts = self._in_parts
        self.streams.append((path, made))
        return remote.head, made

    def close(self) -> None:
        """Forget the placeholders, end what is streamed and remove the folder."""
        keys, self._keys = self._keys, []
        for key in keys:
            forget_elsewhere(key)
        lane, self._lane = self._lane, None
        if lane is not None:
            for _, file in self.streams:
                leave(file)
            dismiss(lane)
        kept, self._kept = self._kept, []
        for one in kept:
            one.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def streamed(
    lane: Lane, remote: RemoteBytes, wrong: Callable[[], RefusedFileError]
) -> Callable[[], StreamedFile]:
    """What makes the stream of a file whose header is here."""
    return lambda: StreamedFile(
        remote.ranges.fetch, remote.nbytes, lane, head=remote.head, sha256=remote.sha256, stamp=remote.stamp,
        wrong=wrong, differ=lambda: differing(remote.where),
    )  # fmt: skip


def differing(where: str) -> RefusedFileError:
    """The error for a part of a file that came twice and was not the same."""
    return RefusedFileError("E0740", "a part of the file came twice, with different bytes", where=where,
                            hint="a broken proxy or storage? try again over another network, or with --cache")  # fmt: skip
