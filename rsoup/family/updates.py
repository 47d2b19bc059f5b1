"""survey_updates(adapters): one pass over factors: norms, angles and singular values of every update; no product formed.

What depends on the base (DoRA's magnitudes, PiSSA's beginnings, ‖W‖) is read from it in pieces, once a tensor.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rsoup.errors import IncompatibleError
from rsoup.family.seating import (
    Seat,
    Touched,
    chunks,
    factor_keys,
    item_nbytes,
    loose_keys,
    seat_of,
    touched_modules,
)
from rsoup.lora.adapter import Adapter, LowRank
from rsoup.lora.algebra import Core, Stack, core, inner_products, spectrum
from rsoup.lora.beginning import beginning
from rsoup.lora.effective import matrix
from rsoup.workers import alone, each, torch_threads

if TYPE_CHECKING:
    import torch

    Pairs = list[tuple[torch.Tensor, torch.Tensor]]

Products = dict[tuple[int, int], float]
Bad = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """What was learnt of one module; i and j count the adapters, i ≤ j.

    `products` are ⟨ΔWᵢ, ΔWⱼ⟩ of adapters whose ΔW is known; `sigma` are their largest singular values, where
    ΔW is of low rank. `a` and `b` are cosines between the factors as stored, of equal shapes. `idle`: whose B is
    zero. `gap` is the square of the distance, at equal shares, between the average of the factors and the soup; None
    where factors have no average. `weight` is the square of ‖W‖ of the tensors changed, None without a base.
    """

    module: str
    elements: int
    shares: tuple[int, ...]
    products: Products
    sigma: Mapping[int, float]
    a: Products
    b: Products
    idle: frozenset[int]
    gap: float | None
    weight: float | None


def survey_updates(
    adapters: Sequence[Adapter],
    seats: Sequence[Seat | None],
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[ModuleRecord], list[Bad]]:
    """(a record for every module, (adapter, key, elements) that are NaN or infinite), in the order of the files.

    Factors that are not finite leave their adapter out of the module. `progress` gets bytes, under a lock.
    """
    modules = touched_modules(adapters)
    loose = [(i, key) for i, adapter in enumerate(adapters) for key in loose_keys(adapter)]
    items: list[Touched | tuple[int, str]] = [*modules, *loose]
    records: dict[str, ModuleRecord] = {}
    bad: list[Bad] = []

    def worker(
        _: threading.Event,
    ) -> Callable[[Touched | tuple[int, str]], tuple[ModuleRecord | None, list[Bad]]]:
        alone()

        def work(item: Touched | tuple[int, str]) -> tuple[ModuleRecord | None, list[Bad]]:
            if isinstance(item, Touched):
                return _module(item, adapters, seats)
            return None, _counted(adapters, [item])

        return work

    def on_result(item: Touched | tuple[int, str], found: tuple[ModuleRecord | None, list[Bad]]) -> None:
        if found[0] is not None:
            records[found[0].module] = found[0]
        bad.extend(found[1])
        if progress is not None:
            progress(item_nbytes(item, adapters, seats))

    with torch_threads(load=True):
        each(items, worker, on_result, threads=threads)
    return [records[item.module] for item in modules], sorted(bad)


def _counted(adapters: Sequence[Adapter], keys: Sequence[tuple[int, str]]) -> list[Bad]:
    found = [
        (i, key, sum(int((~piece.isfinite()).sum()) for piece in chunks(adapters[i].source, key)))
        for i, key in keys
    ]
    return [item for item in found if item[2]]


def _module(
    item: Touched, adapters: Sequence[Adapter], seats: Sequence[Seat | None]
) -> tuple[ModuleRecord, list[Bad]]:
    factors: dict[int, tuple[LowRank, torch.Tensor, torch.Tensor]] = {}
    bad: list[Bad] = []
    for i, update in item.shares:
        try:
            factors[i] = (update, adapters[i].b(update), adapters[i].a(update))
        except IncompatibleError:  # E0304: not finite
            bad += _counted(adapters, [(i, key) for key in factor_keys(update)])
    sums = _Sums()
    dora = any(update.keys.magnitude is not None for update, _, _ in factors.values())
    for group in _by_shape(factors, adapters, item.module, seats):
        sums.add(group, even=_has_average(group, adapters))
    if dora and all(seats[i] is not None for i in factors):
        sums.products |= _streamed(item.module, list(factors), seats)
    seat = seat_of(item, seats)
    like = item.shares[0][1]
    record = ModuleRecord(
        item.module,
        like.rows * like.columns * like.experts,
        tuple(i for i, _ in item.shares),
        sums.products,
        sums.sigma,
        _factor_cosines({i: a for i, (_, _, a) in factors.items()}),
        _factor_cosines({i: b for i, (_, b, _) in factors.items()}),
        frozenset(i for i, (_, b, _) in factors.items() if not bool(b.any())),
        sums.gap,
        None if seat is None else _square(seat, item.module),
    )
    return record, bad


def _square(seat: Seat, module: str) -> float:
    """The square of ‖W‖ of the tensors that a module's update changes."""
    ground = seat.source.ground
    places = seat.places.get(module, ())
    return math.fsum(float(piece @ piece) for p in places for piece in chunks(ground, p.tensor))


Factored = dict[int, tuple[LowRank, "Pairs"]]


def _by_shape(
    factors: Mapping[int, tuple[LowRank, torch.Tensor, torch.Tensor]],
    adapters: Sequence[Adapter],
    module: str,
    seats: Sequence[Seat | None],
) -> Iterator[Factored]:
    """The updates that can be multiplied with each other, as (B, A) for each expert; those of unknown ΔW left out."""
    groups: dict[tuple[int, int, int], Factored] = {}
    for i, (update, b, a) in factors.items():
        if update.keys.magnitude is not None:
            continue
        pairs = _pairs(adapters[i].began(update), update, b, a, seats[i], module)
        if pairs is not None:
            groups.setdefault((update.rows, update.columns, update.experts), {})[i] = (update, pairs)
    yield from groups.values()


def _pairs(
    init: str | None, update: LowRank, b: torch.Tensor, a: torch.Tensor, seat: Seat | None, module: str
) -> Pairs | None:
    """(B, A) of every expert, what was taken out of the base subtracted; None where that is not known."""
    import torch

    if update.experts > 1:
        b = b.reshape(update.rows, update.rank, update.experts)
        a = a.reshape(update.experts, update.rank, update.columns)
        return [(b[:, :, e], a[e]) for e in range(update.experts)]
    if init is None:
        return [(b, a)]
    if seat is None:
        return None
    (place,) = seat.places[module]
    b0, a0 = beginning(init, matrix(seat.source.ground, place), update.rank, update.scaling)
    return [(torch.cat([b, -b0], dim=1), torch.cat([a, a0]))]


def _has_average(group: Factored, adapters: Sequence[Adapter]) -> bool:
    """Whether the factors of a module have an average: all adapters have them, of one rank, scaling and kind."""
    alike = {(update.rank, update.scaling) for update, _ in group.values()}
    plain = all(adapter.config.init is None for adapter in adapters)
    return plain and len(alike) == 1 and len(group) == len(adapters)


@dataclass(slots=True)
class _Sums:
    """What is added up over the experts of one module; the fields are those of its record."""

    products: Products = field(default_factory=dict)
    sigma: dict[int, float] = field(default_factory=dict)
    gap: float | None = None

    def add(self, group: Factored, *, even: bool) -> None:
        """Add the updates of one shape; `even` where their factors have an average."""
        experts = len(next(iter(group.values()))[1])
        squares: dict[int, list[float]] = {i: [] for i in group}
        for e in range(experts):
            pairs = {i: (update, found[e]) for i, (update, found) in group.items()}
            for i, (update, (b, a)) in pairs.items():
                values = _values(b, a, update.scaling)
                self.sigma[i] = max(self.sigma.get(i, 0.0), values[0])
                squares[i] += [value * value for value in values]
            for key, value in _products(pairs).items():
                self.products[key] = self.products.get(key, 0.0) + value
            if even:
                self.gap = (self.gap or 0.0) + _gap(pairs)
        self.products |= {(i, i): math.fsum(found) for i, found in squares.items()}


OneExpert = dict[int, "tuple[LowRank, tuple[torch.Tensor, torch.Tensor]]"]


def _values(b: torch.Tensor, a: torch.Tensor, scaling: float) -> list[float]:
    """The singular values of s·B·A, falling."""
    import torch

    factor = torch.full((b.shape[1],), scaling, dtype=torch.float64)
    return spectrum(core(Stack(b, a, (0,) * b.shape[1])), factor)


def _products(pairs: OneExpert) -> Products:
    """⟨ΔWᵢ, ΔWⱼ⟩ for i < j."""
    import torch

    order = list(pairs)
    b = torch.cat([pairs[i][1][0] for i in order], dim=1)
    a = torch.cat([pairs[i][1][1] for i in order])
    widths = [pairs[i][1][0].shape[1] for i in order]
    owner = tuple(n for n, width in enumerate(widths) for _ in range(width))
    scalings = [pairs[i][0].scaling for i, width in zip(order, widths, strict=True) for _ in range(width)]
    rows = inner_products(Core(b, a.T, owner), scalings, len(order))
    return {(i, order[y]): rows[x][y] for x, i in enumerate(order) for y in range(x + 1, len(order))}


def _gap(pairs: OneExpert) -> float:
    """‖s·B̄Ā − mean of s·BᵢAᵢ‖², by the Gram matrices of the factors less their means: it is −mean of s·(Bᵢ−B̄)(Aᵢ−Ā)."""
    import torch

    updates = list(pairs.values())
    scale = updates[0][0].scaling / len(updates)
    b = torch.stack([found[0] for _, found in updates])
    a = torch.stack([found[1] for _, found in updates])
    b, a = torch.cat(list(b - b.mean(0)), dim=1), torch.cat(list(a - a.mean(0)))
    return max(0.0, float(((b.T @ b) * (a @ a.T)).sum())) * scale * scale


def _streamed(module: str, order: Sequence[int], seats: Sequence[Seat | None]) -> Products:
    """⟨θᵢ − θ₀, θⱼ − θ₀⟩ of a module in which someone has magnitudes, from the weights themselves, piece by piece."""
    import torch

    total = torch.zeros(len(order), len(order), dtype=torch.float64)
    chosen = [seat for i in order if (seat := seats[i]) is not None]
    try:
        for place in chosen[0].places.get(module, ()):
            grounds = (chunks(seat.source.ground, place.tensor) for seat in chosen)
            full = (chunks(seat.source, place.tensor) for seat in chosen)
            for pieces in zip(*full, *grounds, strict=True):
                count = len(order)
                deltas = torch.stack(pieces[:count]) - torch.stack(pieces[count:])
                total += deltas @ deltas.T
    except IncompatibleError:  # E0304: a magnitude that is not finite, which is counted elsewhere
        return {}
    return {(i, order[y]): float(total[x, y]) for x, i in enumerate(order) for y in range(x, len(order))}


def _factor_cosines(factors: Mapping[int, torch.Tensor]) -> Products:
    """The cosines between factors of one shape, as long vectors; none where one is zero."""
    found: Products = {}
    order = list(factors)
    lengths = {i: math.sqrt(float((factors[i] * factors[i]).sum())) for i in order}
    for x, i in enumerate(order):
        for j in order[x + 1 :]:
            if factors[i].shape == factors[j].shape and lengths[i] and lengths[j]:
                found[i, j] = float((factors[i] * factors[j]).sum()) / lengths[i] / lengths[j]
    return found
