"""Checkpoints on a disk: one safetensors file, or a folder as `save_pretrained` writes it."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, listing, show, show_path
from rsoup.storage.files import OpenFile, open_error, open_regular, read_whole, stays_inside
from rsoup.storage.folder import CARD, find_weights, list_folder, side_files
from rsoup.storage.index import check_index
from rsoup.storage.protocols import FileLayout
from rsoup.storage.safetensors_header import Entry, ParsedHeader, header_length, parse_header
from rsoup.tensors import Header

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Leniency:
    """What a user may allow beyond the rules: links out of the folder, tensors the index does not list."""

    symlinks: bool = False
    unindexed: bool = False


STRICT = Leniency()


def open_checkpoint(
    uri: str, *, name: str | None = None, variant: str | None = None, leniency: Leniency = STRICT
) -> CheckpointSource:
    """The checkpoint at `uri` (a .safetensors file or a folder), its headers read and checked, no weights.

    Raises AccessError E070x (not there, no permission, no such variant) and RefusedFileError E08xx
    (malformed, hostile, incomplete, not a format rsoup reads).
    """
    shown = show_path(uri)
    if sys.byteorder != "little":
        raise RefusedFileError("E0815", "safetensors are little-endian, this machine is not", where=shown)
    if "://" in uri:
        raise RefusedFileError(
            "E0810",
            "rsoup reads local checkpoints",
            where=shown,
            hint="download it first: hf download org/name --local-dir name",
        )
    try:
        status = os.stat(uri)
    except (OSError, ValueError) as error:
        raise open_error(error, shown) from error
    if stat.S_ISDIR(status.st_mode):
        return _open_folder(uri, name or os.path.basename(os.path.abspath(uri)), shown, variant, leniency)
    file_name = os.path.basename(uri)
    with _opened([(uri, shown)]) as shards:
        layout = (FileLayout(file_name, tuple(shards[0].header.entries)),)
        return CheckpointSource(name or file_name, os.path.dirname(uri) or ".", layout, shards)


def _open_folder(
    folder: str, name: str, shown: str, variant: str | None, leniency: Leniency
) -> CheckpointSource:
    names = list_folder(folder, shown)
    weights = find_weights(folder, names, variant, shown)
    along, skipped = side_files(names, weights)
    read_later = [file for file in names if file in along or file == CARD]
    if not leniency.symlinks:
        for file in (*weights.names, *filter(None, [weights.index_name]), *read_later):
            if not stays_inside(folder, file):
                raise RefusedFileError(
                    "E0813",
                    "this link leads out of the checkpoint's folder",
                    where=f"{shown}/{show(file)}",
                    hint="if that is meant: --allow symlinks",
                )
    for file in read_later:  # a broken link or a pipe is found now, not after hours of work
        open_regular(os.path.join(folder, file), f"{shown}/{show(file)}").close()
    with _opened([(os.path.join(folder, file), f"{shown}/{show(file)}") for file in weights.names]) as shards:
        layouts = tuple(
            FileLayout(file, tuple(shard.header.entries))
            for file, shard in zip(weights.names, shards, strict=True)
        )
        notes = [*weights.notes, *_twins("files", (*weights.names, *along))]
        if weights.index is not None:
            placed = {tensor: layout.name for layout in layouts for tensor in layout.tensors}
            nbytes = sum(entry.spec.nbytes for shard in shards for entry in shard.header.entries.values())
            at = f"{shown}/{show(weights.index_name)}"
            notes += check_index(weights.index, placed, nbytes, at, unindexed=leniency.unindexed)
        return CheckpointSource(name, folder, layouts, shards, along, skipped, notes)


@dataclass(frozen=True, slots=True)
class Shard:
    """An open safetensors file and its checked header."""

    file: OpenFile
    header: ParsedHeader


@contextmanager
def _opened(places: Iterable[tuple[str, str]]) -> Iterator[list[Shard]]:
    """The safetensors files at `places` (path, what to call it); closed again if anything goes wrong."""
    with ExitStack() as stack:
        shards = []
        for path, shown in places:
            file = open_regular(path, shown)
            stack.callback(file.close)
            shards.append(Shard(file, _read_header(file)))
        yield shards
        stack.pop_all()


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


def _twins(kind: str, names: Iterable[str]) -> list[str]:
    """A note on names that differ only in case or in how Unicode spells the same characters, if there are any."""
    seen: dict[str, str] = {}
    twins = []
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            twins += [other, name]
    if not twins:
        return []
    return [f"the {kind} {listing(twins, 2)} differ only in case or Unicode spelling; they are kept apart"]


class CheckpointSource:
    """A checkpoint on a disk as a Source: read with pread, never memory-mapped, never interpreted as code."""

    def __init__(
        self,
        name: str,
        folder: str,
        files: Sequence[FileLayout],
        shards: Sequence[Shard],
        along: Sequence[str] = (),
        skipped: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self.files = tuple(files)
        self.side_files = tuple(along)
        self.skipped_files = tuple(skipped)
        self._opened = tuple(shard.file for shard in shards)
        self._where: dict[str, tuple[OpenFile, Entry]] = {}
        for shard in shards:
            for tensor, entry in shard.header.entries.items():
                if tensor in self._where:
                    raise RefusedFileError(
                        "E0811",
                        f"tensor '{show(tensor)}' lies in two shards",
                        where=f"{self._where[tensor][0].shown} and {shard.file.shown}",
                    )
                self._where[tensor] = (shard.file, entry)
        self.header: Header = {tensor: entry.spec for tensor, (_, entry) in self._where.items()}
        inside = [note for shard in shards for note in shard.header.notes]
        self.notes = (*notes, *inside, *_twins("tensors", self.header))

    @property
    def identity(self) -> str:
        """A digest of every weight file's device, inode, size and time of change."""
        return hashlib.sha256(repr([file.stamp for file in self._opened]).encode()).hexdigest()

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on."""
        file, entry = self._place(tensor)
        if start < 0 or entry.begin + start + len(buffer) > entry.end:
            msg = f"bytes {start} to {start + len(buffer)} are not all in {tensor}, which has {entry.spec.nbytes}"
            raise ValueError(msg)
        file.read(entry.begin + start, buffer)

    def _place(self, tensor: str) -> tuple[OpenFile, Entry]:
        if not self._opened:  # the number of a closed file may by now be another file's
            msg = f"{self.name} is closed"
            raise ValueError(msg)
        return self._where[tensor]

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Ask the system to fetch these bytes into its cache meanwhile."""
        file, entry = self._place(tensor)
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fd, entry.begin + start, nbytes, os.POSIX_FADV_WILLNEED)

    def side_file(self, name: str, limit: int) -> bytes | None:
        """The contents of a side file of at most `limit` bytes; None where there is none."""
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
            file.check_unchanged()

    def close(self) -> None:
        """Close every file."""
        opened, self._opened = self._opened, ()
        for file in opened:
            file.close()
