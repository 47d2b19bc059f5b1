"""How far two tensors are apart, slice by slice: elements that differ, max |a − b|, ‖a − b‖/‖a‖, ulps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsoup.proof.elements import bits_of, ulps_apart, value_text, widened
from rsoup.tensors import DType, TensorSpec

if TYPE_CHECKING:
    from rsoup.proof.elements import Bits, Numbers


@dataclass(frozen=True, slots=True)
class Part:
    """What was found in one slice; `a_squared` is None where both are the same bytes, and nobody had to know yet.

    Sums and the maximum are over elements that are finite in both; `nonfinite` counts differing elements
    that are not.
    """

    start: int
    differing: int = 0
    first: int | None = None
    values: tuple[str, str] = ("", "")
    nonfinite: int = 0
    max_abs: float = 0.0
    max_ulps: int | None = None
    difference_squared: float = 0.0
    a_squared: float | None = None


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a tensor b is from a: `differing` elements, the first of them and what it is in each.

    `relative` is ‖a − b‖/‖a‖ (infinite for a = 0), `max_ulps` the largest number of representable values
    between two elements; None for other dtypes, `max_abs` and `relative` for packed numbers, too.
    """

    numel: int
    differing: int
    first: int | None
    values: tuple[str, str]
    nonfinite: int
    max_abs: float | None
    relative: float | None
    max_ulps: int | None


def part_of(start: int, a: DType, ours: memoryview, b: DType, theirs: memoryview) -> Part:
    """What differs in one slice of elements from `start` on: bits where the dtypes are equal, else values.

    Two NaN are the same value. Elements of less than a byte are counted as bytes.
    """
    import numpy as np

    one, other = bits_of(a, ours), bits_of(b, theirs)
    if a == b:
        unlike = one != other
        if not unlike.any():
            return Part(start)
    elif "packed" in (a.kind, b.kind):
        unlike = np.ones(len(one), dtype=bool)
    else:
        unlike = _other_values(widened(a, ours), widened(b, theirs))
    part = Part(start, a_squared=0.0)
    finite = None
    if "packed" not in (a.kind, b.kind):
        part, finite = _measured(part, widened(a, ours), widened(b, theirs), unlike)
    count = int(np.count_nonzero(unlike))
    if not count:
        return part
    ulps = ulps_apart(a, one, other) if a == b else None
    if ulps is not None and finite is not None:
        ulps = ulps[finite]
    at = int(unlike.argmax())
    return replace(
        part,
        differing=count,
        first=start + (at * 8 // a.bits if a.bits % 8 else at),
        values=(_value(a, ours, at, one.itemsize), _value(b, theirs, at, other.itemsize)),
        max_ulps=None if ulps is None else int(ulps.max(initial=0)),
    )


def _other_values(one: Numbers, other: Numbers) -> Bits:
    import numpy as np

    found: Bits = (one != other) & ~(np.isnan(one) & np.isnan(other))
    return found


def _measured(part: Part, one: Numbers, other: Numbers, unlike: Bits) -> tuple[Part, Bits | None]:
    """(the part with its sums, which elements are finite in both, or None for all of them)."""
    import numpy as np

    finite: Bits | None = np.isfinite(one) & np.isfinite(other)
    assert finite is not None
    if finite.all():
        finite = None
    else:
        one, other = np.where(finite, one, 0.0), np.where(finite, other, 0.0)
    with np.errstate(over="ignore"):
        gap = abs(one - other)
        found = replace(
            part,
            nonfinite=0 if finite is None else int((~finite & unlike).sum()),
            max_abs=float(gap.max()),
            difference_squared=_square(gap),
            a_squared=_square(abs(one)),
        )
    return found, finite


def _square(sizes: Numbers) -> float:
    import numpy as np

    return float(np.einsum("i,i->", sizes, sizes))


def _value(dtype: DType, data: memoryview, at: int, size: int) -> str:
    return value_text(dtype, bytes(data[at * size : (at + 1) * size]))


def squares_of(dtype: DType, data: memoryview) -> float:
    """Σ a² over the finite elements."""
    import numpy as np

    if dtype.kind == "packed":
        return 0.0
    values = widened(dtype, data)
    with np.errstate(over="ignore"):
        return _square(abs(np.where(np.isfinite(values), values, 0.0)))


def deviation(a: TensorSpec, b: TensorSpec, parts: Iterable[Part]) -> Deviation | None:
    """The parts of a tensor together, summed exactly, so in any order; None where nothing differs."""
    found = sorted(parts, key=lambda part: part.start)
    first = next((part for part in found if part.first is not None), None)
    if first is None:
        return None
    packed = "packed" in (a.dtype.kind, b.dtype.kind)
    moved = math.sqrt(math.fsum(part.difference_squared for part in found))
    size = math.sqrt(math.fsum(part.a_squared or 0.0 for part in found))
    ulps = [part.max_ulps for part in found if part.max_ulps is not None]
    return Deviation(
        numel=a.numel,
        differing=sum(part.differing for part in found),
        first=first.first,
        values=first.values,
        nonfinite=sum(part.nonfinite for part in found),
        max_abs=None if packed else max(part.max_abs for part in found),
        relative=None if packed else moved / size if size else (math.inf if moved else 0.0),
        max_ulps=max(ulps) if ulps else None,
    )
