"""A tensor as it lies in a file, by its strides, and its bytes row by row."""

from __future__ import annotations

from dataclasses import dataclass

from rsoup.storage.pickled.zip_members import Reader, read_bytes
from rsoup.tensors import TensorSpec

_PIECE_ELEMENTS = 1 << 20
_SPAN_BYTES = 1 << 25
_GAP_BYTES = 64  # reading so many bytes too many costs less than another read


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: what it is, the byte its first element begins at, and its strides in elements."""

    spec: TensorSpec
    begin: int
    strides: tuple[int, ...]
    storage: str = ""

    @property
    def contiguous(self) -> bool:
        """Whether its bytes in the file are its elements row by row, without anything between them."""
        step = 1
        for size, stride in zip(reversed(self.spec.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return self.spec.numel == 0
            step *= size
        return True


def read_stored(reader: Reader, tensor: StoredTensor, start: int, buffer: memoryview) -> None:
    """Fill `buffer` with bytes of the tensor's elements row by row, from byte `start` on.

    A tensor that lies otherwise in the file is gathered in pieces: memory is bounded, whatever its size.
    """
    if start < 0 or start + len(buffer) > tensor.spec.nbytes:
        msg = f"bytes {start} to {start + len(buffer)} are not all in a tensor of {tensor.spec.nbytes}"
        raise ValueError(msg)
    if tensor.contiguous:
        reader.read(tensor.begin + start, buffer)
        return
    itemsize = tensor.spec.dtype.itemsize
    at = start
    while at < start + len(buffer):
        first = at // itemsize
        last = min(-(-(start + len(buffer)) // itemsize), first + _PIECE_ELEMENTS)
        skip = at - first * itemsize
        part = _gathered(reader, tensor, first, last)[skip : start + len(buffer) - first * itemsize]
        buffer[at - start : at - start + len(part)] = part
        at += len(part)


def _gathered(reader: Reader, tensor: StoredTensor, first: int, last: int) -> memoryview:
    """The bytes of elements `first` to `last`, counted row by row."""
    import numpy as np

    itemsize = tensor.spec.dtype.itemsize
    rest = np.arange(first, last)
    places = np.zeros(last - first, dtype=np.int64)
    for size, stride in zip(reversed(tensor.spec.shape), reversed(tensor.strides), strict=True):
        places += rest % size * stride
        rest //= size
    low, high = int(places.min()), int(places.max()) + 1
    if (high - low) * itemsize <= _SPAN_BYTES:
        runs = [(low, high)]
        places -= low
    else:
        wanted = np.unique(places)
        breaks = np.flatnonzero(np.diff(wanted) > _GAP_BYTES // itemsize) + 1
        starts, ends = wanted[np.r_[0, breaks]], wanted[np.r_[breaks - 1, len(wanted) - 1]] + 1
        shifts = np.cumsum(np.r_[0, (ends - starts)[:-1]]) - starts
        places += shifts[np.searchsorted(starts, places, side="right") - 1]
        runs = list(zip(starts.tolist(), ends.tolist(), strict=True))
    data = b"".join(
        read_bytes(reader, tensor.begin + begin * itemsize, (end - begin) * itemsize) for begin, end in runs
    )
    return memoryview(np.frombuffer(data, dtype=f"u{itemsize}")[places].tobytes())
