"""The archive torch.save writes: a zip whose members are stored as they are, in one folder.

Where torch allows more than it writes (members compressed, bytes behind the archive), this does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, show
from rsoup.storage.pickled.zip_directory import read_directory
from rsoup.storage.pickled.zip_members import Member, Reader, read_member


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """What torch.save wrote: the folder all members lie in, and the members by their names inside it."""

    root: str
    members: Mapping[str, Member]

    @property
    def unchecked(self) -> bool:
        """Whether the archive was saved without checksums, which torch can be told to leave out."""
        return not any(member.crc for member in self.members.values())


def _refuse(shown: str, what: str, hint: str | None = None) -> RefusedFileError:
    return RefusedFileError("E0816", what, where=shown, hint=hint)


def read_torch_archive(reader: Reader, shown: str) -> TorchArchive:
    """The members of an archive torch.save wrote, all stored as they are under one folder.

    Raises RefusedFileError E0816 for anything torch.save does not write.
    """
    members: dict[str, Member] = {}
    root = ""
    directory = read_directory(reader, shown)
    if any(name.endswith("/constants.pkl") for name in directory):
        raise _refuse(
            shown,
            "this is a TorchScript program, not a checkpoint",
            "save the state dict of the model instead: torch.save(model.state_dict(), path)",
        )
    if directory and all(name.endswith(".npy") for name in directory):
        raise _refuse(
            shown,
            "this is an archive of NumPy arrays",
            "save them as tensors, with safetensors or torch.save",
        )
    for name, member in directory.items():
        root = root or name.partition("/")[0]
        short = name.removeprefix(f"{root}/")
        if short == name or not short or not root:
            raise _refuse(shown, f"member '{show(name)}' is not in the folder the others are in")
        if not member.stored or member.packed != member.size:
            raise _refuse(shown, f"member '{show(name)}' is compressed; torch.save never compresses")
        members[short] = member
    if "data.pkl" not in members:
        raise _refuse(shown, "this zip archive is not torch.save's: it has no data.pkl")
    archive = TorchArchive(root, members)
    _check_version(reader, archive, shown)
    for name in (".storage_alignment", ".format_version", ".data/serialization_id"):
        text = _record(reader, archive, name, shown)
        if text is not None and not text.isdigit():
            raise _refuse(shown, f"member '{name}' holds '{_plain(text)}' where a number belongs")
    order = _record(reader, archive, "byteorder", shown)
    if order not in (None, b"little"):
        what = "big-endian" if order == b"big" else f"in the byte order '{_plain(order)}'"
        raise _refuse(shown, f"its numbers are {what}; rsoup reads little-endian ones")
    return archive


def _check_version(reader: Reader, archive: TorchArchive, shown: str) -> None:
    text = _record(reader, archive, "version", shown) or _record(reader, archive, ".data/version", shown)
    if text is None:
        raise _refuse(shown, "this zip archive is not torch.save's: it names no version")
    if not text.strip().isdigit() or not 1 <= int(text) <= 10:
        raise _refuse(shown, f"its format has the unknown version '{_plain(text)}'")


def _record(reader: Reader, archive: TorchArchive, name: str, shown: str) -> bytes | None:
    member = archive.members.get(name)
    return None if member is None else read_member(reader, member, 64, shown, checked=not archive.unchecked)


def _plain(text: bytes) -> str:
    return show(text.decode("latin-1").strip())
