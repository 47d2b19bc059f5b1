"""Digests of what lies on a disk, recomputed in one streaming pass: tensors by chunks, files as a whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rsoup.digests import (
    CHUNK_BYTES,
    ChunkHasher,
    Hasher,
    content_digest,
    digest_hasher,
    fingerprint_hasher,
    tensor_digest,
)
from rsoup.storage.files import open_regular
from rsoup.storage.protocols import Source
from rsoup.tensors import Header
from rsoup.workers import each

PIECE_BYTES = 8 * CHUNK_BYTES
_PIECE_TENSORS = 256

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, stop) of a tensor; `start` is a chunk's beginning."""

    tensor: str
    start: int
    stop: int


def pieces(header: Header, names: Iterable[str]) -> Iterator[tuple[Piece, ...]]:
    """The bytes of the tensors `names`, in units of at most 8 MiB or 256 small tensors."""
    waiting: list[Piece] = []
    waiting_bytes = 0
    for name in names:
        size = header[name].nbytes
        for start in range(0, max(size, 1), PIECE_BYTES):
            waiting.append(Piece(name, start, min(start + PIECE_BYTES, size)))
            waiting_bytes += waiting[-1].stop - start
            if waiting_bytes >= PIECE_BYTES or len(waiting) == _PIECE_TENSORS:
                yield tuple(waiting)
                waiting, waiting_bytes = [], 0
    if waiting:
        yield tuple(waiting)


def tensor_digests(
    source: Source,
    make: Callable[[], Hasher] = digest_hasher,
    *,
    threads: int | None = None,
    on_bytes: OnBytes | None = None,
) -> dict[str, str]:
    """Name → digest (rsoup-digest/1) of every tensor of an open checkpoint; each byte is read once."""
    header = source.header
    parts: dict[str, dict[int, bytes]] = {}
    found: dict[str, str] = {}

    def worker(_: threading.Event) -> Callable[[tuple[Piece, ...]], list[bytes]]:
        buffer = memoryview(bytearray(CHUNK_BYTES))

        def work(unit: tuple[Piece, ...]) -> list[bytes]:
            return [_chunk_digests(source, piece, buffer, ChunkHasher(make)) for piece in unit]

        return work

    def on_result(unit: tuple[Piece, ...], digests: list[bytes]) -> None:
        for piece, chunks in zip(unit, digests, strict=True):
            tensor = parts.setdefault(piece.tensor, {})
            tensor[piece.start] = chunks
            if len(tensor) == max(1, -(-header[piece.tensor].nbytes // PIECE_BYTES)):
                found[piece.tensor] = tensor_digest(tensor[start] for start in sorted(tensor))
                del parts[piece.tensor]
        if on_bytes is not None:
            on_bytes(sum(piece.stop - piece.start for piece in unit))

    each(pieces(header, header), worker, on_result, threads=threads)
    source.check_unchanged()
    return found


def _chunk_digests(source: Source, piece: Piece, buffer: memoryview, hasher: ChunkHasher) -> bytes:
    for start in range(piece.start, piece.stop, len(buffer)):
        data = buffer[: min(len(buffer), piece.stop - start)]
        source.read(piece.tensor, start, data)
        hasher.update(data)
    return hasher.digests()


def content(header: Header, digests: Mapping[str, str]) -> str:
    """The content digest of tensors whose digests are known."""
    return content_digest({name: (header[name], digests[name]) for name in header})


def fingerprint(source: Source, *, threads: int | None = None, on_bytes: OnBytes | None = None) -> str:
    """An ingredient's content digest over XXH3-128, as a merge takes it of what it reads."""
    return content(
        source.header, tensor_digests(source, fingerprint_hasher, threads=threads, on_bytes=on_bytes)
    )


def sha256_of(path: str, shown: str) -> str:
    """SHA-256 of a regular file, hexadecimal. Raises RefusedFileError E0804 if it changes meanwhile."""
    digest = hashlib.sha256()
    for chunk in chunks_of(path, shown):
        digest.update(chunk)
    return digest.hexdigest()


def chunks_of(path: str, shown: str) -> Iterator[memoryview]:
    """A regular file's bytes, a megabyte at a time; each piece is overwritten by the next."""
    file = open_regular(path, shown)
    try:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        for start in range(0, file.size, CHUNK_BYTES):
            data = buffer[: min(CHUNK_BYTES, file.size - start)]
            file.read(start, data)
            yield data
        file.check_unchanged()
    finally:
        file.close()


def head_of(path: str, shown: str) -> bytes:
    """The first bytes of a safetensors file: the header's length and the header, as they stand there."""
    file = open_regular(path, shown)
    try:
        length = bytearray(8)
        file.read(0, memoryview(length))
        head = bytearray(min(8 + int.from_bytes(length, "little"), file.size))
        file.read(0, memoryview(head))
        return bytes(head)
    finally:
        file.close()
