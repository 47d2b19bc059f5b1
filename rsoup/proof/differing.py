"""diff(a, b): what differs between two checkpoints, tensor by tensor, in one streaming pass."""

from __future__ import annotations

import fnmatch
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from rsoup.compat.config import flat_config
from rsoup.compat.files import MAX_CONFIG_BYTES
from rsoup.errors import UsageError, show
from rsoup.lora.pipelines import METADATA, unlike_metadata
from rsoup.progress import Meter, OnProgress
from rsoup.proof.deviation import Deviation, Part, deviation, part_of, squares_of
from rsoup.remote.transfer import Fetch, Transfer, Way
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.files import parse_json
from rsoup.storage.protocols import Source
from rsoup.storage.views import is_made
from rsoup.stores.place import at_hand
from rsoup.tensors import TensorSpec
from rsoup.workers import alone, each, torch_threads

SLICE_ELEMENTS = 1 << 16
_UNIT_ELEMENTS = 1 << 20
_UNIT_TENSORS = 256
_CONFIG = "config.json"

Kind = Literal["only in a", "only in b", "shape", "dtype", "values"]


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """A tensor that is not the same in both: of which kind, what it is in each, how far apart its values are.

    `deviation` is None where there are no two values to compare, or where they are all equal (`dtype`).
    """

    name: str
    kind: Kind
    a: TensorSpec | None
    b: TensorSpec | None
    deviation: Deviation | None = None


@dataclass(frozen=True, slots=True)
class FileDiff:
    """A file beside the weights that is not the same in both; for config.json its keys with both values."""

    name: str
    kind: Literal["only in a", "only in b", "contents"]
    keys: tuple[tuple[str, object, object], ...] = ()


@dataclass(frozen=True, slots=True)
class DiffResult:
    """Two checkpoints side by side: how many tensors are `equal` to the last bit, and everything that is not.

    `files` are compared between two folders, when all tensors are.
    """

    a: str
    b: str
    equal: int
    tensors: tuple[TensorDiff, ...]
    files: tuple[FileDiff, ...]
    transfers: tuple[Transfer, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.tensors and not self.files


@dataclass(frozen=True, slots=True)
class _Slice:
    """Elements [start, stop) of a tensor."""

    tensor: str
    start: int
    stop: int


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    tensors: Sequence[str] = (),
    variant: str | None = None,
    key: str | None = None,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fetch: Way = "stream",
) -> DiffResult:
    """The tensors and files in which the checkpoints `a` and `b` (folders or files) differ, bit by bit.

    `tensors` are globs; with them only the tensors they match are compared, and no files. `variant` and `key`
    are those of merge, `fetch` says how far weights come. Memory does not grow with the checkpoints. Raises UsageError
    E0209 (a glob that matches nothing), AccessError (7), RefusedFileError (8).
    """
    how: Fetch = "parts" if fetch == "stream" and tensors else fetch
    with ExitStack() as stack:
        opened: list[CheckpointSource] = []
        for path in [at_hand(os.fspath(path)) for path in (a, b)]:  # by one commit, whatever moves meanwhile
            opened.append(open_checkpoint(path, variant=variant, key=key, fetch=how))
            stack.callback(opened[-1].close)
            if opened[-1].under is not None:
                raise UsageError("E0206", "files are compared, and CHECKPOINT+ADAPTER is none",
                                 hint="write it first: rsoup merge CHECKPOINT+ADAPTER -o OUT")  # fmt: skip
            opened[-1].check_sums()
        one, other = opened
        names = _matching([*dict.fromkeys([*one.header, *other.header])], tensors)
        shared = [
            name
            for name in names
            if name in one.header
            and name in other.header
            and one.header[name].shape == other.header[name].shape
        ]
        found = _values(one, other, shared, threads, progress)
        apart = [
            TensorDiff(name, *_kind(one.header.get(name), other.header.get(name)), found.get(name))
            for name in names
        ]
        unlike = tuple(row for row in apart if row.kind != "values" or row.deviation is not None)
        files = [] if tensors or not (os.path.isdir(a) and os.path.isdir(b)) else _files(one, other)
        files += [] if tensors else _scalings(one, other)
        for source in (one, other):
            source.check_unchanged()
        came = tuple(transfer for source in opened for transfer in source.transfers)
    return DiffResult(os.fspath(a), os.fspath(b), len(names) - len(unlike), unlike, tuple(files), came)


def _matching(names: list[str], globs: Sequence[str]) -> list[str]:
    for glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in names):
            raise UsageError("E0209", f"--tensor '{show(glob)}' matches no tensor",
                             hint=f"the names look like '{show(names[0]) if names else ''}'")  # fmt: skip
    return [name for name in names if not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


def _kind(a: TensorSpec | None, b: TensorSpec | None) -> tuple[Kind, TensorSpec | None, TensorSpec | None]:
    if a is None or b is None:
        return ("only in a" if b is None else "only in b"), a, b
    return ("shape" if a.shape != b.shape else "dtype" if a.dtype != b.dtype else "values"), a, b


def _values(
    one: Source, other: Source, names: Sequence[str], threads: int | None, progress: OnProgress | None
) -> dict[str, Deviation]:
    """Name → deviation of the tensors whose values differ; both hold them in one shape."""
    parts: dict[str, list[Part]] = {}
    total = sum(one.header[name].nbytes + other.header[name].nbytes for name in names)
    meter = Meter("comparing", total, progress)

    def worker(_: threading.Event) -> Callable[[tuple[_Slice, ...]], list[Part]]:
        alone()
        ours, theirs = _Reader(one), _Reader(other)

        def work(unit: tuple[_Slice, ...]) -> list[Part]:
            return [
                part_of(
                    piece.start,
                    one.header[piece.tensor].dtype,
                    ours.read(piece),
                    other.header[piece.tensor].dtype,
                    theirs.read(piece),
                )
                for piece in unit
            ]

        return work

    def on_result(unit: tuple[_Slice, ...], found: list[Part]) -> None:
        nbytes = 0
        for piece, part in zip(unit, found, strict=True):
            parts.setdefault(piece.tensor, []).append(part)
            size = one.header[piece.tensor].dtype.bits + other.header[piece.tensor].dtype.bits
            nbytes += (piece.stop - piece.start) * size // 8
        meter.add(nbytes)

    with torch_threads(load=is_made(one) or is_made(other)):
        each(_units(_slices(one, names)), worker, on_result, threads=threads)
        differing = {name for name, found in parts.items() if any(part.differing for part in found)}
        _add_squares(one, parts, differing, threads)
    found = {
        name: deviation(one.header[name], other.header[name], parts[name])
        for name in names
        if name in differing
    }
    return {name: value for name, value in found.items() if value is not None}


def _add_squares(
    one: Source, parts: dict[str, list[Part]], names: Iterable[str], threads: int | None
) -> None:
    """Σ a² of the slices in which nothing differed, of tensors in which something does: ‖a‖ is of all of it."""
    missing = (
        _Slice(name, part.start, min(part.start + SLICE_ELEMENTS, one.header[name].numel))
        for name in names
        for part in list(parts[name])
        if part.a_squared is None
    )

    def worker(_: threading.Event) -> Callable[[tuple[_Slice, ...]], list[float]]:
        alone()
        reader = _Reader(one)
        return lambda unit: [squares_of(one.header[piece.tensor].dtype, reader.read(piece)) for piece in unit]

    def on_result(unit: tuple[_Slice, ...], squares: list[float]) -> None:
        for piece, value in zip(unit, squares, strict=True):
            parts[piece.tensor].append(Part(piece.start, a_squared=value))

    each(_units(missing), worker, on_result, threads=threads)


class _Reader:
    """One thread's buffer for slices of a checkpoint; each slice overwrites the one before."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = memoryview(bytearray(SLICE_ELEMENTS * 8))

    def read(self, piece: _Slice) -> memoryview:
        """The bytes of a slice."""
        bits = self._source.header[piece.tensor].dtype.bits
        start, stop = piece.start * bits // 8, piece.stop * bits // 8
        data = self._buffer[: stop - start]
        self._source.read(piece.tensor, start, data)
        return data


def _slices(one: Source, names: Iterable[str]) -> Iterator[_Slice]:
    for name in names:
        spec = one.header[name]
        for start in range(0, spec.numel, SLICE_ELEMENTS):
            yield _Slice(name, start, min(start + SLICE_ELEMENTS, spec.numel))


def _units(slices: Iterable[_Slice]) -> Iterator[tuple[_Slice, ...]]:
    """Slices together, about a million elements or 256 of them at a time."""
    waiting: list[_Slice] = []
    elements = 0
    for piece in slices:
        waiting.append(piece)
        elements += piece.stop - piece.start
        if elements >= _UNIT_ELEMENTS or len(waiting) == _UNIT_TENSORS:
            yield tuple(waiting)
            waiting, elements = [], 0
    if waiting:
        yield tuple(waiting)


def _files(one: Source, other: Source) -> list[FileDiff]:
    found = []
    for name in sorted({*one.side_files, *other.side_files}):
        if name not in other.side_files:
            found.append(FileDiff(name, "only in a"))
        elif name not in one.side_files:
            found.append(FileDiff(name, "only in b"))
        elif not _same_file(one, other, name):
            found.append(FileDiff(name, "contents", _config_keys(one, other) if name == _CONFIG else ()))
    return found


def _scalings(one: CheckpointSource, other: CheckpointSource) -> list[FileDiff]:
    """What the headers of two LoRAs of diffusers say of their scaling, if that differs: PEFT has a file for it."""
    unlike = unlike_metadata(one, other) if one.is_pipeline_lora and other.is_pipeline_lora else ()
    return [FileDiff(METADATA, "contents", unlike)] if unlike else []


def _same_file(one: Source, other: Source, name: str) -> bool:
    ours, theirs = one.side_file_chunks(name), other.side_file_chunks(name)
    a = b = b""
    while True:
        a, b = a or next(ours, b""), b or next(theirs, b"")
        size = min(len(a), len(b))
        if size == 0:
            return a == b
        if a[:size] != b[:size]:
            return False
        a, b = a[size:], b[size:]


def _config_keys(one: Source, other: Source) -> tuple[tuple[str, object, object], ...]:
    """(key, in a, in b) of a config.json that differs, in the spelling in which rsoup compares them."""
    flat = []
    for source in (one, other):
        data = source.side_file(_CONFIG, MAX_CONFIG_BYTES)
        value = parse_json(data or b"{}", f"{show(source.name)}/{_CONFIG}")
        flat.append(flat_config(value) if isinstance(value, dict) else {})
    keys = sorted({*flat[0], *flat[1]})
    return tuple(
        (key, flat[0].get(key), flat[1].get(key)) for key in keys if flat[0].get(key) != flat[1].get(key)
    )
