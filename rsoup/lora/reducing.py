"""Δ = θ − θ₀ module by module: its singular values, and its two factors into a sink; one Δ in memory at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rsoup.digests import ChunkHasher, tensor_digest
from rsoup.errors import IncompatibleError, show
from rsoup.lora.changes import Change
from rsoup.lora.delta import DIRECT, OVERSAMPLING, best, left_over, spectrum, square, with_rest
from rsoup.storage.protocols import Sink, Source
from rsoup.tensors import Header, TensorSpec
from rsoup.workers import StoppedError, alone, each, torch_threads

if TYPE_CHECKING:
    import torch

ROOM: Final = (
    1 << 27
)  # elements of float64 that modules may take together: 1 GiB, or what the largest alone takes
_PIECE: Final = 1 << 20

OnModule = Callable[[Change], None]


@dataclass(frozen=True, slots=True)
class Reduced:
    """One module as it was stored: leading singular values, ‖Δ‖², ‖Δ − B·A‖² of the stored factors, digests by key."""

    values: tuple[float, ...]
    square: float
    left_over: float
    digests: Mapping[str, str]

    @property
    def spectrum(self) -> tuple[float, ...]:
        """The leading singular values, and one that stands for the rest."""
        return with_rest(self.values, self.square - sum(value * value for value in self.values))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module's factors go: their keys and specs, and whether the stored Δ is (B·A)ᵀ."""

    a: str
    b: str
    transposed: bool
    rank: int


def spectra(
    changes: Sequence[Change],
    tuned: Source,
    base: Source,
    *,
    threads: int | None = None,
    on_module: OnModule | None = None,
) -> dict[str, tuple[float, ...]]:
    """Module → all singular values of its Δ, falling."""
    found: dict[str, tuple[float, ...]] = {}

    def on_result(change: Change, values: tuple[float, ...]) -> None:
        found[change.module] = values
        if on_module is not None:
            on_module(change)

    _each(changes, lambda change: spectrum(difference(change, tuned, base)), on_result, threads, whole=True)
    return found


def reduce(
    changes: Sequence[Change],
    places: Mapping[str, Place],
    header: Header,
    tuned: Source,
    base: Source,
    sink: Sink | None,
    *,
    exact: bool,
    threads: int | None = None,
    on_module: OnModule | None = None,
) -> dict[str, Reduced]:
    """Module → what its factors are; they go to `sink` if there is one, under the keys and dtypes of `header`.

    `exact`: the best factors there are, however large the matrix. The number of threads changes no bit of them.
    Raises IncompatibleError E0305 where a factor does not fit its dtype.
    """
    found: dict[str, Reduced] = {}

    def work(change: Change) -> Reduced:
        return _reduced(difference(change, tuned, base), places[change.module], header, sink, exact=exact)

    def on_result(change: Change, result: Reduced) -> None:
        found[change.module] = result
        if on_module is not None:
            on_module(change)

    whole = exact or any(4 * (place.rank + OVERSAMPLING) > DIRECT for place in places.values())
    _each(changes, work, on_result, threads, whole=whole)
    return found


def _each(
    changes: Sequence[Change],
    work: Callable[[Change], object],
    on_result: Callable[..., None],
    threads: int | None,
    *,
    whole: bool,
) -> None:
    room = _Room(ROOM)

    def worker(stop: threading.Event) -> Callable[[Change], object]:
        alone()

        def inside(change: Change) -> object:
            with room.of(_elements(change.spec, whole=whole), stop):
                return work(change)

        return inside

    with torch_threads(load=True):
        each(changes, worker, on_result, threads=threads)


def _elements(spec: TensorSpec, *, whole: bool) -> int:
    """About how many float64 numbers a module takes at its worst: Δ, and eigenvectors of its smaller side."""
    side = min(spec.shape)
    return spec.numel + (3 * side * side if whole or side <= DIRECT else spec.numel // 2)


class _Room:
    """Lets work in as long as all of it together fits; the largest of all is let in alone."""

    def __init__(self, elements: int) -> None:
        self._free, self._most = elements, elements
        self._changed = threading.Condition()

    @contextmanager
    def of(self, elements: int, stop: threading.Event) -> Iterator[None]:
        """Wait until there is room for so many elements, and hold it. Raises StoppedError when all are to stop."""
        elements = min(elements, self._most)
        with self._changed:
            while elements > self._free:
                if stop.is_set():
                    raise StoppedError
                self._changed.wait(0.1)
            self._free -= elements
        try:
            yield
        finally:
            with self._changed:
                self._free += elements
                self._changed.notify_all()


def difference(change: Change, tuned: Source, base: Source) -> torch.Tensor:
    """Δ = θ − θ₀ of one matrix, float64, with a few megabytes beside it."""
    import torch

    found = torch.empty(change.spec.numel, dtype=torch.float64)
    for start in range(0, len(found), _PIECE):
        part = found[start : start + _PIECE]
        part.copy_(_elements_of(tuned, change.inner, start, len(part)))
        part -= _elements_of(base, change.inner, start, len(part)).to(torch.float64)
    return found.reshape(change.spec.shape)


def _elements_of(source: Source, tensor: str, start: int, count: int) -> torch.Tensor:
    import torch

    dtype = source.header[tensor].dtype
    buffer = bytearray(count * dtype.itemsize)
    source.read(tensor, start * dtype.itemsize, memoryview(buffer))
    return torch.frombuffer(buffer, dtype=dtype.torch)


def _reduced(delta: torch.Tensor, place: Place, header: Header, sink: Sink | None, *, exact: bool) -> Reduced:
    import torch

    pair = best(delta, place.rank, exact=exact)
    left_key, right_key = (place.a, place.b) if place.transposed else (place.b, place.a)
    stored = []
    digests = {}
    for key, value in ((left_key, pair.left), (right_key, pair.right)):
        rounded = _rounded(key, header[key], value)
        stored.append(rounded.to(torch.float64))
        turned = rounded.T.contiguous() if place.transposed else rounded
        assert tuple(turned.shape) == header[key].shape
        digests[key] = _put(key, turned, sink)
    return Reduced(pair.values, square(delta), left_over(delta, *stored), digests)


def _rounded(key: str, spec: TensorSpec, value: torch.Tensor) -> torch.Tensor:
    import torch

    rounded = value.to(spec.dtype.torch).contiguous()
    if not bool(rounded.to(torch.float64).isfinite().all()):
        raise IncompatibleError(
            "E0305",
            f"too large for {spec.dtype.name}: elements of '{show(key)}'",
            hint=spec.dtype.remedy,
        )
    return rounded


def _put(key: str, value: torch.Tensor, sink: Sink | None) -> str:
    import torch

    data = memoryview(value.reshape(-1).view(torch.uint8).numpy().data)
    hasher = ChunkHasher()
    hasher.update(data)
    if sink is not None:
        sink.write(key, 0, data)
    return tensor_digest([hasher.digests()])


def copy(tensor: str, source: Source, key: str, dtype: TensorSpec, sink: Sink) -> str:
    """A tensor stored whole under `key`, rounded once if its dtype changes; the digest of its bytes."""
    import torch

    hasher = ChunkHasher()
    for start in range(0, dtype.numel, _PIECE):
        part = _elements_of(source, tensor, start, min(_PIECE, dtype.numel - start))
        data = memoryview(part.to(dtype.dtype.torch).view(torch.uint8).numpy().data)
        hasher.update(data)
        sink.write(key, start * dtype.dtype.itemsize, data)
    return tensor_digest([hasher.digests()])
