"""ComparingSink: a sink that writes nothing and holds what it is given against what is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rsoup.errors import show
from rsoup.proof.elements import Unlike, unlike
from rsoup.proof.verdict import Difference
from rsoup.storage.protocols import Source
from rsoup.tensors import Header


@dataclass(frozen=True, slots=True)
class Altered:
    """A tensor that is not what it should be: its first differing element, and how many were seen to differ."""

    tensor: str
    first: int
    unlike: Unlike


class ComparingSink:
    """A Sink over an open soup: every block of `header` that arrives is compared with the bytes the soup has there.

    Tensors that the soup lacks or holds in another shape or dtype are left out; see `unlike_specs`.
    """

    def __init__(self, soup: Source, header: Header) -> None:
        self.compared_bytes = 0
        self._soup = soup
        self._header = {name: spec for name, spec in header.items() if soup.header.get(name) == spec}
        self._expected = header
        self._found: dict[str, Altered] = {}
        self._lock = threading.Lock()
        self._buffers = threading.local()

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Compare `data` with the soup's bytes from byte `start` of the tensor on."""
        spec = self._header.get(tensor)
        if spec is None:
            return
        there = self._buffer(len(data))
        self._soup.read(tensor, start, memoryview(there))
        same = there == data
        found = None if same else unlike(spec.dtype, memoryview(there), data)
        with self._lock:
            self.compared_bytes += len(data)
            if found is not None:
                self._keep(tensor, start * 8 // spec.dtype.bits + found.first, found)

    def _buffer(self, size: int) -> bytearray:
        """This thread's buffer of exactly `size` bytes, so that the comparison is one of whole buffers."""
        buffer = getattr(self._buffers, "last", None)
        if not isinstance(buffer, bytearray) or len(buffer) != size:
            buffer = self._buffers.last = bytearray(size)
        return buffer

    def _keep(self, tensor: str, first: int, found: Unlike) -> None:
        known = self._found.get(tensor)
        if known is None:
            self._found[tensor] = Altered(tensor, first, found)
            return
        count = known.unlike.count + found.count
        if first < known.first:
            self._found[tensor] = Altered(tensor, first, replace(found, count=count))
        else:
            self._found[tensor] = replace(known, unlike=replace(known.unlike, count=count))

    def differences(self) -> list[Difference]:
        """What differs, in the order of the soup's tensors: element, both values, the distance in ulps."""
        return [
            *self._unlike_specs(),
            *(_told(self._found[name]) for name in self._expected if name in self._found),
        ]

    def _unlike_specs(self) -> list[Difference]:
        found = []
        for name, spec in self._expected.items():
            has = self._soup.header.get(name)
            if has != spec:
                what = f"it is {has}" if has is not None else "it is missing"
                found.append(Difference(f"tensor '{show(name)}'", f"{what}; the recipe gives {spec}"))
        found += [
            Difference(f"tensor '{show(name)}'", "the recipe gives no such tensor")
            for name in self._soup.header
            if name not in self._expected
        ]
        return found

    def altered(self) -> Sequence[str]:
        """The names of the tensors in which an element differs."""
        return [name for name in self._expected if name in self._found]


def _told(altered: Altered) -> Difference:
    found = altered.unlike
    apart = "" if found.ulps is None else f", {found.ulps} ulp{'' if found.ulps == 1 else 's'} apart"
    number = "1 element differs" if found.count == 1 else f"{found.count} elements differ"
    return Difference(
        f"tensor '{show(altered.tensor)}'",
        f"{number}, first element {altered.first}: {found.one} in the soup, {found.other} by the recipe{apart}",
        {
            "tensor": altered.tensor,
            "differing": found.count,
            "element": altered.first,
            "soup": found.one,
            "recipe": found.other,
            "ulps": found.ulps,
        },
    )
