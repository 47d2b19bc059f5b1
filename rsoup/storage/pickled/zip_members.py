"""The members of a zip archive: their bytes, inflated within limits, checked against their checksums."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from rsoup.errors import RefusedFileError, show

_CHUNK_BYTES = 1 << 20
STORED, DEFLATED = 0, 8


class Reader(Protocol):
    """Bytes that can be read at any place."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` on."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a reader as a reader of its own: an archive inside an archive."""

    reader: Reader
    begin: int
    size: int

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` of the window on."""
        if start < 0 or start + len(buffer) > self.size:
            msg = f"bytes {start} to {start + len(buffer)} are not all in a window of {self.size}"
            raise ValueError(msg)
        self.reader.read(self.begin + start, buffer)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive: its `size` bytes, which lie packed in `packed` bytes from `begin` on."""

    name: str
    begin: int
    size: int
    packed: int
    crc: int
    method: int
    header: int
    flags: int

    @property
    def stored(self) -> bool:
        """Whether the bytes lie in the file as they are, not compressed."""
        return self.method == STORED


def _refuse(shown: str, what: str, hint: str | None = None) -> RefusedFileError:
    return RefusedFileError("E0816", what, where=shown, hint=hint)


def read_bytes(reader: Reader, begin: int, count: int) -> bytes:
    """`count` bytes from byte `begin` on."""
    buffer = bytearray(count)
    reader.read(begin, memoryview(buffer))
    return bytes(buffer)


def read_member(reader: Reader, member: Member, limit: int, shown: str, *, checked: bool = True) -> bytes:
    """The bytes of a member of at most `limit` bytes, inflated if need be; E0816 if the checksum is wrong.

    No more than `limit` bytes are ever made, whatever the directory says.
    """
    if max(member.size, member.packed if member.stored else 0) > limit:
        raise _refuse(shown, f"member '{show(member.name)}' has {member.size} bytes; {limit} is the limit")
    if member.stored:
        data = read_bytes(reader, member.begin, member.size)
    else:
        data = _inflated(reader, member, shown)
    if len(data) != member.size or (checked and zlib.crc32(data) != member.crc):
        raise _damaged(member, shown)
    return data


def _damaged(member: Member, shown: str) -> RefusedFileError:
    return _refuse(
        shown, f"member '{show(member.name)}' is damaged: its checksum is another", "fetch the file again"
    )


def _inflated(reader: Reader, member: Member, shown: str) -> bytes:
    if member.method != DEFLATED:
        raise _refuse(
            shown, f"member '{show(member.name)}' is compressed by the unknown method {member.method}"
        )
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    made = bytearray()
    end = member.begin + member.packed
    try:
        for at in range(member.begin, end, _CHUNK_BYTES):
            packed = read_bytes(reader, at, min(_CHUNK_BYTES, end - at))
            made += machine.decompress(packed, member.size + 1 - len(made))
            if machine.eof or len(made) > member.size:
                break
    except zlib.error:
        raise _damaged(member, shown) from None
    if not machine.eof or machine.unused_data or at + _CHUNK_BYTES < end:
        raise _damaged(member, shown)
    return bytes(made)


def check_crcs(reader: Reader, members: Iterable[Member], shown: str) -> None:
    """Read every byte of stored members; RefusedFileError E0816 where one is not what was written."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    for member in members:
        crc, end = 0, member.begin + member.size
        for at in range(member.begin, end, _CHUNK_BYTES):
            part = buffer[: end - at]
            reader.read(at, part)
            crc = zlib.crc32(part, crc)
        if crc != member.crc:
            raise _damaged(member, shown)
