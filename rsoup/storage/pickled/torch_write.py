"""The bytes of a file that torch.load reads, around tensors that are written into it later.

Everything but the tensors is laid out beforehand, so that they can be written in any order, in pieces, each
to its place; the checksums, which need them all, are filled in at the end.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping

from rsoup.errors import TargetError, show
from rsoup.storage.pickled.plain_pickle import dump
from rsoup.storage.pickled.torch_tensor import STORAGES, UNTYPED, UNTYPED_DTYPES
from rsoup.storage.pickled.zip_write import Archive, ZipLayout
from rsoup.tensors import DType, TensorSpec

_STORAGE_OF = {dtype: name for name, dtype in STORAGES.items()}
_NAME_OF = {dtype: name for name, dtype in UNTYPED_DTYPES.items()}


def archive(tensors: Mapping[str, TensorSpec], *, root: str) -> Archive:
    """The archive of a state dict of `tensors`, in this order, whose members lie in the folder `root`.

    The same tensors give the same bytes. Raises TargetError E0608 for a dtype torch has no tensors of.
    """
    layout = ZipLayout()
    program = _program(tensors)
    layout.add(f"{root}/data.pkl", program)
    layout.add(f"{root}/byteorder", b"little")
    offsets = {
        name: layout.leave(f"{root}/data/{number}", spec.nbytes)
        for number, (name, spec) in enumerate(tensors.items())
    }
    layout.add(f"{root}/version", b"3\n")
    layout.add(f"{root}/.data/serialization_id", _identity(program))
    return layout.finished(offsets)


def plain_archive(value: object, *, root: str) -> bytes:
    """A whole file whose torch.load is a plain value: tables, lists, texts, numbers; no tensors."""
    layout = ZipLayout()
    program = dump(value)
    layout.add(f"{root}/data.pkl", program)
    layout.add(f"{root}/byteorder", b"little")
    layout.add(f"{root}/version", b"3\n")
    layout.add(f"{root}/.data/serialization_id", _identity(program))
    made = layout.finished({})
    data = bytearray(made.nbytes)
    for at, piece in made.pieces:
        data[at : at + len(piece)] = piece
    return bytes(data)


def _identity(program: bytes) -> bytes:
    """Forty digits, as torch writes them to tell checkpoints apart: of the program, for tensors come later."""
    return str(int(hashlib.sha256(program).hexdigest(), 16))[-40:].zfill(40).encode()


def _program(tensors: Mapping[str, TensorSpec]) -> bytes:
    """The pickle of an OrderedDict of `tensors`, in the words of protocol 2, as torch writes one."""
    parts = [b"\x80\x02ccollections\nOrderedDict\n", _put(0), b")R(", *_entries(tensors), b"u."]
    return b"".join(parts)


def _entries(tensors: Mapping[str, TensorSpec]) -> Iterator[bytes]:
    memo: dict[bytes, int] = {}

    def once(code: bytes) -> bytes:
        """What `code` pushes, kept at its first use and taken from the memo after that."""
        if code in memo:
            return _get(memo[code])
        memo[code] = len(memo) + 1
        return code + _put(memo[code])

    for number, (name, spec) in enumerate(tensors.items()):
        storage, dtype = _storage(name, spec.dtype)
        module = "torch.storage" if dtype else "torch"
        numel = spec.nbytes if dtype else spec.numel
        rebuild = b"ctorch._utils\n_rebuild_tensor_v3\n" if dtype else b"ctorch._utils\n_rebuild_tensor_v2\n"
        yield _text(name) + once(rebuild) + b"(("
        yield once(_text("storage")) + once(f"c{module}\n{storage}\n".encode())
        yield _text(str(number)) + once(_text("cpu")) + _whole(numel) + b"tQ"
        yield _whole(0) + _tuple(spec.shape) + _tuple(_strides(spec.shape)) + b"\x89"
        yield _get(0) + b")R" + (once(f"ctorch\n{dtype}\n".encode()) if dtype else b"") + b"tR"


def _storage(name: str, dtype: DType) -> tuple[str, str]:
    """The class of storage for a dtype, and the dtype's name in torch where the class does not tell."""
    if dtype.name in _STORAGE_OF:
        return _STORAGE_OF[dtype.name], ""
    if dtype.name in _NAME_OF:
        return UNTYPED, _NAME_OF[dtype.name]
    raise TargetError(
        "E0608",
        f"torch has no tensors of {dtype.name}, which '{show(name)}' is",
        hint="write safetensors instead",
    )


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps = []
    step = 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<L", len(data)) + data


def _whole(number: int) -> bytes:
    if number < 1 << 8:
        return b"K" + struct.pack("<B", number)
    if number < 1 << 16:
        return b"M" + struct.pack("<H", number)
    if number < 1 << 31:
        return b"J" + struct.pack("<l", number)
    data = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + struct.pack("<B", len(data)) + data


def _tuple(numbers: tuple[int, ...]) -> bytes:
    items = b"".join(map(_whole, numbers))
    if len(numbers) < 4:
        return items + (b")", b"\x85", b"\x86", b"\x87")[len(numbers)]
    return b"(" + items + b"t"


def _put(index: int) -> bytes:
    return b"q" + struct.pack("<B", index) if index < 256 else b"r" + struct.pack("<L", index)


def _get(index: int) -> bytes:
    return b"h" + struct.pack("<B", index) if index < 256 else b"j" + struct.pack("<L", index)
