"""Checkpoints on a disk: one safetensors file, or a folder as `save_pretrained` writes it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, listing, show
from rsoup.storage.files import OpenFile, open_error, open_regular, read_whole, stays_inside
from rsoup.storage.folder import WeightFiles, find_weights, list_folder, side_files
from rsoup.storage.protocols import FileLayout
from rsoup.storage.safetensors_header import Entry, ParsedHeader, header_length, parse_header
from rsoup.tensors import Header


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
    shown = show(uri)
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
    weights = WeightFiles((file_name,), None, None, None, ())
    return _open_files(os.path.dirname(uri) or ".", name or file_name, shown, weights, [], [])


def _open_folder(
    folder: str, name: str, shown: str, variant: str | None, leniency: Leniency
) -> CheckpointSource:
    names = list_folder(folder, shown)
    weights = find_weights(folder, names, variant, shown)
    along, skipped = side_files(names, weights)
    if not leniency.symlinks:
        for file in (*weights.names, *along):
            if not stays_inside(folder, file):
                raise RefusedFileError(
                    "E0813",
                    "this link leads out of the checkpoint's folder",
                    where=f"{shown}/{show(file)}",
                    hint="if that is meant: --allow symlinks",
                )
    source = _open_files(folder, name, shown, weights, along, skipped)
    try:
        source.check_index(weights, shown, leniency)
    except BaseException:
        source.close()
        raise
    return source


def _open_files(
    folder: str, name: str, shown: str, weights: WeightFiles, along: Sequence[str], skipped: Sequence[str]
) -> CheckpointSource:
    opened: list[OpenFile] = []
    parsed: list[ParsedHeader] = []
    try:
        for file in weights.names:
            at = (
                f"{shown}/{show(file)}"
                if weights.index_name or along or not shown.endswith(show(file))
                else shown
            )
            opened.append(open_regular(os.path.join(folder, file), at))
            parsed.append(_read_header(opened[-1]))
        return CheckpointSource(name, folder, opened, parsed, weights, along, skipped)
    except BaseException:
        for file_ in opened:
            file_.close()
        raise


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

    try:
        with safe_open(
            f"/proc/self/fd/{file.fd}" if os.path.exists("/proc/self/fd") else file.path,
            framework="numpy",
            backend="pread",
        ):
            pass
    except (SafetensorError, OSError) as error:
        raise RefusedFileError(
            "E0801", f"the safetensors library refuses it: {show(error)}", where=file.shown
        ) from None


class CheckpointSource:
    """A checkpoint on a disk as a Source: read with pread, never memory-mapped, never interpreted as code."""

    def __init__(
        self,
        name: str,
        folder: str,
        opened: Sequence[OpenFile],
        parsed: Sequence[ParsedHeader],
        weights: WeightFiles,
        along: Sequence[str],
        skipped: Sequence[str],
    ) -> None:
        self.name = name
        self.folder = folder
        self._opened = tuple(opened)
        self._where: dict[str, tuple[OpenFile, Entry]] = {}
        for file, header in zip(opened, parsed, strict=True):
            for tensor, entry in header.entries.items():
                if tensor in self._where:
                    raise RefusedFileError(
                        "E0811",
                        f"tensor '{show(tensor)}' lies in two shards",
                        where=f"{self._where[tensor][0].shown} and {file.shown}",
                    )
                self._where[tensor] = (file, entry)
        self.header: Header = {tensor: entry.spec for tensor, (_, entry) in self._where.items()}
        self.files = tuple(
            FileLayout(file, tuple(header.entries))
            for file, header in zip(weights.names, parsed, strict=True)
        )
        self.side_files = tuple(along)
        self.skipped_files = tuple(skipped)
        self.notes = (*weights.notes, *(note for header in parsed for note in header.notes))
        self.sharded = weights.index_name is not None

    def check_index(self, weights: WeightFiles, shown: str, leniency: Leniency) -> None:
        """The index and the shards list the same tensors in the same files, or RefusedFileError E0811."""
        if weights.weight_map is None:
            return
        at = f"{shown}/{weights.index_name}"
        placed = {tensor: layout.name for layout in self.files for tensor in layout.tensors}
        if absent := [tensor for tensor, file in weights.weight_map.items() if placed.get(tensor) != file]:
            raise RefusedFileError(
                "E0811",
                f"the index lists {listing(absent, 3)}, not in the shard it names",
                where=at,
                hint="index and shards are of different saves; fetch or save them again",
            )
        if unlisted := [tensor for tensor in placed if tensor not in weights.weight_map]:
            if not leniency.unindexed:
                raise RefusedFileError(
                    "E0811",
                    f"the shards hold {listing(unlisted, 3)}, which the index does not list",
                    where=at,
                    hint="if they belong to the model: --allow unindexed",
                )
            self.notes = (*self.notes, f"{len(unlisted)} tensors that the index does not list are read")
        total = sum(spec.nbytes for spec in self.header.values())
        if weights.total_size is not None and weights.total_size != total:
            self.notes = (
                *self.notes,
                f"the index claims {weights.total_size} bytes; the shards hold {total}",
            )

    @property
    def identity(self) -> str:
        """A digest of every weight file's device, inode, size and time of change."""
        return hashlib.sha256(repr([file.stamp for file in self._opened]).encode()).hexdigest()

    @property
    def paths(self) -> tuple[str, ...]:
        """The weight files' paths on this machine."""
        return tuple(file.path for file in self._opened)

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on."""
        file, entry = self._where[tensor]
        if entry.begin + start + len(buffer) > entry.end:
            msg = f"read beyond the end of {tensor}"
            raise ValueError(msg)
        file.read(entry.begin + start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Ask the system to fetch these bytes into its cache meanwhile."""
        file, entry = self._where[tensor]
        os.posix_fadvise(file.fd, entry.begin + start, nbytes, os.POSIX_FADV_WILLNEED)

    def side_file(self, name: str, limit: int) -> bytes | None:
        """The contents of a side file of at most `limit` bytes; None where there is none."""
        if name not in self.side_files and name not in self.skipped_files:
            return None
        return read_whole(os.path.join(self.folder, name), show(f"{self.name}/{name}"), limit)

    def copy_side_file(self, name: str, target: int) -> int:
        """Write a side file's bytes to the file descriptor `target`; returns how many."""
        source = open_regular(os.path.join(self.folder, name), show(f"{self.name}/{name}"))
        try:
            done = 0
            while done < source.size:
                buffer = bytearray(min(1 << 20, source.size - done))
                source.read(done, memoryview(buffer))
                view = memoryview(buffer)
                while view:
                    view = view[os.write(target, view) :]
                done += len(buffer)
            source.check_unchanged()
            return done
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
