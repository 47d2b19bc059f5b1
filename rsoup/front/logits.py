"""Outputs of networks from .npy, .npz and .safetensors files: arrays of one shape, and nothing that runs."""

from __future__ import annotations

import io
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from rsoup.errors import UsageError, show, show_path

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[Any]]

LARGEST: Final = 1 << 33
_KINDS: Final = "fiu"
# numpy reads a header as a Python literal, and tokenizes what is none: what that raises for garbage is its own.
_BAD_HEADER: Final = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError)
_HINT: Final = (
    "numpy.save('expert.npy', logits), numpy.savez('all.npz', expert=…, soup=…), or safetensors' save_file"
)


def read_logits(*paths: str | os.PathLike[str], same_shape: bool = True) -> dict[str, Floats]:
    """All arrays of the files by name, in order: the name within .npz and .safetensors, the file's own for .npy.

    Floats and whole numbers, as stored (bfloat16 as float32); where a name comes twice, both are `FILE:NAME`.
    Nothing is unpickled, nothing is mapped into memory. With `same_shape` all have one shape (…, outputs).
    Raises UsageError E0257 for a file that is none of these, is damaged or cannot be read, has no arrays, holds
    anything but finite numbers, is larger than 8 GiB unpacked, or arrays whose shapes differ.
    """
    found: list[tuple[str, str, Floats]] = []
    for path in paths:
        found += [(os.fspath(path), name, array) for name, array in _arrays(os.fspath(path))]
    names = [name for _, name, _ in found]
    arrays = {name if names.count(name) == 1 else f"{path}:{name}": array for path, name, array in found}
    if len(arrays) != len(found):
        raise UsageError("E0257", "a file is given twice", hint="each file of logits once")
    shapes = {array.shape: name for name, array in reversed(arrays.items())}
    if same_shape and len(shapes) > 1:
        told = ", ".join(f"'{show_path(name)}' {shape}" for shape, name in reversed(shapes.items()))
        raise UsageError(
            "E0257",
            f"the arrays have different shapes: {told}",
            hint="one row per input, one column per output; the same inputs for every expert and the soup",
        )
    return arrays


def _arrays(path: str) -> Iterator[tuple[str, Floats]]:
    import numpy as np

    count = 0
    for name, array in _stored(path):
        if array.dtype.kind not in _KINDS or not array.ndim or not array.size:
            raise _refused(path, f"'{show_path(name)}' is no array of numbers: {array.dtype}, {array.shape}")
        if not np.isfinite(array).all():
            raise _refused(path, f"'{show_path(name)}' has values that are not finite")
        count += 1
        yield name, array
    if not count:
        raise _refused(path, "there are no arrays in it")


def _refused(path: str, what: str) -> UsageError:
    return UsageError("E0257", what, where=show_path(path), hint=_HINT)


def _stored(path: str) -> Iterator[tuple[str, Floats]]:
    stem, ending = os.path.splitext(os.path.basename(path))
    try:
        if not os.path.isfile(path):
            raise _refused(path, "there is no such file")
        if ending == ".npy":
            with open(path, "rb") as file:
                yield stem, _npy(path, file, os.path.getsize(path))
        elif ending == ".npz":
            yield from _npz(path)
        elif ending == ".safetensors":
            yield from _safetensors(path)
        else:
            raise _refused(path, f"'{ending}' is no ending of a file of arrays")
    except OSError as error:
        raise _refused(path, f"it cannot be read: {error.strerror or error}") from error


def _npz(path: str) -> Iterator[tuple[str, Floats]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _refused(path, "it is packed in a way that numpy never packs")
                with archive.open(member) as file:
                    yield member.filename.removesuffix(".npy"), _npy(path, file, member.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _refused(path, f"it is no archive of arrays: {show(error)}") from error


def _npy(path: str, file: Any, size: int) -> Floats:
    """The array, read here: numpy would believe a header that asks for more memory than there are bytes."""
    import numpy as np

    if size > LARGEST:
        raise _refused(path, f"it is too large: {size} bytes unpacked")
    stream = io.BytesIO(file.read(size))
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, dtype = read(stream)
        if dtype.hasobject:
            raise _refused(path, "it holds Python objects, not numbers")
        flat = np.frombuffer(stream.getbuffer()[stream.tell() :], dtype=dtype)
        array: Floats = flat.reshape(shape, order="F" if by_columns else "C")
    except _BAD_HEADER as error:
        raise _refused(path, f"it is no .npy array: {show(error)}") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _safetensors(path: str) -> Iterator[tuple[str, Floats]]:
    import torch
    from safetensors import SafetensorError, safe_open

    if os.path.getsize(path) > LARGEST:
        raise _refused(path, f"it is too large: {os.path.getsize(path)} bytes")
    try:
        with safe_open(path, framework="pt", backend="pread") as file:
            for name in file.keys():  # noqa: SIM118 — it is no mapping
                tensor = file.get_tensor(name)
                wide = tensor.is_floating_point() and tensor.dtype.itemsize <= torch.float32.itemsize
                yield name, (tensor.float() if wide else tensor).numpy()
    except SafetensorError as error:
        raise _refused(path, f"it is no safetensors file: {show(error)}") from error
