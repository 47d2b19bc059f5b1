"""Adapters on their base, and the modules they change: what there is to read of them, before any of it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rsoup.lora.adapted import AdaptedSource
from rsoup.lora.adapter import Adapter, LowRank
from rsoup.lora.placed import Placed
from rsoup.storage.protocols import Source

if TYPE_CHECKING:
    import torch

_CHUNK_ELEMENTS = 1 << 19


@dataclass(frozen=True, slots=True)
class Seat:
    """An adapter on a base it fits: `places` are the base's tensors that the update of each module changes."""

    source: AdaptedSource = field(repr=False)
    places: Mapping[str, Sequence[Placed]]


def seated(base: Source, adapter: Adapter) -> Seat:
    """The adapter on its base. Raises IncompatibleError E0342, E0343 where it does not fit."""
    source = AdaptedSource(base, adapter)
    return Seat(source, source.places)


@dataclass(frozen=True, slots=True)
class Touched:
    """A module that some adapters change: `shares` are (position of the adapter, its update)."""

    module: str
    shares: tuple[tuple[int, LowRank], ...]


def touched_modules(adapters: Sequence[Adapter]) -> list[Touched]:
    """Every module that some adapter changes, in the order of the files."""
    names = dict.fromkeys(name for adapter in adapters for name in adapter.updates)
    return [
        Touched(name, tuple((i, a.updates[name]) for i, a in enumerate(adapters) if name in a.updates))
        for name in names
    ]


def seat_of(item: Touched, seats: Sequence[Seat | None]) -> Seat | None:
    """A seat of one of the adapters that change a module: where they lie is the same for all."""
    found = (seats[i] for i, _ in item.shares)
    return next((seat for seat in found if seat is not None), None)


def factor_keys(update: LowRank) -> list[str]:
    """The keys of an update's factors."""
    return [key for key in (update.keys.a, update.keys.b, update.keys.e) if key is not None]


def trained_keys(adapter: Adapter) -> Iterator[str]:
    """The keys of all that was trained: what an update lies on is not."""
    for update in adapter.updates.values():
        yield from update.keys.all()
    yield from adapter.tensors.values()
    yield from (key for _, key in adapter.rows.values())


def loose_keys(adapter: Adapter) -> Iterator[str]:
    """The keys of all that is no factor: biases, magnitudes, whole tensors, rows, copies of the base's."""
    for update in adapter.updates.values():
        yield from (key for key in (update.keys.bias, update.keys.magnitude) if key is not None)
    yield from adapter.tensors.values()
    yield from (key for _, key in adapter.rows.values())
    yield from adapter.beneath.values()


def read_nbytes(adapters: Sequence[Adapter], seats: Sequence[Seat | None]) -> int:
    """Bytes that `survey_updates` reads: every tensor of the adapters, every tensor of the base they change."""
    items: list[Touched | tuple[int, str]] = [*touched_modules(adapters)]
    items += [(i, key) for i, adapter in enumerate(adapters) for key in loose_keys(adapter)]
    return sum(item_nbytes(item, adapters, seats) for item in items)


def item_nbytes(
    item: Touched | tuple[int, str], adapters: Sequence[Adapter], seats: Sequence[Seat | None]
) -> int:
    """Bytes that are read for a module, or for one tensor that is no factor."""
    if not isinstance(item, Touched):
        return adapters[item[0]].spec(item[1]).nbytes
    factors = sum(adapters[i].spec(key).nbytes for i, update in item.shares for key in factor_keys(update))
    seat = seat_of(item, seats)
    places = seat.places.get(item.module, ()) if seat is not None else ()
    return factors + sum(seat.source.ground.header[p.tensor].nbytes for p in places if seat is not None)


def chunks(source: Source, tensor: str) -> Iterator[torch.Tensor]:
    """The elements of a tensor of floats, float64, a few MB at a time."""
    import torch

    spec = source.header[tensor]
    for start in range(0, spec.numel, _CHUNK_ELEMENTS):
        count = min(_CHUNK_ELEMENTS, spec.numel - start)
        buffer = bytearray(count * spec.dtype.itemsize)
        source.read(tensor, start * spec.dtype.itemsize, memoryview(buffer))
        yield torch.frombuffer(buffer, dtype=spec.dtype.torch).to(torch.float64)
