"""Zip archives: two readers can never see different members in one that is read here."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_corpus import Memory, saved, table, tensor, unzipped, zipped

from rsoup.errors import RefusedFileError
from rsoup.storage.pickled.torch_zip import read_torch_archive
from rsoup.storage.pickled.zip_directory import read_directory
from rsoup.storage.pickled.zip_members import Window, check_crcs, read_member

GOOD = saved({"w": torch.arange(6.0)})
LOCAL, ENTRY, END, END64, LOCATOR, DESCRIPTOR = (
    b"PK\3\4",
    b"PK\1\2",
    b"PK\5\6",
    b"PK\6\6",
    b"PK\6\7",
    b"PK\7\x08",
)


def refusal(data: bytes) -> str:
    """What is said of an archive that is refused."""
    with pytest.raises(RefusedFileError) as caught:
        read_torch_archive(Memory(data), "file.pt")
    assert (caught.value.code, caught.value.where) == ("E0816", "file.pt")
    return caught.value.message


def patched(data: bytes, magic: bytes, offset: int, field: bytes, nth: int = 0) -> bytes:
    """An archive with some bytes of its n-th header of a kind replaced."""
    at = -1
    for _ in range(nth + 1):
        at = data.index(magic, at + 1)
    at += offset
    return data[:at] + field + data[at + len(field) :]


@pytest.mark.parametrize("name", ["model.pt", "a b.bin", "modèle.pth", "archive"])
def test_what_torch_writes_is_read(name: str, tmp_path: Path) -> None:
    """Every member of torch's archives, which are named after the file, is found where its bytes lie."""
    torch.save({"w": torch.arange(6.0), "v": torch.zeros(0), "u": torch.ones(1000)}, tmp_path / name)
    data = (tmp_path / name).read_bytes()

    archive = read_torch_archive(Memory(data), name)

    members = {f"{archive.root}/{short}": member for short, member in archive.members.items()}
    assert {n: data[m.begin : m.begin + m.size] for n, m in members.items()} == unzipped(data)
    assert not archive.unchecked


def test_what_python_writes_is_read() -> None:
    """Archives that were packed again by Python, with or without sizes known beforehand, are read too."""
    members = unzipped(GOOD)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)

    for data in (zipped(members), stream.getvalue()):
        found = read_torch_archive(Memory(data), "file.pt")
        assert {f"{found.root}/{short}" for short in found.members} == members.keys()


def test_archives_without_seeking_are_read() -> None:
    """A writer that cannot go back puts sizes and checksums behind the data."""

    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, part: bytes) -> int:  # type: ignore[override]
            self.data += bytes(part)
            return len(part)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:  # type: ignore[arg-type]
        for name, data in unzipped(GOOD).items():
            archive.writestr(name, data)

    assert DESCRIPTOR in pipe.data
    assert "data.pkl" in read_torch_archive(Memory(pipe.data), "file.pt").members


SIZE = len(GOOD)
MEMBERS = unzipped(GOOD)
TWICE = [
    ("a/data.pkl", table(w=tensor())),
    ("a/version", b"3\n"),
    ("a/data/0", bytes(24)),
    ("a/data/0", bytes(24)),
]


def twice(other: str = "a/data/0") -> bytes:
    """An archive with two members of one name."""
    stream = io.BytesIO()
    with (
        pytest.warns(UserWarning, match="Duplicate") if other == "a/data/0" else io.BytesIO(),
        zipfile.ZipFile(stream, "w") as archive,
    ):  # type: ignore[union-attr]
        for name, data in TWICE[:3]:
            archive.writestr(name, data)
        archive.writestr(other, bytes(24))
    return stream.getvalue()


def between(data: bytes) -> bytes:
    """An archive with four bytes between the last member and the directory, all offsets right."""
    at = data.index(ENTRY)
    end = data.index(END)
    begin = struct.unpack_from("<L", data, end + 16)[0]
    return data[:at] + b"junk" + data[at : end + 16] + struct.pack("<L", begin + 4) + data[end + 20 :]


PYTHONS = zipped(MEMBERS)
BAD = {
    "D4 compressed": (lambda: zipped(MEMBERS, zipfile.ZIP_DEFLATED), "is compressed; torch.save never compresses"),
    "D4 bomb": (lambda: zipped({**MEMBERS, "archive/data/0": bytes(1 << 28)}, zipfile.ZIP_DEFLATED), "compressed"),
    "D4 lzma": (lambda: zipped(MEMBERS, zipfile.ZIP_LZMA), "is compressed; torch.save never"),
    "D9 size in the directory": (lambda: patched(PYTHONS, ENTRY, 24, b"\xff", 0), "claims 255 bytes and has"),
    "D9 both sizes": (lambda: patched(PYTHONS, ENTRY, 20, b"\1\0\0\0\1\0\0\0"), "contradicts the directory"),
    "D9 size beyond the file": (lambda: patched(PYTHONS, ENTRY, 20, b"\xff\xff\xff\x7f" * 2), "lies beyond"),
    "D9 size at the data": (lambda: patched(PYTHONS, LOCAL, 18, b"\1\0\0\0\1\0\0\0"), "contradicts the directory"),
    "D9 size behind the data": (lambda: patched(GOOD, DESCRIPTOR, 8, b"\1"), "contradicts the directory"),
    "D9 all sizes bits set": (lambda: patched(PYTHONS, ENTRY, 20, b"\xff" * 8), "has no size"),
    "D10 twice": (twice, "two members are called 'a/data/0'"),
    "D10 twice but for case": (lambda: twice("a/DATA/0"), "two members are called 'a/DATA/0'"),
    "D11 before": (lambda: b"junk" + GOOD, "the archive"),
    "D11 behind": (lambda: GOOD + b"junk", "4 bytes follow the archive"),
    "D11 a second archive": (lambda: GOOD + GOOD, ""),
    "D11 comment": (lambda: GOOD[:-2] + b"\4\0junk", "4 bytes follow the archive"),
    "D11 between": (lambda: between(PYTHONS), "bytes that belong to no member"),
    "D13 cut": (lambda: GOOD[:-30], "the archive's directory is missing at its end"),
    "D13 in the middle": (lambda: GOOD[: SIZE // 2], "the archive's directory is missing at its end"),
    "D13 ten bytes": (lambda: GOOD[:10], "10 bytes are too few"),
    "D17 encrypted": (lambda: patched(GOOD, ENTRY, 8, b"\1"), "is encrypted"),
    "D17 directory encrypted": (lambda: patched(GOOD, ENTRY, 9, b"\x20"), "is encrypted"),
    "D17 a patch": (lambda: patched(GOOD, ENTRY, 8, b"\x28"), "is of a kind no checkpoint has"),
    "D17 disk": (lambda: patched(PYTHONS, END, 4, b"\1"), "several disks"),
    "D17 disk, zip64": (lambda: patched(GOOD, END64, 16, b"\1"), "two end records contradict"),
    "D17 disk of a member": (lambda: patched(GOOD, ENTRY, 34, b"\1"), "is of a kind no checkpoint has"),
    "D17 a folder": (lambda: patched(GOOD, ENTRY, 38, b"\x10"), "is of a kind no checkpoint has"),
    "D17 count": (lambda: patched(PYTHONS, END, 8, b"\1\0\1\0"), "holds more than its entries"),
    "D17 count, zip64": (lambda: patched(GOOD, END64, 24, b"\1"), "two end records contradict"),
    "D17 two million members": (
        lambda: patched(patched(GOOD, END64, 24, struct.pack("<QQ", 2_000_000, 2_000_000)), END, 8, b"\xff" * 4),
        "has 2000000 members",
    ),
    "D17 place of zip64": (lambda: patched(GOOD, LOCATOR, 8, b"\1"), "is not where it should be"),
    "D17 version of zip64": (lambda: patched(GOOD, END64, 4, b"\1"), "two end records contradict"),
    "D17 local name": (lambda: patched(GOOD, LOCAL, 30, b"A"), "contradicts the directory"),
    "D17 local method": (lambda: patched(GOOD, LOCAL, 8, b"\x08"), "contradicts the directory"),
    "D17 local magic": (lambda: patched(GOOD, LOCAL, 3, b"\5", 1), "contradicts the directory"),
    "D17 local checksum": (lambda: patched(PYTHONS, LOCAL, 14, b"\1\2\3\4"), "contradicts the directory"),
    "D17 overlap": (lambda: patched(PYTHONS, ENTRY, 42, b"\0\0\0\0", 1), "overlaps another"),
    "D17 gap": (lambda: patched(PYTHONS, ENTRY, 42, b"\1\0\0\0"), "has bytes before it"),
    "D17 extra field": (lambda: patched(GOOD, ENTRY, 30, b"\xff\xff"), "is damaged"),
    "names: root": (lambda: zipped({"data.pkl": b"N.", "version": b"3"}), "is not in the folder"),
    "names: two roots": (lambda: zipped({**MEMBERS, "other/data/9": b""}), "is not in the folder"),
    "names: up": (lambda: zipped({**MEMBERS, "archive/../x": b""}), "impossible name"),
    "names: absolute": (lambda: zipped({**MEMBERS, "/etc/passwd": b""}), "impossible name"),
    "names: folder": (lambda: zipped({**MEMBERS, "archive/code/": b""}), "impossible name"),
    "names: backslash": (lambda: zipped({**MEMBERS, "archive\\x": b""}).replace(b"archive/x", b"archive\\x"), "impossible name"),
    "names: NUL": (lambda: zipped({**MEMBERS, "archive/x!y": b""}).replace(b"x!y", b"x\0y"), "impossible name"),
    "names: not UTF-8": (lambda: zipped({**MEMBERS, "archive/é": b""}).replace("é".encode(), b"\xff\xff"), "not UTF-8"),
    "no data.pkl": (lambda: zipped({"a/version": b"3"}), "it has no data.pkl"),
    "no version": (lambda: zipped({"a/data.pkl": b"N."}), "it names no version"),
    "version 99": (lambda: zipped({"a/data.pkl": b"N.", "a/version": b"99\n"}), "the unknown version '99"),
    "version x": (lambda: zipped({"a/data.pkl": b"N.", "a/version": b"x"}), "the unknown version 'x'"),
    "version of a gigabyte": (lambda: zipped({"a/data.pkl": b"N.", "a/version": b"3" * 65}), "64 is the limit"),
    "alignment": (lambda: zipped({**MEMBERS, "archive/.storage_alignment": b"x"}), "where a number belongs"),
    "D18 big": (lambda: zipped({**MEMBERS, "archive/byteorder": b"big"}), "big-endian"),
    "D18 odd": (lambda: zipped({**MEMBERS, "archive/byteorder": b"pdp"}), "byte order 'pdp'"),
    "TorchScript": (lambda: zipped({**MEMBERS, "archive/constants.pkl": b"N."}), "a TorchScript program"),
    "empty archive": (lambda: zipped({}), "it has no data.pkl"),
}  # fmt: skip


@pytest.mark.fault("D4", "D9", "D10", "D11", "D13", "D17", "D18")
@pytest.mark.parametrize(("make", "says"), BAD.values(), ids=BAD)
def test_odd_archives_are_refused(make: Callable[[], bytes], says: str) -> None:
    """An archive that is damaged, made to look different to different readers, or not torch's is refused in words."""
    assert says in refusal(make())


@pytest.mark.fault("D13")
@given(st.integers(0, SIZE - 1))
def test_no_beginning_of_an_archive_is_one(length: int) -> None:
    """A download that broke off is refused wherever it did."""
    assert refusal(GOOD[:length])


@pytest.mark.fault("D12")
def test_checksums_are_checked() -> None:
    """A flipped bit anywhere in the data of a member is found; a right archive passes."""
    archive = read_torch_archive(Memory(GOOD), "file.pt")
    member = archive.members["data/0"]
    check_crcs(Memory(GOOD), archive.members.values(), "file.pt")

    for place in (0, 11, member.size - 1):
        at = member.begin + place
        flipped = GOOD[:at] + bytes([GOOD[at] ^ 4]) + GOOD[at + 1 :]
        found = read_torch_archive(Memory(flipped), "file.pt")
        with pytest.raises(RefusedFileError, match="'archive/data/0' is damaged"):
            check_crcs(Memory(flipped), found.members.values(), "file.pt")


def test_windows_are_readers() -> None:
    """An archive in the middle of other bytes is read through a window, which gives nothing from outside it."""
    window = Window(Memory(b"before" + GOOD + b"behind"), 6, SIZE)
    buffer = bytearray(4)

    assert read_torch_archive(window, "file.pt").members.keys() == {n.partition("/")[2] for n in MEMBERS}
    with pytest.raises(ValueError, match="not all in a window"):
        window.read(SIZE - 3, memoryview(buffer))
    with pytest.raises(ValueError, match="not all in a window"):
        window.read(-1, memoryview(buffer))


def outer(method: int) -> bytes:
    """An archive as Stable-Baselines3 writes it: a text, and torch's archives as members."""
    return zipped({"data": b'{"policy": 1}' * 1000, "policy.pth": GOOD, "empty": b""}, method)


def test_archives_inside_archives_are_read() -> None:
    """A member that is an archive itself is read in place."""
    data = outer(zipfile.ZIP_STORED)
    member = read_directory(Memory(data), "model.zip")["policy.pth"]

    assert member.stored
    inner = Window(Memory(data), member.begin, member.size)
    assert "data.pkl" in read_torch_archive(inner, "model.zip").members


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_small_members_are_read(method: int) -> None:
    """Members are inflated where they are compressed, and said to be so."""
    data = outer(method)
    members = read_directory(Memory(data), "model.zip")

    assert {
        name: read_member(Memory(data), member, 10_000_000, "x") for name, member in members.items()
    } == unzipped(data)
    assert members["data"].stored == (method == zipfile.ZIP_STORED)
    with pytest.raises(RefusedFileError, match="13000 bytes; 12999 is the limit"):
        read_member(Memory(data), members["data"], 12_999, "x")


def deflated(claims: int, data: bytes, packed: bytes | None = None) -> bytes:
    """An archive whose member claims to have so many bytes."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    whole = packed if packed is not None else machine.compress(data) + machine.flush()
    crc = zlib.crc32(data)
    sizes = struct.pack("<LLL", crc, len(whole), claims)
    local = struct.pack("<4sHHHHH12sHH", LOCAL, 20, 0, 8, 0, 0, sizes, 1, 0) + b"d"
    entry = struct.pack("<4sHHHHHH12sHHHHHLL", ENTRY, 20, 20, 0, 8, 0, 0, sizes, 1, 0, 0, 0, 0, 0, 0) + b"d"
    begin = len(local) + len(whole)
    return local + whole + entry + struct.pack("<4sHHHHLLH", END, 0, 0, 1, 1, len(entry), begin, 0)


@pytest.mark.fault("D4")
@pytest.mark.parametrize(
    ("claims", "data", "packed"),
    [
        (100, bytes(1 << 26), None),
        (1 << 20, b"short", None),
        (5, b"right", b"\xff\xff"),
        (5, b"right", b""),
        (5, b"wrong", zlib.compress(b"right")[2:-4]),
        (5, b"right", zlib.compress(b"right")[2:-4] + b"more"),
        (5, b"right", zlib.compress(b"right")[2:-5]),
        (0, b"", b"\3\0" + bytes(9)),
    ],
    ids=["bomb", "too short", "no deflate", "nothing", "checksum", "more behind", "cut", "empty with more"],
)
def test_members_that_lie_are_refused(claims: int, data: bytes, packed: bytes | None) -> None:
    """A compressed member gives exactly the bytes it claims, or a refusal; never more of them."""
    archive = Memory(deflated(claims, data, packed))
    member = read_directory(archive, "x")["d"]

    with pytest.raises(RefusedFileError, match="is damaged"):
        read_member(archive, member, 1 << 27, "x")


@given(st.binary(max_size=3000))
def test_inflated_members_are_what_they_were(data: bytes) -> None:
    """What was compressed comes back, whatever its size."""
    archive = Memory(deflated(len(data), data))

    assert read_member(archive, read_directory(archive, "x")["d"], 3000, "x") == data


def test_unknown_compression_is_named() -> None:
    """A member compressed in another way is there, and cannot be read."""
    data = zipped({"d": bytes(100)}, zipfile.ZIP_BZIP2)
    member = read_directory(Memory(data), "x")["d"]

    with pytest.raises(RefusedFileError, match="unknown method 12"):
        read_member(Memory(data), member, 1000, "x")
