"""rsoup-digest/1: BLAKE3 over 1 MiB chunks, so that any block can be digested alone, in any order.

A tensor's digest is BLAKE3 of its chunks' digests one after the other; a file's digest is BLAKE3 of its
header bytes and its tensors' digests in the order of their bytes; a checkpoint's content digest is BLAKE3
over name, dtype, shape and digest of its tensors sorted by name, so that sharding does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from blake3 import blake3

from rsoup.tensors import TensorSpec

DIGEST = "rsoup-digest/1"
CHUNK_BYTES = 1 << 20


class ChunkHasher:
    """Digests of 1 MiB chunks of bytes that come in pieces; a run must begin at a chunk's beginning."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._hasher = blake3()
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
        self._hasher = blake3()
        self._filled = 0

    def digests(self) -> bytes:
        """The chunks' digests one after the other, 32 bytes each; the hasher is empty afterwards."""
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
