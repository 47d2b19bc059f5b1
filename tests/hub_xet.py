"""The Xet storage of the tests' Hub: a folder that hf_xet itself writes to and reads from.

The client names files by sha256 when it commits and by Xet hash when it downloads; which is which stands in the
shards it leaves in the folder (records of 48 bytes: a file's hash, flags and count, its segments, a check of
each, then its sha256).
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

RECORD = 48
CHECKED, DESCRIBED = 1 << 31, 1 << 30
END = b"\xff" * 32


class XetStorage:
    """Chunks of large files under `folder`; nothing there until a client with Xet has uploaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"local://{folder}"
        self.read: set[Path] = set()
        self.known: dict[str, str] = {}

    def hashes(self) -> dict[str, str]:
        """sha256 -> Xet hash of every file that is here."""
        for shard in sorted(self.folder.glob("xet/xorbs/shards/*.mdb")):
            if shard not in self.read:
                self.known.update(described(shard.read_bytes()))
                self.read.add(shard)
        return self.known

    def restore(self, sha256: str, size: int, objects: MutableMapping[str, bytes]) -> bool:
        """Put a file's bytes into `objects`, made again from its chunks; False where it isn't here."""
        import hf_xet

        if sha256 not in self.hashes():
            return False
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as folder:
            path = Path(folder) / "file"
            # A copy: the client that uploads still holds the lock of its own folder's index.
            shutil.copytree(self.folder / "xet/xorbs", Path(folder) / "xet/xorbs", copy_function=linked)
            session = hf_xet.XetSession()
            with session.new_file_download_group(
                endpoint=f"local://{folder}", token="xet", token_expiry_unix_secs=4102444800
            ) as group:
                group.start_download_file(hf_xet.XetFileInfo(self.known[sha256], size), str(path))
            objects[sha256] = path.read_bytes()
        return True


def linked(source: str, target: str) -> None:
    """Chunks and shards never change: a link does; the index is copied."""
    if source.endswith(".redb"):
        shutil.copyfile(source, target)
    else:
        os.link(source, target)


def described(shard: bytes) -> Iterator[tuple[str, str]]:
    """(sha256, Xet hash) of the files a shard describes."""
    at = RECORD
    while shard[at : at + 32] != END:
        name, (flags, count) = shard[at : at + 32], struct.unpack_from("<II", shard, at + 32)
        at += RECORD * (1 + count * (2 if flags & CHECKED else 1))
        if flags & DESCRIBED:
            yield written(shard[at : at + 32]), written(name)
            at += RECORD


def written(hash_bytes: bytes) -> str:
    """A hash as Xet writes it: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", hash_bytes))
