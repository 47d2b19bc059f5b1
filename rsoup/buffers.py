"""Tensors that are never averaged: integers, booleans, packed numbers. Equal or not, byte for byte."""

from __future__ import annotations

from rsoup.errors import RefusedFileError, show
from rsoup.storage.protocols import Source

_CHUNK_BYTES = 1 << 20


def first_difference(tensor: str, one: Source, other: Source) -> str | None:
    """Where `tensor` differs between two checkpoints, in words, or None where both hold the same bytes.

    Raises RefusedFileError E0814 for a boolean whose byte is neither 0 nor 1.
    """
    spec, other_spec = one.header[tensor], other.header[tensor]
    names = f"'{show(one.name)}' and '{show(other.name)}'"
    if spec != other_spec:
        return f"{spec} and {other_spec} in {names}"
    ours, theirs = (memoryview(bytearray(min(_CHUNK_BYTES, spec.nbytes))) for _ in range(2))
    for start in range(0, spec.nbytes, _CHUNK_BYTES):
        size = min(_CHUNK_BYTES, spec.nbytes - start)
        a, b = ours[:size], theirs[:size]
        one.read(tensor, start, a)
        other.read(tensor, start, b)
        if spec.dtype.kind == "bool" and bytes(a).translate(None, b"\0\1"):
            raise RefusedFileError(
                "E0814",
                f"the boolean tensor '{show(tensor)}' of '{show(one.name)}' holds bytes other than 0 and 1",
            )
        if a != b:
            at = next(i for i in range(size) if a[i] != b[i])
            return f"element {(start + at) * 8 // spec.dtype.bits} differs between {names}"
    return None
