"""A checkpoint seen in another way: other names, missing tensors filled from another, fewer or more rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rsoup.storage.protocols import FileLayout, Source
from rsoup.tensors import Header


class View:
    """A Source that passes everything on to `source`; its children change what they say they change."""

    def __init__(self, source: Source) -> None:
        self._source = self.source = source
        self.name = source.name
        self.header: Header = source.header
        self.files: Sequence[FileLayout] = source.files

    @property
    def side_files(self) -> Sequence[str]:
        """The side files of the source."""
        return self._source.side_files

    @property
    def skipped_files(self) -> Sequence[str]:
        """What lies beside the source and is left alone."""
        return self._source.skipped_files

    @property
    def notes(self) -> Sequence[str]:
        """The notes of the source."""
        return self._source.notes

    @property
    def identity(self) -> str:
        """The identity of the source: how it is seen is decided by the recipe and the headers."""
        return self._source.identity

    def inside(self, tensor: str) -> tuple[Source, str] | None:  # noqa: ARG002 - for children that know
        """(source, name there) whose bytes are those of `tensor`; None where it is made here, or nobody says."""
        return None

    def place(self, tensor: str) -> tuple[int, int] | None:
        """(open file, byte) where the bytes of `tensor` begin; None where they do not lie in a file like this."""
        found = self.inside(tensor)
        return None if found is None else found[0].place(found[1])

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on."""
        self._source.read(tensor, start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon."""
        self._source.prefetch(tensor, start, nbytes)

    def side_file(self, name: str, limit: int) -> bytes | None:
        """The contents of a side file of the source."""
        return self._source.side_file(name, limit)

    def side_file_chunks(self, name: str) -> Iterator[bytes]:
        """The contents of a side file of the source, piece by piece."""
        return self._source.side_file_chunks(name)

    def check_sums(self) -> None:
        """Compare the checksums the source holds of itself."""
        self._source.check_sums()

    def check_unchanged(self) -> None:
        """Raise if a weight file of the source has changed."""
        self._source.check_unchanged()

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def is_made(source: Source) -> bool:
    """Whether some tensors of a checkpoint are made, by torch, as they are read: an adapter on its base."""
    return any(spec.kept is not None for spec in source.header.values())


class Renamed(View):
    """A checkpoint whose tensors have other names: `names` maps those of the source to those seen."""

    def __init__(self, source: Source, names: Mapping[str, str]) -> None:
        super().__init__(source)
        self._inner = {seen: name for name, seen in names.items()}
        self.header = {names[name]: spec for name, spec in source.header.items()}
        self.files = [FileLayout(f.name, tuple(names[name] for name in f.tensors)) for f in source.files]

    def inside(self, tensor: str) -> tuple[Source, str]:
        """Where the bytes of a tensor really are."""
        return self._source, self._inner[tensor]

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of the tensor that is seen under this name."""
        self._source.read(self._inner[tensor], start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon."""
        self._source.prefetch(self._inner[tensor], start, nbytes)


class Completed(View):
    """A partial fine-tune: the tensors `names`, which it lacks, are those of `base`."""

    def __init__(self, source: Source, base: Source, names: Sequence[str]) -> None:
        super().__init__(source)
        self._base, self._filled = base, frozenset(names)
        self.header = {**source.header, **{name: base.header[name] for name in names}}
        last = self.files[-1]
        self.files = [*self.files[:-1], FileLayout(last.name, (*last.tensors, *names))]

    def inside(self, tensor: str) -> tuple[Source, str]:
        """Where the bytes of a tensor really are."""
        return (self._base if tensor in self._filled else self._source), tensor

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from the source, or from the base where the source has no such tensor."""
        (self._base if tensor in self._filled else self._source).read(tensor, start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon."""
        (self._base if tensor in self._filled else self._source).prefetch(tensor, start, nbytes)


class Rows(View):
    """A checkpoint with another number of rows in some tensors: cut, or continued with those of `donor`.

    `rows` maps a tensor's name to its number of rows (its first dimension) as seen.
    """

    def __init__(self, source: Source, rows: Mapping[str, int], donor: Source | None = None) -> None:
        super().__init__(source)
        self._donor = donor
        self._own_nbytes = {name: source.header[name].nbytes for name in rows}
        self.header = {
            name: replace(spec, shape=(rows[name], *spec.shape[1:])) if name in rows else spec
            for name, spec in source.header.items()
        }

    def inside(self, tensor: str) -> tuple[Source, str] | None:
        """Where the bytes of a tensor really are; nowhere if its rows are other ones."""
        return None if tensor in self._own_nbytes else (self._source, tensor)

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of the rows that are seen."""
        if tensor not in self._own_nbytes:
            self._source.read(tensor, start, buffer)
            return
        if start < 0 or start + len(buffer) > self.header[tensor].nbytes:
            msg = f"bytes {start} to {start + len(buffer)} are not all in {tensor}, which has {self.header[tensor].nbytes}"
            raise ValueError(msg)
        own = max(0, min(len(buffer), self._own_nbytes[tensor] - start))
        if own:
            self._source.read(tensor, start, buffer[:own])
        if own < len(buffer):
            assert self._donor is not None
            self._donor.read(tensor, start + own, buffer[own:])

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon, as far as they are the source's."""
        own = self._own_nbytes.get(tensor)
        nbytes = nbytes if own is None else min(nbytes, own - start)
        if nbytes > 0:
            self._source.prefetch(tensor, start, nbytes)


class Aliased(View):
    """A checkpoint with tensors that are read elsewhere: each of `tensors` from (a source, under a name there)."""

    def __init__(self, source: Source, tensors: Mapping[str, tuple[Source, str]]) -> None:
        super().__init__(source)
        self._more = dict(tensors)
        self.tensors = frozenset(tensors)
        self.header = {**source.header, **{n: s.header[inner] for n, (s, inner) in self._more.items()}}
        last = self.files[-1]
        new = (name for name in self._more if name not in source.header)
        self.files = [*self.files[:-1], FileLayout(last.name, (*last.tensors, *new))]

    def inside(self, tensor: str) -> tuple[Source, str]:
        """Where the bytes of a tensor really are."""
        return self._more.get(tensor, (self._source, tensor))

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from the source, or from where the tensor really is."""
        source, name = self._more.get(tensor, (self._source, tensor))
        source.read(name, start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon."""
        source, name = self._more.get(tensor, (self._source, tensor))
        source.prefetch(name, start, nbytes)


class Lent(Aliased):
    """A base with tensors it has not itself, lent by an ingredient: there is nothing to measure from in these."""


def lent(source: Source) -> frozenset[str]:
    """The names of the tensors that a checkpoint has only because they were lent to it."""
    names: set[str] = set()
    while isinstance(source, View):
        names |= source.tensors if isinstance(source, Lent) else set()
        source = source.source
    return frozenset(names)


def bottom(source: Source) -> Source:
    """The checkpoint that is really there under all views of it."""
    while isinstance(source, View):
        source = source.source
    return source


def origin(source: Source, tensor: str) -> tuple[Source, str]:
    """(checkpoint or view, name there) where the bytes of a tensor are made: two of the same are the same bytes."""
    while isinstance(source, View) and (found := source.inside(tensor)) is not None:
        source, tensor = found
    return source, tensor
