"""Adapters in numbers: the records of their modules summed over layers and all: norms, angles, beginnings. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rsoup.family.measures import Maybe, Part, Row, group_of, group_order, ratio, root
from rsoup.family.seating import trained_keys
from rsoup.family.updates import Bad, ModuleRecord, Products
from rsoup.gram import Gram
from rsoup.lora.adapter import Adapter
from rsoup.lora.result import AdapterFacts, cosines, facts


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """One adapter: what it is, which base it names, how large its updates are.

    `replaces` are the tensors that it stores whole or by rows, which no norm here counts. `on_base`: whether the
    given base is the one it was saved on, None where nothing proves it. `relative` = ‖ΔW‖/‖W‖ over the weights it
    changes. `sigma` is the largest singular value of any module's ΔW, `stable_rank` the median over modules of
    ‖ΔW‖²/σ₁². What is unknown is None.
    """

    facts: AdapterFacts
    base: str | None
    revision: str | None
    parameters: int
    replaces: tuple[str, ...] = ()
    on_base: bool | None = None
    relative: Maybe = None
    sigma: Maybe = None
    stable_rank: Maybe = None
    untrained: bool = False


@dataclass(frozen=True, slots=True)
class AdapterMeasures:
    """Everything that is known of adapters as such; i and j count them in order.

    `modules` are changed by any, `shared` by all. Only where factors were read (`total` is not None): `cosine` of
    the ΔW, `a_cosine` and `b_cosine` the means over shared modules with factors of one shape, `layers` and `tensors`
    (‖ΔW‖ and, with a base, ‖ΔW‖/‖W‖ over what each adapter changes there), `nonfinite` (adapter, key, elements),
    `factors_distance` (how far, at equal shares, `--method factors` is from the soup, by ‖soup‖; None where it refuses).
    """

    rows: tuple[AdapterRow, ...]
    modules: int
    shared: int
    cosine: tuple[Row, ...] = ()
    a_cosine: tuple[Row, ...] = ()
    b_cosine: tuple[Row, ...] = ()
    total: Part | None = None
    layers: tuple[Part, ...] = ()
    tensors: tuple[Part, ...] = ()
    nonfinite: tuple[Bad, ...] = ()
    factors_distance: Maybe = None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters' names."""
        return tuple(row.facts.name for row in self.rows)


def described(adapters: Sequence[Adapter], on_base: Sequence[bool | None]) -> AdapterMeasures:
    """What configurations and shapes say of adapters; no factor is read."""
    having = [set(adapter.updates) for adapter in adapters]
    rows = tuple(_row(adapter, proved) for adapter, proved in zip(adapters, on_base, strict=True))
    return AdapterMeasures(rows, len(set().union(*having)), len(set.intersection(*having)))


def _row(adapter: Adapter, on_base: bool | None) -> AdapterRow:
    return AdapterRow(
        facts(adapter, None),
        adapter.config.base,
        adapter.config.revision,
        sum(adapter.spec(key).numel for key in trained_keys(adapter)),
        (*adapter.tensors, *adapter.rows),
        on_base,
    )


def measured(
    known: AdapterMeasures, records: Sequence[ModuleRecord], nonfinite: Sequence[Bad]
) -> AdapterMeasures:
    """What the records of a survey add to what was `described`."""
    size = len(known.rows)
    complete = [_is_complete(i, records) for i in range(size)]
    gram = [
        [_sum(records, min(i, j), max(i, j)) if complete[i] and complete[j] else 0.0 for j in range(size)]
        for i in range(size)
    ]
    groups: dict[str, list[ModuleRecord]] = {}
    for record in records:
        groups.setdefault(group_of(f"{record.module}.weight"), []).append(record)
    total = _part("all", records, size)
    return replace(
        known,
        rows=tuple(_filled(row, i, total, records) for i, row in enumerate(known.rows)),
        cosine=cosines(gram),
        a_cosine=_means([record.a for record in records], size),
        b_cosine=_means([record.b for record in records], size),
        total=total,
        layers=tuple(_part(name, groups[name], size) for name in sorted(groups, key=group_order)),
        tensors=tuple(_part(record.module, [record], size) for record in records),
        nonfinite=tuple(nonfinite),
        factors_distance=_factors_distance(records, gram),
    )


def _factors_distance(records: Sequence[ModuleRecord], gram: Gram) -> Maybe:
    gaps = [record.gap for record in records if record.gap is not None]
    if len(gram) < 2 or not records or len(gaps) < len(records):
        return None
    soup = math.fsum(value for row in gram for value in row)
    return ratio(root(math.fsum(gaps)), root(soup / len(gram) ** 2))


def _sum(records: Sequence[ModuleRecord], i: int, j: int) -> float:
    return math.fsum(record.products.get((i, j), 0.0) for record in records)


def _is_complete(i: int, records: Sequence[ModuleRecord]) -> bool:
    """Whether ΔW of an adapter is known in every module that it changes, and it changes some."""
    own = [record for record in records if i in record.shares]
    return bool(own) and all((i, i) in record.products for record in own)


def _part(name: str, records: Sequence[ModuleRecord], size: int) -> Part:
    absolute = tuple(root(_sum(records, i, i)) if _is_complete(i, records) else None for i in range(size))
    weights = [_weight(i, records) for i in range(size)]
    relative = tuple(ratio(value, weight) for value, weight in zip(absolute, weights, strict=True))
    gram = [[_sum(records, min(i, j), max(i, j)) for j in range(size)] for i in range(size)]
    known = all(value is not None for value in absolute)
    return Part(
        name,
        sum(record.elements for record in records),
        absolute,
        relative,
        cosine=cosines(gram) if known and size > 1 else (),
    )


def _weight(i: int, records: Sequence[ModuleRecord]) -> Maybe:
    """‖W‖ over the tensors of the base that an adapter changes; None without a base."""
    squares = [record.weight for record in records if i in record.shares]
    found = [square for square in squares if square is not None]
    return root(math.fsum(found)) if found and len(found) == len(squares) else None


def _filled(row: AdapterRow, i: int, total: Part, records: Sequence[ModuleRecord]) -> AdapterRow:
    own = [record for record in records if i in record.shares]
    known = all(i in record.sigma for record in own) and bool(own)
    stable = [record.products[i, i] / record.sigma[i] ** 2 for record in own if known and record.sigma[i] > 0]
    return replace(
        row,
        facts=replace(row.facts, norm=total.absolute[i]),
        relative=total.relative[i],
        sigma=max(record.sigma[i] for record in own) if known else None,
        stable_rank=statistics.median(stable) if stable else None,
        untrained=bool(own) and not row.replaces and all(i in record.idle for record in own),
    )


def _means(cosine: Sequence[Products], size: int) -> tuple[Row, ...]:
    """The mean over modules of cosines between the factors of two adapters; None where none can be compared."""

    def mean(i: int, j: int) -> Maybe:
        found = [of[min(i, j), max(i, j)] for of in cosine if (min(i, j), max(i, j)) in of]
        return 1.0 if i == j else math.fsum(found) / len(found) if found else None

    return tuple(tuple(mean(i, j) for j in range(size)) for i in range(size))
