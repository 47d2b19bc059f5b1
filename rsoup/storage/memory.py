"""The in-memory twin of every storage: a source and a sink that never touch a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rsoup.errors import RefusedFileError
from rsoup.storage.protocols import FileLayout
from rsoup.tensors import Header, TensorSpec


class MemorySource:
    """A checkpoint held in memory: tensors as (spec, bytes), one file's worth, or several by `files`.

    The bytes are copied, so that a later change to the caller's buffers cannot change the checkpoint.
    """

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, tuple[TensorSpec, bytes]],
        *,
        files: Sequence[FileLayout] | None = None,
        side_files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.name = name
        self.header: Header = {key: spec for key, (spec, _) in tensors.items()}
        self._data = {key: bytes(data) for key, (_, data) in tensors.items()}
        for key, spec in self.header.items():
            if len(self._data[key]) != spec.nbytes:
                raise RefusedFileError(
                    "E0802", f"tensor '{key}' has {len(self._data[key])} bytes, {spec} needs {spec.nbytes}"
                )
        self.files = tuple(files or (FileLayout("model.safetensors", tuple(self.header)),))
        self._closed = False
        self._side = dict(side_files or {})
        self.side_files = tuple(self._side)
        self.skipped_files: Sequence[str] = ()
        self.notes: Sequence[str] = ()
        self.identity = f"memory:{id(self)}"

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on."""
        if self._closed:
            msg = f"{self.name} is closed"
            raise ValueError(msg)
        data = self._data[tensor]
        if start < 0 or start + len(buffer) > len(data):
            msg = f"bytes {start} to {start + len(buffer)} are not all in {tensor}, which has {len(data)}"
            raise ValueError(msg)
        buffer[:] = data[start : start + len(buffer)]

    def place(self, tensor: str) -> None:
        """No file."""

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Nothing to do: memory needs no warning."""

    def side_file(self, name: str, limit: int) -> bytes | None:
        """The contents of a side file of at most `limit` bytes; None where there is none."""
        data = self._side.get(name)
        if data is not None and len(data) > limit:
            raise RefusedFileError("E0805", f"{name} has {len(data)} bytes; {limit} is the limit")
        return data

    def side_file_chunks(self, name: str) -> Iterator[bytes]:
        """The contents of a side file, in one piece."""
        yield self._side[name]

    def check_sums(self) -> None:
        """Memory has no checksums."""

    def check_unchanged(self) -> None:
        """Memory does not change behind anybody's back."""

    def close(self) -> None:
        """Forget the bytes."""
        self._data = {}
        self._closed = True


class MemorySink:
    """A soup held in memory: `tensors` maps names to their bytes once everything is written."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.tensors = {name: bytearray(spec.nbytes) for name, spec in header.items()}

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Keep `data` as the bytes of `tensor` from byte `start` on."""
        if start < 0 or start + len(data) > len(self.tensors[tensor]):
            msg = f"bytes {start} to {start + len(data)} are not all in {tensor}"
            raise ValueError(msg)
        self.tensors[tensor][start : start + len(data)] = data


class DiscardSink:
    """A sink that keeps nothing: for measuring, and for asking only what a soup would be."""

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Forget `data`."""
