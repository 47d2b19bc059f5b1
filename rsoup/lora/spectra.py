"""The first pass over adapters: singular values of every module of the soup, norms and angles of the ingredients."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rsoup.gram import Gram
from rsoup.lora.algebra import spectrum
from rsoup.lora.blocks import Shared, weighted
from rsoup.lora.design import Design, Module
from rsoup.lora.ground import Ground
from rsoup.workers import alone, each, torch_threads


@dataclass(frozen=True, slots=True)
class Spectra:
    """Module → the singular values of its soup (a list per expert) and Σr; `gram` is ⟨ΔWᵢ, ΔWⱼ⟩ of all adapters."""

    values: Mapping[str, tuple[tuple[float, ...], ...]]
    stacked: Mapping[str, int]
    gram: Gram


def survey(
    designs: Sequence[Design],
    ground: Ground | None,
    *,
    threads: int | None = None,
    on_module: Callable[[str], None] | None = None,
) -> list[Spectra]:
    """The spectra of every design; each factor is read once for all of them, no product of two is ever formed.

    Raises IncompatibleError E0304 where a factor is not finite.
    """
    tables = [{module.name: module for module in design.modules} for design in designs]
    names = dict.fromkeys(name for table in tables for name in table)
    found: list[dict[str, _Found]] = [{} for _ in designs]

    def work(name: str) -> list[_Found | None]:
        shared: Shared = {}
        return [
            _module(design, table[name], ground, shared) if name in table else None
            for design, table in zip(designs, tables, strict=True)
        ]

    def worker(_: threading.Event) -> Callable[[str], list[_Found | None]]:
        alone()
        return work

    def on_result(name: str, results: list[_Found | None]) -> None:
        for mine, result in zip(found, results, strict=True):
            if result is not None:
                mine[name] = result
        if on_module is not None:
            on_module(name)

    with torch_threads(load=True):
        each(names, worker, on_result, threads=threads)
    return [_together(design, mine) for design, mine in zip(designs, found, strict=True)]


@dataclass(frozen=True, slots=True)
class _Found:
    """One module: its singular values by expert, Σr, the inner products of its adapters by their positions."""

    values: tuple[tuple[float, ...], ...]
    stacked: int
    products: dict[tuple[int, int], float]


def _together(design: Design, found: Mapping[str, _Found]) -> Spectra:
    size = range(len(design.adapters))
    names = [module.name for module in design.modules]
    gram = [[math.fsum(found[n].products.get((i, j), 0.0) for n in names) for j in size] for i in size]
    return Spectra({n: found[n].values for n in names}, {n: found[n].stacked for n in names}, gram)


def _module(design: Design, module: Module, ground: Ground | None, shared: Shared) -> _Found:
    found = weighted(design, module, ground, shared)
    values = tuple(tuple(spectrum(small, found.coefficients)) for small in found.blocks.cores())
    products: dict[tuple[int, int], float] = {}
    for rows in found.blocks.products(found.scalings, len(module.shares)):
        for i, share in enumerate(module.shares):
            for j, other in enumerate(module.shares):
                key = (share.adapter, other.adapter)
                products[key] = products.get(key, 0.0) + rows[i][j]
    return _Found(values, len(found.coefficients), products)
