"""A folder that looks like a checkpoint's and holds no weights: placeholders whose bytes come from the Hub when read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Final

from rsoup.hub.cache import bring, is_cached
from rsoup.hub.choice import local
from rsoup.hub.commit import Commit, RemoteFile, url_of
from rsoup.hub.ranges import fetch
from rsoup.storage.files import Elsewhere, forget_elsewhere, keep_elsewhere

LARGE_BYTES: Final = 1 << 24
_FIRST: Final = 1 << 14
_MAX_HEADER: Final = 100_000_000


class RemoteBytes:
    """The bytes of one file of a commit: its header at hand, the rest by range requests."""

    def __init__(self, commit: Commit, path: str, file: RemoteFile) -> None:
        self._url = url_of(commit.repo, commit.id, path)
        self._where = f"{commit.repo}@{commit.id[:12]}/{path}"
        self._nbytes = file.nbytes
        self.head = b""
        self.stamp: tuple[object, ...] = ("hub", commit.repo, commit.id, path, file.nbytes, file.sha256)

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` on."""
        ready = min(max(0, len(self.head) - start), len(buffer))
        buffer[:ready] = self.head[start : start + ready]
        if ready < len(buffer):
            fetch(self._url, start + ready, buffer[ready:], self._nbytes, self._where)

    def fetch_head(self) -> None:
        """Have the first 16 KiB, and all of the header where the file is safetensors'."""
        self.head = self._bytes(min(_FIRST, self._nbytes))
        length = 8 + int.from_bytes(self.head[:8], "little")
        if self._url.endswith(".safetensors") and len(self.head) < length <= min(self._nbytes, _MAX_HEADER):
            self.head = self._bytes(length)

    def _bytes(self, count: int) -> bytes:
        buffer = bytearray(count)
        self.read(0, memoryview(buffer))
        return bytes(buffer)


class Mount:
    """A temporary folder of a commit's files: small ones as they are, weights as placeholders. Closed with its source."""

    def __init__(self, commit: Commit, folder: str, names: Sequence[str], weights: Sequence[str]) -> None:
        """`names` are files in `folder` of the repository; `weights` those of them that are never downloaded."""
        assert commit.files is not None
        self._keys: list[tuple[int, int]] = []
        self.folder = tempfile.mkdtemp(prefix="rsoup-hub-")
        prefix = f"{folder}/" if folder else ""
        try:
            far = [n for n in names if n in weights or commit.files[prefix + n].nbytes > LARGE_BYTES]
            far = [n for n in far if not is_cached(commit, prefix + n) or n in weights]
            near = [prefix + n for n in names if n not in far]
            bring(commit, near)
            for path in near:
                self._put(path.removeprefix(prefix), local(commit.folder, path))
            for name in far:
                self._place(commit, prefix + name, name)
        except BaseException:
            self.close()
            raise

    def _put(self, name: str, source: str) -> None:
        at = local(self.folder, name)
        os.makedirs(os.path.dirname(at), exist_ok=True)
        shutil.copyfile(source, at)

    def _place(self, commit: Commit, path: str, name: str) -> None:
        assert commit.files is not None
        file = commit.files[path]
        remote = RemoteBytes(commit, path, file)
        remote.fetch_head()
        at = local(self.folder, name)
        os.makedirs(os.path.dirname(at), exist_ok=True)
        with open(at, "wb") as placeholder:
            placeholder.write(remote.head)
            placeholder.truncate(file.nbytes)
            status = os.fstat(placeholder.fileno())
        key = (status.st_dev, status.st_ino)
        found: Elsewhere = remote
        keep_elsewhere(key, found)
        self._keys.append(key)

    def close(self) -> None:
        """Forget the placeholders and remove the folder."""
        keys, self._keys = self._keys, []
        for key in keys:
            forget_elsewhere(key)
        shutil.rmtree(self.folder, ignore_errors=True)
