"""The directory of a zip archive, read so that no two readers could see different members.

Where torch reads the first of two members of a name, Python's zipfile reads the last; where one trusts the
directory, another trusts the headers beside the data. Here both must say the same, and every byte of the
file must belong to something.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rsoup.errors import RefusedFileError, show
from rsoup.storage.pickled.zip_members import STORED, Member, Reader, read_bytes

MAX_DIRECTORY_BYTES = 100_000_000
MAX_MEMBERS = 1_000_000
MAX_NAME_BYTES = 4096
_NO16, _NO32 = 0xFFFF, 0xFFFFFFFF  # in a field: the number stands in the zip64 record
_ENTRY = struct.Struct("<4s4xHH4xLLLHHHH2xLL")
_LOCAL = struct.Struct("<4s2xHH4xLLLHH")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_DESCRIBED = 0x0008  # a record after the data holds the sizes
_UTF8 = 0x0800
_KNOWN_FLAGS = _DESCRIBED | _UTF8 | 0x0006  # 0x6: how hard it was compressed
_ENCRYPTED = 0x2041
_FOLDER = 0x10
_FETCH_AGAIN = "an interrupted download? fetch it again"


def _refuse(shown: str, what: str, hint: str | None = None) -> RefusedFileError:
    return RefusedFileError("E0816", what, where=shown, hint=hint)


def read_directory(reader: Reader, shown: str) -> Mapping[str, Member]:
    """Every member by its name, in the order of their data; members may be compressed, nothing else is odd.

    Raises RefusedFileError E0816 for damage, encryption, parts on other disks, a name twice, members
    that overlap, bytes that belong to no member, and a directory that contradicts the headers.
    """
    begin, count, end = _find_directory(reader, shown)
    members: dict[str, Member] = {}
    folded: set[str] = set()
    for member in _entries(read_bytes(reader, begin, end - begin), count, shown):
        if member.name.lower() in folded:  # torch does not tell upper case from lower
            raise _refuse(shown, f"two members are called '{show(member.name)}'")
        folded.add(member.name.lower())
        members[member.name] = member
    ordered = sorted(members.values(), key=lambda member: member.header)
    placed = {}
    at = 0
    for member in ordered:
        if member.header != at:
            what = "overlaps another" if member.header < at else f"has bytes before it (byte {at})"
            raise _refuse(shown, f"member '{show(member.name)}' {what}")
        data = _check_local(reader, member, begin, shown)
        placed[member.name] = replace(member, begin=data)
        at = data + member.packed + _descriptor(reader, member, data + member.packed, begin, shown)
    if at != begin:
        raise _refuse(shown, f"bytes that belong to no member come before the directory (byte {at})")
    return placed


def _find_directory(reader: Reader, shown: str) -> tuple[int, int, int]:
    """Where the directory begins, how many entries it has, where it ends."""
    if reader.size < _END.size:
        raise _refuse(shown, f"{reader.size} bytes are too few for a zip archive", _FETCH_AGAIN)
    tail = read_bytes(reader, max(0, reader.size - 66_000), min(66_000, reader.size))
    if not tail[-_END.size :].startswith(b"PK\5\6"):
        found = tail.rfind(b"PK\5\6")
        if found < 0:
            raise _refuse(shown, "the archive's directory is missing at its end", _FETCH_AGAIN)
        what = f"{len(tail) - found - _END.size} bytes follow the archive"
        raise _refuse(shown, what, "cut short, or something was appended? fetch it again")
    at = reader.size - _END.size
    _, disk, first, here, count, size, begin, comment = _END.unpack(tail[-_END.size :])
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if len(locator) == _LOCATOR.size and locator.startswith(b"PK\6\7"):
        _, disk64, place, disks = _LOCATOR.unpack(locator)
        at = reader.size - _END.size - _LOCATOR.size - _END64.size
        if (disk64, place, disks) != (0, at, 1) or at < 0:
            raise _refuse(shown, "the archive's zip64 record is not where it should be")
        record = _END64.unpack(read_bytes(reader, at, _END64.size))
        magic, length, _, _, disk64, first64, here64, count64, size64, begin64 = record
        short = ((disk, disk64), (first, first64), (here, here64), (count, count64))
        agree = all(narrow in (wide, _NO16) for narrow, wide in short)
        agree &= all(narrow in (wide, _NO32) for narrow, wide in ((size, size64), (begin, begin64)))
        if magic != b"PK\6\6" or length != _END64.size - 12 or not agree:
            raise _refuse(shown, "the archive's two end records contradict each other")
        disk, first, here, count, size, begin = record[4:]
    if (disk, first, here) != (0, 0, count):
        raise _refuse(shown, "the archive is spread over several disks")
    if size > MAX_DIRECTORY_BYTES or count > MAX_MEMBERS:
        raise _refuse(
            shown, f"the archive has {count} members in a directory of {size} bytes, which is too many"
        )
    if comment or begin + size != at or count * _ENTRY.size > size:
        raise _refuse(shown, "the archive's end record does not fit the file")
    return begin, count, at


def _entries(directory: bytes, count: int, shown: str) -> Iterator[Member]:
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(directory):
            raise _refuse(shown, "the archive's directory ends in the middle")
        fields = _ENTRY.unpack_from(directory, at)
        magic, flags, method, crc, packed, size, name_length, extra_length, comment, disk, kind, header = (
            fields
        )
        middle = at + _ENTRY.size + name_length
        raw, extra = directory[at + _ENTRY.size : middle], directory[middle : middle + extra_length]
        at = middle + extra_length + comment
        if magic != b"PK\1\2" or at > len(directory):
            raise _refuse(shown, "the archive's directory is damaged")
        name = _name(raw, flags, shown)
        if flags & _ENCRYPTED:
            raise _refuse(shown, f"member '{show(name)}' is encrypted")
        if flags & ~_KNOWN_FLAGS or comment or disk or kind & _FOLDER:
            raise _refuse(shown, f"member '{show(name)}' is of a kind no checkpoint has")
        size, packed, header = _widened((size, packed, header), extra, name, shown)
        if method == STORED and size != packed:
            raise _refuse(shown, f"member '{show(name)}' claims {size} bytes and has {packed}")
        yield Member(name, 0, size, packed, crc, method, header, flags)
    if at != len(directory):
        raise _refuse(shown, "the archive's directory holds more than its entries")


def _name(raw: bytes, flags: int, shown: str) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise _refuse(shown, "the name of a member is not UTF-8") from None
    parts = name.split("/")
    steps = not all(parts) or not {".", ".."}.isdisjoint(parts)
    if steps or len(raw) > MAX_NAME_BYTES or "\0" in name or "\\" in name:
        raise _refuse(shown, f"a member has the impossible name '{show(name)}'")
    return name


def _widened(narrow: tuple[int, ...], extra: bytes, name: str, shown: str) -> list[int]:
    """Numbers of 32 bits, those with all bits set read from the zip64 field of `extra` instead."""
    wide = iter(_zip64(extra, name, shown))
    found = [next(wide, -1) if number == _NO32 else number for number in narrow]
    if -1 in found:
        raise _refuse(shown, f"member '{show(name)}' has no size")
    return found


def _zip64(extra: bytes, name: str, shown: str) -> list[int]:
    at = 0
    found: list[int] = []
    while at < len(extra):
        kind, length = struct.unpack_from("<2H", extra.ljust(at + 4), at)
        if at + 4 + length > len(extra):
            raise _refuse(shown, f"member '{show(name)}' has a broken extra field")
        if kind == 1:
            if found or length > 28:
                raise _refuse(shown, f"member '{show(name)}' has two sizes")
            found = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
        at += 4 + length
    return found


def _check_local(reader: Reader, member: Member, limit: int, shown: str) -> int:
    """Where a member's data begins, once the header before it said the same as the directory."""
    raw = member.name.encode()
    begin: int = member.header + _LOCAL.size + len(raw)
    if begin > limit:
        raise _refuse(shown, f"member '{show(member.name)}' lies beyond the directory")
    head = read_bytes(reader, member.header, _LOCAL.size + len(raw))
    magic, flags, method, crc, packed, size, name_length, extra_length = _LOCAL.unpack_from(head)
    data: int = begin + extra_length
    if data + member.packed > limit:
        raise _refuse(shown, f"member '{show(member.name)}' lies beyond the directory")
    same = magic == b"PK\3\4" and (flags, method, name_length) == (member.flags, member.method, len(raw))
    if not same or head[_LOCAL.size :] != raw:
        raise _refuse(shown, f"the header of member '{show(member.name)}' contradicts the directory")
    extra = read_bytes(reader, begin, extra_length) if _NO32 in (packed, size) else b""
    size, packed = _widened((size, packed), extra, member.name, shown)
    later = bool(flags & _DESCRIBED)
    for found, right in ((crc, member.crc), (size, member.size), (packed, member.packed)):
        if found != right and not (later and found == 0):
            raise _refuse(shown, f"the header of member '{show(member.name)}' contradicts the directory")
    return data


def _descriptor(reader: Reader, member: Member, at: int, limit: int, shown: str) -> int:
    """How many bytes the record after a member's data takes; what it says must be what the directory says."""
    if not member.flags & _DESCRIBED:
        return 0
    found = read_bytes(reader, at, min(24, limit - at))
    for form, bits in (("<LLL", _NO32), ("<LQQ", -1)):
        record = struct.pack(form, member.crc, member.packed & bits, member.size & bits)
        for whole in (b"PK\7\x08" + record, record):
            if found.startswith(whole):
                return len(whole)
    if member.size:
        raise _refuse(shown, f"the record after member '{show(member.name)}' contradicts the directory")
    return 0
