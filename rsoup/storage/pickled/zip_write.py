"""The bytes of a zip archive around members that are written into it later; nothing in it is compressed."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.errors import TargetError

_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 20
_NO16, _NO32 = 0xFFFF, 0xFFFFFFFF
_UTF8 = 0x0800
_MIDNIGHT = (0, 0x21)  # 1 January 1980, the first day a zip archive knows
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_CRC_IN_LOCAL, _CRC_IN_ENTRY = 14, 16
_PADDING = 0x4246  # the extra field torch aligns data with: "FB"


@dataclass(frozen=True, slots=True)
class CrcPlace:
    """A member whose checksum is known once its bytes are: where they lie, and where it has to be written."""

    begin: int
    nbytes: int
    places: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive before its tensors are there: all other bytes, and where each tensor goes.

    `crc_places` are in the order in which they have to be filled in.
    """

    pieces: tuple[tuple[int, bytes], ...]
    offsets: Mapping[str, int]
    nbytes: int
    crc_places: tuple[CrcPlace, ...]


def fill_crcs(fd: int, crcs: Sequence[CrcPlace]) -> None:
    """Write the checksums of members into a file whose bytes are all there, reading them back, in this order."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    for member in crcs:
        crc, end = 0, member.begin + member.nbytes
        at = member.begin
        while at < end:
            got = os.preadv(fd, [buffer[: end - at]], at)
            if got == 0:
                raise TargetError("E0603", "the output was cut while it was written")
            crc = zlib.crc32(buffer[:got], crc)
            at += got
        for place in member.places:
            os.pwrite(fd, struct.pack("<L", crc), place)


@dataclass(frozen=True, slots=True)
class _Placed:
    name: bytes
    header: int
    begin: int
    nbytes: int
    crc: int | None  # None: known later


class ZipLayout:
    """A zip archive that grows member by member; the data of each is aligned, as torch wants it."""

    def __init__(self) -> None:
        self._at = 0
        self._pieces: list[tuple[int, bytes]] = []
        self._members: list[_Placed] = []
        self._inner: list[CrcPlace] = []

    def add(self, name: str, data: bytes) -> None:
        """A member that is known."""
        begin = self._member(name, len(data), zlib.crc32(data))
        self._pieces.append((begin, data))

    def leave(self, name: str, nbytes: int) -> int:
        """Room for `nbytes` bytes; where they begin."""
        return self._member(name, nbytes, None if nbytes else 0)

    def nest(self, name: str, archive: Archive) -> int:
        """A member that is an archive itself; where it begins."""
        begin = self.leave(name, archive.nbytes)
        self._pieces += [(begin + at, piece) for at, piece in archive.pieces]
        self._inner += [
            CrcPlace(begin + crc.begin, crc.nbytes, (begin + crc.places[0], begin + crc.places[1]))
            for crc in archive.crc_places
        ]
        return begin

    def _member(self, name: str, nbytes: int, crc: int | None) -> int:
        raw = name.encode()
        wide = nbytes >= _NO32
        sizes = struct.pack("<2H2Q", 1, 16, nbytes, nbytes) if wide else b""
        before = self._at + _LOCAL.size + len(raw) + len(sizes) + 4
        padding = -before % _ALIGNMENT
        extra = sizes + struct.pack("<2H", _PADDING, padding) + b"Z" * padding
        size = _NO32 if wide else nbytes
        head = _LOCAL.pack(b"PK\3\4", 45, _UTF8, 0, *_MIDNIGHT, crc or 0, size, size, len(raw), len(extra))
        placed = _Placed(raw, self._at, self._at + len(head) + len(raw) + len(extra), nbytes, crc)
        self._pieces.append((self._at, head + raw + extra))
        self._members.append(placed)
        self._at = placed.begin + nbytes
        return placed.begin

    def finished(self, offsets: Mapping[str, int]) -> Archive:
        """The whole archive, whose tensors lie at `offsets`."""
        begin = self._at
        entries: list[bytes] = []
        crcs: list[CrcPlace] = []
        for member in self._members:
            if member.crc is None:
                places = (member.header + _CRC_IN_LOCAL, self._at + _CRC_IN_ENTRY)
                crcs.append(CrcPlace(member.begin, member.nbytes, places))
            entries.append(_entry(member))
            self._at += len(entries[-1])
        end = _end(len(entries), begin, self._at)
        self._pieces.append((begin, b"".join(entries) + end))
        return Archive(tuple(self._pieces), offsets, self._at + len(end), (*self._inner, *crcs))


def _entry(member: _Placed) -> bytes:
    """A member's row in the directory; numbers too large for it go into a zip64 field."""
    numbers = (member.nbytes, member.nbytes, member.header)
    wide = [number for number in numbers if number >= _NO32]
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    size, packed, header = (min(number, _NO32) for number in numbers)
    row = _ENTRY.pack(
        b"PK\1\2", 45, 45, _UTF8, 0, *_MIDNIGHT, member.crc or 0, packed, size,
        len(member.name), len(extra), 0, 0, 0, 0, header,
    )  # fmt: skip
    return row + member.name + extra


def _end(count: int, begin: int, end: int) -> bytes:
    size = end - begin
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    few, short, place = min(count, _NO16), min(size, _NO32), min(begin, _NO32)
    return wide + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, few, few, short, place, 0)
