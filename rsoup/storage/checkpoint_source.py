"""A checkpoint on a disk as a Source: its files are read with pread, and nothing in them is interpreted as code."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rsoup.errors import RefusedFileError, listing, show
from rsoup.remote.transfer import Transfer
from rsoup.storage.files import open_regular, read_whole
from rsoup.storage.pickled.sb3 import SETTINGS, Sb3Archive
from rsoup.storage.protocols import FileLayout
from rsoup.storage.weight_file import PickledFile, SafetensorsFile, WeightFile, tied_note
from rsoup.tensors import Header, TensorSpec

_CHUNK_BYTES = 1 << 20


def twins(kind: str, names: Iterable[str]) -> list[str]:
    """A note on names that differ only in case or in how Unicode spells the same characters, if there are any."""
    seen: dict[str, str] = {}
    found = []
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            found += [other, name]
    if not found:
        return []
    return [f"the {kind} {listing(found, 2)} differ only in case or Unicode spelling; they are kept apart"]


class CheckpointSource:
    """A checkpoint as a Source: read with pread, never memory-mapped, never interpreted as code."""

    def __init__(
        self,
        name: str,
        folder: str,
        files: Sequence[tuple[str, str, WeightFile]],
        along: Sequence[str] = (),
        skipped: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        """`files` are (relative name, what to put before the names of its tensors, the open file)."""
        self.name = name
        self.folder = folder
        self.under: CheckpointSource | None = None  # what an adapter sits on, if that was named with it
        self.is_pipeline_lora = False  # a LoRA of diffusers, whose configuration is in its file's metadata
        self.is_one_file = False  # named by itself, so that the folder around it is not the checkpoint's
        self.on_close: Callable[[], None] | None = None  # what lets go of a place that was made for it alone
        self.on_transfer: Callable[[], Transfer | None] | None = None  # how it came, where it lies far away
        self.side_files = tuple(along)
        self._opened = tuple(file for _, _, file in files)
        self.skipped_files = tuple(skipped) if self.archive is None else (SETTINGS,)
        self._where: dict[str, tuple[WeightFile, str]] = {}
        header: dict[str, TensorSpec] = {}
        layouts = []
        for file_name, prefix, file in files:
            for inner, spec in file.header.items():
                tensor = prefix + inner
                if tensor in self._where:
                    raise RefusedFileError(
                        "E0811",
                        f"tensor '{show(tensor)}' lies in two shards",
                        where=f"{self._where[tensor][0].file.shown} and {file.file.shown}",
                    )
                self._where[tensor] = (file, inner)
                header[tensor] = spec
            layouts.append(FileLayout(file_name, tuple(prefix + inner for inner in file.header)))
        self.files = tuple(layouts)
        self.header: Header = header
        inside = [note for file in self._opened for note in (*file.notes, *tied_note(file))]
        if len(self._opened) == 1:  # whose note it is, is plain
            inside = [note.removeprefix(f"{self._opened[0].file.shown}: ") for note in inside]
        self.notes = (*notes, *inside, *twins("tensors", self.header))

    @property
    def keyed(self) -> bool:
        """Whether some file of it may hold several tables of tensors, of which `key` names one."""
        return not all(isinstance(file, SafetensorsFile) for file in self._opened)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the headers of its safetensors files say beside their tensors, the first file's before the others'."""
        found: dict[str, str] = {}
        for file in reversed(self._opened):
            found |= file.parsed.metadata if isinstance(file, SafetensorsFile) else {}
        return found

    @property
    def archive(self) -> Sb3Archive | None:
        """The archive of Stable-Baselines3 this checkpoint is, if it is one."""
        found = [file.sb3 for file in self._opened if isinstance(file, PickledFile)]
        return found[0] if found else None

    @property
    def identity(self) -> str:
        """A digest of every weight file's device, inode, size and time of change."""
        own = hashlib.sha256(repr([file.file.stamp for file in self._opened]).encode()).hexdigest()
        return own if self.under is None else f"{self.under.identity}+{own}"

    @property
    def places(self) -> list[str]:
        """Every path that may not be written over while this is an input: folders, weight files, what it sits on."""
        own = [] if self.is_one_file else [self.folder]
        below = [] if self.under is None else self.under.places
        return [*own, *(os.path.join(self.folder, file.name) for file in self.files), *below]

    @property
    def transfers(self) -> list[Transfer]:
        """How its weights came here from far away, those of what it sits on, too; what is proven of them by now."""
        below = [] if self.under is None else self.under.transfers
        own = None if self.on_transfer is None else self.on_transfer()
        return below if own is None else [*below, own]

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on."""
        file, inner = self._place(tensor)
        file.read(inner, start, buffer)

    def place(self, tensor: str) -> tuple[int, int] | None:
        """(open file, byte) where the bytes of `tensor` begin and lie as they are read; None where they do not."""
        file, inner = self._place(tensor)
        fd, begin = file.file.plain, file.place(inner)
        return None if fd is None or begin is None else (fd, begin)

    def _place(self, tensor: str) -> tuple[WeightFile, str]:
        if not self._opened:  # the number of a closed file may by now be another file's
            msg = f"{self.name} is closed"
            raise ValueError(msg)
        return self._where[tensor]

    def unordered(self, tensors: Iterable[str]) -> int:
        """Bytes of the files that are not read from their beginning to their end if `tensors` are read in this order."""
        last: dict[int, int] = {}
        found: dict[int, int] = {}
        for tensor in tensors:
            file, inner = self._place(tensor)
            begin = file.place(inner) or 0
            if begin < last.get(id(file), 0):
                found[id(file)] = sum(spec.nbytes for spec in file.header.values())
            last[id(file)] = begin
        return sum(found.values())

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Ask the system to fetch these bytes into its cache meanwhile."""
        place = self.place(tensor)
        if place is not None and hasattr(os, "posix_fadvise"):  # not on macOS
            fd, begin = place
            os.posix_fadvise(fd, begin + start, nbytes, os.POSIX_FADV_WILLNEED)

    def check_sums(self) -> None:
        """Compare the checksums that PyTorch files hold of themselves: one pass over them; E0816 where one is wrong."""
        for file in self._opened:
            file.check_sums()

    def side_file(self, name: str, limit: int) -> bytes | None:
        """The contents of a side file of at most `limit` bytes; None where there is none."""
        if self.archive is not None:  # no file beside it, but a member inside
            return self.archive.content(name, limit) if name == SETTINGS else None
        if name not in self.side_files and name not in self.skipped_files:
            return None
        return read_whole(os.path.join(self.folder, name), show(f"{self.name}/{name}"), limit)

    def side_file_chunks(self, name: str) -> Iterator[bytes]:
        """The contents of a side file, a megabyte at a time."""
        source = open_regular(os.path.join(self.folder, name), show(f"{self.name}/{name}"))
        try:
            for start in range(0, source.size, _CHUNK_BYTES):
                buffer = bytearray(min(_CHUNK_BYTES, source.size - start))
                source.read(start, memoryview(buffer))
                yield bytes(buffer)
            source.check_unchanged()
        finally:
            source.close()

    def check_unchanged(self) -> None:
        """Raise RefusedFileError E0804 if a weight file is not what it was when it was opened."""
        for file in self._opened:
            file.file.check_unchanged()
        if self.under is not None:
            self.under.check_unchanged()

    def close(self) -> None:
        """Close every file."""
        opened, self._opened = self._opened, ()
        for file in opened:
            file.file.close()
        done, self.on_close = self.on_close, None
        if done is not None:
            done()
        if self.under is not None:
            self.under.close()
