"""Adapters on one base, summed before they meet it: θ₀ + Σ cᵢBᵢAᵢ from one product, where nothing else is asked of them.

A plan reads each adapted checkpoint by itself, which any method may ask for. A weighted sum of them needs the base
once and one product of all factors side by side. Their distances and angles come from the factors.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsoup.contents import fingerprint
from rsoup.gram import Gram
from rsoup.lora.adapted import AdaptedSource
from rsoup.lora.chunks import Chunked
from rsoup.lora.effective import Factors, expert_factors
from rsoup.lora.placed import Placed
from rsoup.lora.product import Product
from rsoup.methods import METHODS, Term
from rsoup.plan import Plan, TensorPlan
from rsoup.storage.protocols import Source
from rsoup.storage.views import View, bottom, lent, origin
from rsoup.tally import Tally
from rsoup.tensors import DTYPES, Header, TensorSpec
from rsoup.workers import alone, each, torch_threads

if TYPE_CHECKING:
    import torch

_KEPT = 4
NAME = "the adapters"

Part = tuple[AdaptedSource, Placed, float]
"""One adapter's update of a tensor, and the coefficient of its checkpoint."""


@dataclass(frozen=True, slots=True)
class Fused:
    """A plan to cook and its sources; `grams` are (checkpoints, their ⟨δᵢ, δⱼ⟩) of tensors that are read as one sum."""

    plan: Plan
    sources: tuple[Source, ...]
    grams: Mapping[str, tuple[tuple[int, ...], Gram]]


class FusedSource(Chunked):
    """θ₀ + Σ cᵢsᵢBᵢAᵢ of the tensors in `parts`, float64; what it passes on is the base's."""

    def __init__(self, base: Source, parts: Mapping[str, Sequence[Part]]) -> None:
        super().__init__(base)
        self.name = NAME
        self._parts = parts
        f64 = DTYPES["F64"]
        self.header: Header = {
            **base.header,
            **{n: TensorSpec(f64, base.header[n].shape, kept=base.header[n].stored) for n in parts},
        }
        self._cache: OrderedDict[str, Factors] = OrderedDict()
        self._lock = threading.Lock()

    def width(self, tensor: str) -> int:
        """Elements of a row."""
        return self._parts[tensor][0][1].columns

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of the sum from byte `start` on."""
        if tensor in self._parts:
            self.read_made(tensor, start, buffer)
        else:
            self.source.read(tensor, start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes of the base will be read soon."""
        ours, theirs = self.header[tensor].dtype.itemsize, self.source.header[tensor].dtype.itemsize
        self.source.prefetch(tensor, start // ours * theirs, nbytes // ours * theirs)

    def fill(self, tensor: str, begin: int, out: torch.Tensor) -> None:
        """The base, and the one product."""
        self.below(tensor, begin, out)
        self.add_update(self._parts[tensor][0][1], self._factors(tensor), begin, out)

    def _factors(self, tensor: str) -> Factors:
        with self._lock:
            found = self._cache.get(tensor)
            if found is None:
                found = self._cache[tensor] = Factors((_product(self._parts[tensor]),), 1.0)
                while len(self._cache) > _KEPT:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(tensor)
            return found


def _sides(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    """(left, right) of an update in the stored orientation, its coefficient in the left one."""
    source, where, coefficient = part
    ((b, a),) = expert_factors(source.adapter, where, source.ground)
    share = coefficient * where.update.scaling
    return (a.T * share, b.T) if where.transposed else (b * share, a)


def _product(parts: Sequence[Part]) -> Product:
    import torch

    sides = [_sides(part) for part in parts]
    left = torch.cat([left for left, _ in sides], dim=1)
    return Product(left.contiguous(), torch.cat([right for _, right in sides]).contiguous())


def fused(plan: Plan, sources: Sequence[Source], *, threads: int | None = None) -> Fused:
    """The plan with every sum of adapters on the base read as one; the same plan where there is none.

    `sources` are the plan's, the base last. Tensors keep their plan if an ingredient is no plain update of the base's
    own tensor there: full weights, DoRA, rows of tokens, biases, an adapter on something else.
    """
    if plan.base is None or METHODS[plan.recipe.method].needs_gram:
        return Fused(plan, tuple(sources), {})
    found = {t.name: updates for t in plan.tensors if (updates := _updates(plan, t, sources))}
    if not found:
        return Fused(plan, tuple(sources), {})
    summed = FusedSource(
        sources[plan.base], {name: list(updates.values()) for name, updates in found.items()}
    )
    position = len(sources)
    tensors = tuple(replace(t, terms=(Term(position, 1.0),)) if t.name in found else t for t in plan.tensors)
    return Fused(
        replace(plan, tensors=tensors, checkpoints=(*plan.checkpoints, NAME)),
        (*sources, summed),
        _grams(plan, found, threads),
    )


def _updates(plan: Plan, tensor: TensorPlan, sources: Sequence[Source]) -> dict[int, Part] | None:
    """The update of every checkpoint that has one of a tensor; None where the tensor stays as it is planned."""
    assert plan.base is not None
    if not tensor.measured or tensor.copy_from is not None:
        return None
    below = origin(sources[plan.base], tensor.name)
    updates: dict[int, Part] = {}
    for term in tensor.terms:
        source, name = origin(sources[term.checkpoint], tensor.name)
        if (source, name) == below:
            continue
        where = source.update_alone(name) if isinstance(source, AdaptedSource) else None
        if where is None or not isinstance(source, AdaptedSource) or origin(source.ground, name) != below:
            return None
        updates[term.checkpoint] = (source, where, term.coefficient)
    shapes = {(where.rows, where.columns, where.transposed) for _, where, _ in updates.values()}
    return updates if len(shapes) == 1 else None


def _grams(
    plan: Plan, found: Mapping[str, dict[int, Part]], threads: int | None
) -> dict[str, tuple[tuple[int, ...], Gram]]:
    """Tensor → the checkpoints that have a share of it, and ⟨δᵢ, δⱼ⟩ of them, from the factors."""
    tensors = [tensor for tensor in plan.tensors if tensor.name in found]
    grams: dict[str, tuple[tuple[int, ...], Gram]] = {}

    def gram(tensor: TensorPlan) -> tuple[tuple[int, ...], Gram]:
        positions = tuple(t.checkpoint for t in tensor.terms if t.checkpoint != plan.base)
        sides = {i: _sides((source, where, 1.0)) for i, (source, where, _) in found[tensor.name].items()}
        return positions, [[_inner(sides.get(i), sides.get(j)) for j in positions] for i in positions]

    def worker(_: threading.Event) -> Callable[[TensorPlan], tuple[tuple[int, ...], Gram]]:
        alone()
        return gram

    def on_result(tensor: TensorPlan, result: tuple[tuple[int, ...], Gram]) -> None:
        grams[tensor.name] = result

    with torch_threads(load=True):
        each(tensors, worker, on_result, threads=threads)
    return grams


def _inner(
    one: tuple[torch.Tensor, torch.Tensor] | None, other: tuple[torch.Tensor, torch.Tensor] | None
) -> float:
    """⟨L₁R₁, L₂R₂⟩ = Σ (L₁ᵀL₂)∘(R₁R₂ᵀ); nothing has no update there."""
    if one is None or other is None:
        return 0.0
    return float(((one[0].T @ other[0]) * (one[1] @ other[1].T)).sum())


def contents(plan: Plan, tally: Tally, sources: Sequence[Source]) -> list[str | None]:
    """The content digest of each checkpoint of a plan; of an adapter on its base it is that of its own file."""
    headers = [{n: s for n, s in source.header.items() if n not in lent(source)} for source in sources]
    found = tally.input_contents(headers)
    for position, source in enumerate(sources):
        if (own := own_file(plan, source, sources)) is not None:
            found[position] = fingerprint(own)
    return found


def own_file(plan: Plan, source: Source, sources: Sequence[Source]) -> Source | None:
    """The adapter's file behind an ingredient that is an adapter on the plan's base; None for any other."""
    if plan.base is None or source is sources[plan.base]:
        return None
    while isinstance(source, View) and not isinstance(source, AdaptedSource):
        source = source.source
    on_base = isinstance(source, AdaptedSource) and bottom(source) is bottom(sources[plan.base])
    return source.adapter.source if isinstance(source, AdaptedSource) and on_base else None
