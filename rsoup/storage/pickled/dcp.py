"""A distributed checkpoint of torch (DCP, as FSDP saves it): `.metadata`, a pickle, says which rows lie in which .distcp file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rsoup.errors import AccessError, RefusedFileError, UsageError, listing, show
from rsoup.storage.files import MAX_JSON_BYTES, OpenFile, open_regular, read_whole, safe_name
from rsoup.storage.pickled.dcp_metadata import CONVERT, Metadata, not_whole, parse_metadata
from rsoup.storage.pickled.dcp_metadata import NAME as METADATA
from rsoup.storage.pickled.stored_tensor import StoredTensor, read_stored
from rsoup.storage.pickled.torch_file import parse_torch_tensor
from rsoup.storage.pickled.zip_members import Window
from rsoup.tensors import Header, TensorSpec

_NOT_WEIGHTS = ("optim", "lr_sched", "scheduler", "rng", "dataloader")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows [begin, end) of a tensor, stored as a tensor of their own in a file."""

    begin: int
    end: int
    file: OpenFile
    window: Window
    stored: StoredTensor


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a distributed checkpoint, held open together as if they were one."""

    shown: str
    files: tuple[OpenFile, ...]

    @property
    def plain(self) -> None:
        """No descriptor: the tensors do not lie in one file."""
        return

    @property
    def stamp(self) -> tuple[object, ...]:
        """What all files looked like when they were opened."""
        return tuple(file.stamp for file in self.files)

    def check_unchanged(self) -> None:
        """Raise RefusedFileError E0804 if one of them is not what it was."""
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Let go of all of them."""
        for file in self.files:
            file.close()


@dataclass(frozen=True, slots=True)
class DistributedFile:
    """The weights of a distributed checkpoint as one weight file."""

    file: Files
    header: Header
    rows: Mapping[str, tuple[Rows, ...]]
    notes: tuple[str, ...]

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor`, row by row, from byte `start` on."""
        spec = self.header[tensor]
        if start < 0 or start + len(buffer) > spec.nbytes:
            msg = f"bytes {start} to {start + len(buffer)} are not all in {tensor}, which has {spec.nbytes}"
            raise ValueError(msg)
        row = spec.nbytes // spec.shape[0] if spec.shape and spec.shape[0] else spec.nbytes
        for part in self.rows[tensor]:
            begin, end = max(start, part.begin * row), min(start + len(buffer), part.end * row)
            if begin < end:
                inside = buffer[begin - start : end - start]
                read_stored(part.window, part.stored, begin - part.begin * row, inside)

    def place(self, tensor: str) -> None:
        """No single place."""

    def check_sums(self) -> None:
        """Nothing more: every stored tensor's archive was read strictly when it was opened."""


def is_distributed(folder: str) -> bool:
    """Whether a folder holds a distributed checkpoint."""
    return os.path.isfile(os.path.join(folder, METADATA))


def open_distributed(folder: str, shown: str, key: str | None) -> DistributedFile:
    """The weights of the distributed checkpoint in `folder`; `key` is the entry that holds them.

    Without `key` it is the one entry that is no optimiser's, or all of it where nothing is nested. Raises
    RefusedFileError E0816, E0817 (the pickle), E0819 (split in a way rsoup does not put together, or incomplete)
    and UsageError E0215 (`key` is needed, or leads nowhere).
    """
    at = f"{shown}/{METADATA}"
    metadata = parse_metadata(read_whole(os.path.join(folder, METADATA), at, MAX_JSON_BYTES), at)
    chosen, note = _chosen(metadata.paths, key, at)
    opened: dict[str, OpenFile] = {}
    try:
        rows = {
            seen: _rows(name, metadata, lambda file: _open(opened, folder, file, shown), at)
            for name, seen in chosen.items()
        }
        header = {seen: spec for seen, (spec, _) in rows.items()}
        held = Files(shown, tuple(opened.values()))
        return DistributedFile(held, header, {seen: parts for seen, (_, parts) in rows.items()}, note)
    except BaseException:
        for file in opened.values():
            file.close()
        raise


def _open(opened: dict[str, OpenFile], folder: str, name: str, shown: str) -> OpenFile:
    if name not in opened:
        if not safe_name(name):
            raise not_whole(
                f"{shown}/{METADATA}", f"it places rows in '{show(name)}', which is no file beside it"
            )
        try:
            opened[name] = open_regular(os.path.join(folder, name), f"{shown}/{show(name)}")
        except AccessError as error:
            raise not_whole(f"{shown}/{show(name)}", error.message) from error
    return opened[name]


def _chosen(
    paths: Mapping[str, Sequence[object]], key: str | None, at: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """(name in the checkpoint → name of the tensor, notes): the tensors under `key`, or under the one entry there is."""
    wanted = key.split(".") if key is not None else _descend(paths, at)
    if not wanted:
        found = {name: name for name, path in paths.items() if len(path) == 1}
        return found, _left(paths, found)
    found = {
        name: ".".join(map(str, path[len(wanted) :]))
        for name, path in paths.items()
        if len(path) > len(wanted) and [str(part) for part in path[: len(wanted)]] == wanted
    }
    if not found:
        raise UsageError(
            "E0215",
            f"there is nothing under '{show(key)}'",
            where=at,
            hint=f"it holds {listing(list(dict.fromkeys(str(path[0]) for path in paths.values())))}",
        )
    return found, (f"the weights are those under '{show('.'.join(wanted))}'", *_left(paths, found))


def _descend(paths: Mapping[str, Sequence[object]], at: str) -> list[str]:
    """The keys that lead to the one table of tensors that is no optimiser's; UsageError E0215 where there are several."""
    prefix: list[str] = []
    while True:
        depth = len(prefix)
        below = [path for path in paths.values() if [str(part) for part in path[:depth]] == prefix]
        inner = dict.fromkeys(str(path[depth]) for path in below if len(path) > depth + 1)
        tables = [name for name in inner if not name.lower().startswith(_NOT_WEIGHTS)]
        if not tables or any(len(path) == depth + 1 for path in below if depth):
            return prefix
        if len(tables) > 1:
            names = [".".join([*prefix, name]) for name in tables]
            raise UsageError(
                "E0215",
                f"it holds several tables of tensors: {listing(names)}",
                where=at,
                hint=f"say which one is the model: --key {show(names[0])}",
            )
        prefix.append(tables[0])


def _left(paths: Mapping[str, object], found: Mapping[str, str]) -> tuple[str, ...]:
    others = [name for name in paths if name not in found]
    return (f"not read: {listing(others, 3)}",) if others else ()


def _rows(
    name: str, metadata: Metadata, opened: Callable[[str], OpenFile], at: str
) -> tuple[TensorSpec, tuple[Rows, ...]]:
    """What a tensor is, and its rows in order, every one of them there once."""
    shape = metadata.shapes[name]
    parts: list[Rows] = []
    for offsets, sizes in metadata.chunks[name]:
        if len(offsets) != len(shape) or sizes[1:] != shape[1:] or any(offsets[1:]):
            raise RefusedFileError(
                "E0819",
                f"tensor '{show(name)}' is split within its rows (tensor parallel)",
                where=at,
                hint=f"write it as one checkpoint first: {CONVERT}",
            )
        place = metadata.places.get((name, offsets))
        if place is None:
            raise not_whole(at, f"rows of tensor '{show(name)}' are stored nowhere")
        file = opened(place[0])
        if place[1] + place[2] > file.size:
            raise not_whole(file.shown, f"it ends before the rows of tensor '{show(name)}'")
        window = Window(file, place[1], place[2])
        stored = parse_torch_tensor(window, file.shown)
        if stored.spec.shape != sizes:
            raise not_whole(
                file.shown, f"the rows of tensor '{show(name)}' have another shape than {METADATA} says"
            )
        parts.append(
            Rows(
                offsets[0] if offsets else 0, (offsets[0] + sizes[0]) if offsets else 1, file, window, stored
            )
        )
    parts.sort(key=lambda part: (part.begin, part.end))
    dtypes = {part.stored.spec.dtype for part in parts}
    ends = [0, *(part.end for part in parts)]
    if (
        len(dtypes) > 1
        or [part.begin for part in parts] != ends[:-1]
        or ends[-1] != (shape[0] if shape else 1)
    ):
        raise not_whole(at, f"the rows of tensor '{show(name)}' overlap, leave gaps, or differ in dtype")
    return TensorSpec(dtypes.pop(), shape), tuple(parts)
