"""rsoup-digest/1: digests of 1 MiB chunks, so that any block can be digested alone, in any order.

A tensor's digest is BLAKE3 of its chunks' digests one after the other; a file's digest is BLAKE3 of its
header bytes and its tensors' digests in the order of their bytes; a checkpoint's content digest is BLAKE3
over name, dtype, shape and digest of its tensors sorted by name, so that sharding does not matter.

What is written is digested with BLAKE3, which nobody can forge. What is read is fingerprinted with
XXH3-128, ten times as fast: it finds every accident, and that nobody forged an ingredient is proved by
making the soup again from it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from blake3 import blake3
from xxhash import xxh3_128

from rsoup.tensors import TensorSpec

DIGEST = "rsoup-digest/1"
CHUNK_BYTES = 1 << 20


class Hasher(Protocol):
    """What hashlib's objects have in common, as far as it is needed here."""

    def update(self, data: memoryview, /) -> object:
        """Take the next bytes."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""


def digest_hasher() -> Hasher:
    """BLAKE3, for what is written."""
    return blake3()


def fingerprint_hasher() -> Hasher:
    """XXH3-128, for what is read."""
    return xxh3_128()


class ChunkHasher:
    """Digests of 1 MiB chunks of bytes that come in pieces; a run must begin at a chunk's beginning."""

    def __init__(self, make: Callable[[], Hasher] = digest_hasher) -> None:
        self._make = make
        self._chunks: list[bytes] = []
        self._hasher = make()
        self._filled = 0

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        while len(data):
            piece = data[: CHUNK_BYTES - self._filled]
            self._hasher.update(piece)
            self._filled += len(piece)
            data = data[len(piece) :]
            if self._filled == CHUNK_BYTES:
                self._finish()

    def _finish(self) -> None:
        self._chunks.append(self._hasher.digest())
        self._hasher = self._make()
        self._filled = 0

    def digests(self) -> bytes:
        """The chunks' digests one after the other; the hasher is empty afterwards."""
        if self._filled:
            self._finish()
        result, self._chunks = b"".join(self._chunks), []
        return result


def tensor_digest(chunk_digests: Iterable[bytes]) -> str:
    """The digest of a tensor, hexadecimal, from its chunks' digests in order."""
    hasher = blake3()
    for digest in chunk_digests:
        hasher.update(digest)
    return hasher.hexdigest()


def file_digest(head: bytes, tensor_digests: Iterable[str]) -> str:
    """The digest of a weight file, hexadecimal, from its header bytes and its tensors' digests in order."""
    hasher = blake3(head)
    for digest in tensor_digests:
        hasher.update(bytes.fromhex(digest))
    return hasher.hexdigest()


def content_digest(tensors: Mapping[str, tuple[TensorSpec, str]]) -> str:
    """The digest of a checkpoint's tensors (name → spec, digest), hexadecimal, whatever its files are."""
    hasher = blake3()
    for name in sorted(tensors):
        spec, digest = tensors[name]
        row = f"{name}\0{spec.dtype.name}\0{','.join(map(str, spec.shape))}\0{digest}\n"
        hasher.update(row.encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()
