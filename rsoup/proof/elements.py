"""Bits → numbers: which elements of two runs of bytes differ, what they are, and how many ulps apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsoup.tensors import DType

if TYPE_CHECKING:
    import numpy as np

    Bits = np.ndarray[Any, np.dtype[Any]]
    Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Unlike:
    """The elements that differ between two runs: how many, the first one, what it is in each, ulps apart.

    `ulps` is the number of representable values from one to the other, None where that has no meaning.
    """

    count: int
    first: int
    one: str
    other: str
    ulps: int | None


def unlike(dtype: DType, one: memoryview, other: memoryview) -> Unlike | None:
    """The elements whose bits differ in two runs of equal length; None where there are none.

    For elements of less than a byte, bytes are counted and not elements.
    """
    import numpy as np

    a, b = bits_of(dtype, one), bits_of(dtype, other)
    differing = np.flatnonzero(a != b)
    if not len(differing):
        return None
    at = int(differing[0])
    first = at * 8 // dtype.bits if dtype.bits % 8 else at
    size = a.itemsize
    raw = [bytes(side[at * size : (at + 1) * size]) for side in (one, other)]
    ulps = ulps_apart(dtype, a[at : at + 1], b[at : at + 1])
    return Unlike(
        len(differing),
        first,
        value_text(dtype, raw[0]),
        value_text(dtype, raw[1]),
        None if ulps is None else int(ulps[0]),
    )


def bits_of(dtype: DType, data: memoryview) -> Bits:
    """The elements' bits as whole numbers; the bytes themselves for elements of less than a byte."""
    import numpy as np

    return np.frombuffer(data, dtype=f"<u{dtype.itemsize}" if dtype.bits % 8 == 0 else "u1")


def ulps_apart(dtype: DType, one: Bits, other: Bits) -> Bits | None:
    """|k(a) − k(b)| without a sign, k numbering a dtype's values from the smallest to the largest.

    −0 and 0 have one number. None for dtypes whose values have no order (complex and packed ones). For NaN
    the result means nothing.
    """
    import numpy as np

    if dtype.kind in ("complex", "packed"):
        return None
    if dtype.kind == "float":
        keys = [_float_keys(side) for side in (one, other)]
    elif dtype.name.startswith("I"):
        keys = [side.view(f"<i{side.itemsize}").astype(np.int64) for side in (one, other)]
    else:
        keys = [side.astype(np.uint64) for side in (one, other)]
    if one.itemsize <= 2 and dtype.kind == "float":
        apart: Bits = np.abs(keys[0] - keys[1])
        return apart
    low, high = np.minimum(*keys), np.maximum(*keys)
    return high.astype(np.uint64) - low.astype(np.uint64)  # modulo 2^64, where the true distance lies


def _float_keys(bits: Bits) -> Bits:
    """Sign and magnitude → two's complement: the order of the floats is that of the whole numbers."""
    import numpy as np

    size = bits.itemsize
    keys: Any = bits.view(f"<i{size}").astype(np.int32 if size <= 2 else np.int64)
    sign = keys >> (size * 8 - 1)  # −1 for negative ones, else 0
    keys &= (1 << (size * 8 - 1)) - 1
    keys ^= sign
    keys -= sign
    found: Bits = keys
    return found


def value_text(dtype: DType, raw: bytes) -> str:
    """One element as a text: the shortest decimal that gives it back in float64, or its bits."""
    if dtype.kind == "packed" or (dtype.kind == "bool" and raw not in (b"\0", b"\1")):
        return f"0x{raw[::-1].hex()}"
    if dtype.kind == "float":
        number = float(widened(dtype, memoryview(raw))[0])
        return f"nan (0x{raw[::-1].hex()})" if number != number else repr(number)  # noqa: PLR0124
    return str(_stored(dtype, memoryview(raw))[0].item())


def _stored(dtype: DType, data: memoryview) -> Numbers:
    import numpy as np

    kinds = {"bool": "?", "complex": f"<c{dtype.itemsize}"}
    return np.frombuffer(data, kinds.get(dtype.kind, f"<{dtype.name[0].lower()}{dtype.itemsize}"))


def widened(dtype: DType, data: memoryview) -> Numbers:
    """The elements as float64 (complex128 for complex ones); whole numbers beyond 2^53 lose digits."""
    import numpy as np

    from rsoup.backends.elements import widened as exactly

    if dtype.kind != "float":
        return _stored(dtype, data).astype(np.complex128 if dtype.kind == "complex" else np.float64)
    return exactly((dtype, data))
