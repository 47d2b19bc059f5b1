"""One weight file, open and checked, whatever its format: which tensors it holds, and their bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rsoup.errors import RefusedFileError, listing, show
from rsoup.storage.files import OpenFile, open_regular
from rsoup.storage.pickled.sb3 import POLICY, Sb3Archive, looks_like_sb3, read_sb3
from rsoup.storage.pickled.stored_tensor import StoredTensor, read_stored
from rsoup.storage.pickled.torch_file import TorchFile, check_crc, parse_torch_file
from rsoup.storage.pickled.zip_members import Reader, Window
from rsoup.storage.safetensors_header import Entry, ParsedHeader, header_length, parse_header
from rsoup.tensors import Header, TensorSpec

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".zip")
_ZIP, _PICKLE = b"PK\3\4", b"\x80"


class Held(Protocol):
    """A file, or several as if they were one, held open."""

    @property
    def shown(self) -> str:
        """What to call it in messages."""

    @property
    def plain(self) -> int | None:
        """Its descriptor, where the bytes are those of one file here."""

    @property
    def stamp(self) -> tuple[object, ...]:
        """What it looked like when it was opened."""

    def check_unchanged(self) -> None:
        """Raise RefusedFileError E0804 if it is not what it was."""

    def close(self) -> None:
        """Let go of it."""


class WeightFile(Protocol):
    """A file of a checkpoint that is open for reading."""

    @property
    def file(self) -> Held:
        """The open file."""

    @property
    def header(self) -> Header:
        """Its tensors in the order of the file."""

    @property
    def notes(self) -> Sequence[str]:
        """Findings that refuse nothing."""

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on."""

    def place(self, tensor: str) -> int | None:
        """The byte of the file where the tensor begins; None where it does not lie in one piece."""

    def check_sums(self) -> None:
        """Compare the checksums the file itself holds, if it does; RefusedFileError E0816 where one is wrong."""


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """A safetensors file: a header, then the tensors without a gap."""

    file: OpenFile
    parsed: ParsedHeader

    @property
    def header(self) -> Header:
        """Its tensors in the order of their bytes."""
        return {name: entry.spec for name, entry in self.parsed.entries.items()}

    @property
    def notes(self) -> Sequence[str]:
        """What its header says that a careful reader should know."""
        return self.parsed.notes

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on."""
        entry: Entry = self.parsed.entries[tensor]
        _check_range(tensor, entry.spec, start, len(buffer))
        self.file.read(entry.begin + start, buffer)

    def place(self, tensor: str) -> int:
        """The byte of the file where the tensor begins."""
        return self.parsed.entries[tensor].begin

    def check_sums(self) -> None:
        """Nothing: the format has no checksums."""


@dataclass(frozen=True, slots=True)
class PickledFile:
    """A file torch.save wrote, by itself or inside an archive of Stable-Baselines3 (then `sb3` says which)."""

    file: OpenFile
    reader: Reader
    parsed: TorchFile
    sb3: Sb3Archive | None = None

    @property
    def header(self) -> Header:
        """Its tensors in the order of the state dict."""
        return {name: tensor.spec for name, tensor in self.parsed.tensors.items()}

    @property
    def notes(self) -> Sequence[str]:
        """What was chosen in it, left out, and what could not be checked."""
        return (*self.parsed.notes, *(self.sb3.notes if self.sb3 is not None else ()))

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor`, row by row, from byte `start` on."""
        stored: StoredTensor = self.parsed.tensors[tensor]
        _check_range(tensor, stored.spec, start, len(buffer))
        read_stored(self.reader, stored, start, buffer)

    def place(self, tensor: str) -> int | None:
        """The byte of the file where the tensor begins, if it lies there row by row."""
        stored = self.parsed.tensors[tensor]
        offset = self.reader.begin if isinstance(self.reader, Window) else 0
        return offset + stored.begin if stored.contiguous else None

    def check_sums(self) -> None:
        """Read the whole file and compare every checksum in it."""
        check_crc(self.reader, self.parsed)


def _check_range(tensor: str, spec: TensorSpec, start: int, count: int) -> None:
    if start < 0 or start + count > spec.nbytes:
        msg = f"bytes {start} to {start + count} are not all in {tensor}, which has {spec.nbytes}"
        raise ValueError(msg)


def open_weight_file(path: str, shown: str, key: str | None = None) -> WeightFile:
    """The weight file at `path`, its format told by its name and its first bytes, everything but the weights checked.

    `key` is the entry of a PyTorch file that holds the weights. Raises AccessError E0701, E0702 and
    RefusedFileError E08xx; the file is closed again then.
    """
    if path.lower().endswith(".distcp"):
        raise RefusedFileError(
            "E0810", "this is a part of a distributed checkpoint", where=shown, hint="name its folder instead"
        )
    file = open_regular(path, shown)
    try:
        head = bytearray(min(4, file.size))
        file.read(0, memoryview(head))
        named = path.lower().endswith(PICKLES)
        if named or (head == _ZIP and not path.lower().endswith(".safetensors")):
            return _pickled(file, head[:4] == _ZIP, key)
        return SafetensorsFile(file, _read_header(file))
    except BaseException:
        file.close()
        raise


def _pickled(file: OpenFile, zipped: bool, key: str | None) -> PickledFile:
    if zipped and looks_like_sb3(file, file.shown):
        archive = read_sb3(file, file.shown)
        window = archive.window(POLICY)
        return PickledFile(file, window, parse_torch_file(window, f"{file.shown}/{POLICY}", key=key), archive)
    return PickledFile(file, file, parse_torch_file(file, file.shown, key=key))


def _read_header(file: OpenFile) -> ParsedHeader:
    head = bytearray(min(64, file.size))
    file.read(0, memoryview(head))
    text = bytearray(header_length(bytes(head), file.size, file.shown))
    file.read(8, memoryview(text))
    parsed = parse_header(bytes(text), file.size, file.shown)
    _validate_with_library(file)
    return parsed


def _validate_with_library(file: OpenFile) -> None:
    """What the safetensors library refuses is refused: our own rules only come on top of its."""
    from safetensors import SafetensorError, safe_open

    path = next(
        (at for at in (f"/proc/self/fd/{file.fd}", f"/dev/fd/{file.fd}") if os.path.exists(at)), file.path
    )
    try:
        with safe_open(path, framework="numpy", backend="pread"):
            pass
    except (SafetensorError, OSError) as error:
        raise RefusedFileError(
            "E0801", f"the safetensors library refuses it: {show(error)}", where=file.shown
        ) from None


def tied_note(file: WeightFile) -> list[str]:
    """A note on tensors that are one and the same in a PyTorch file, if there are any: a soup stores them twice."""
    tied = file.parsed.tied if isinstance(file, PickledFile) else ()
    return [
        f"{listing(list(names))} are one tensor, which the soup stores under each name" for names in tied[:3]
    ]
