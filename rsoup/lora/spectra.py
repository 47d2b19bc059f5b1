"""The first pass over adapters: singular values of every module of the soup, norms and angles of the ingredients."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rsoup.gram import Gram
from rsoup.lora.algebra import core, inner_products, spectrum
from rsoup.lora.blocks import weighted
from rsoup.lora.design import Design, Module
from rsoup.lora.ground import Ground
from rsoup.workers import alone, each, torch_threads


@dataclass(frozen=True, slots=True)
class Spectra:
    """Module → the singular values of its soup (a list per expert) and Σr; `gram` is ⟨ΔWᵢ, ΔWⱼ⟩ of all adapters.

    `a_cosine` is the mean cosine of two adapters' A (None where none has the same shape): near 1 for one beginning.
    """

    values: Mapping[str, tuple[tuple[float, ...], ...]]
    stacked: Mapping[str, int]
    gram: Gram
    by_module: Mapping[str, Mapping[int, float]]


def survey(
    design: Design,
    ground: Ground | None,
    *,
    threads: int | None = None,
    on_module: Callable[[Module], None] | None = None,
) -> Spectra:
    """The spectra of a design; every factor is read once, no product of two is ever formed.

    Raises IncompatibleError E0304 where a factor is not finite.
    """
    found: dict[str, tuple[tuple[tuple[float, ...], ...], dict[tuple[int, int], float]]] = {}

    def worker(
        _: threading.Event,
    ) -> Callable[[Module], tuple[tuple[tuple[float, ...], ...], dict[tuple[int, int], float]]]:
        alone()
        return lambda module: _module(design, module, ground)

    def on_result(
        module: Module, result: tuple[tuple[tuple[float, ...], ...], dict[tuple[int, int], float]]
    ) -> None:
        found[module.name] = result
        if on_module is not None:
            on_module(module)

    with torch_threads():
        each(design.modules, worker, on_result, threads=threads)
    size = len(design.adapters)
    gram = [
        [math.fsum(found[m.name][1].get((i, j), 0.0) for m in design.modules) for j in range(size)]
        for i in range(size)
    ]
    by_module = {
        m.name: {i: math.sqrt(max(0.0, v)) for (i, j), v in found[m.name][1].items() if i == j}
        for m in design.modules
    }
    values = {module.name: found[module.name][0] for module in design.modules}
    stacked = {
        module.name: len(values_of) for module, values_of in zip(design.modules, _widths(design), strict=True)
    }
    return Spectra(values, stacked, gram, by_module)


def _widths(design: Design) -> Sequence[range]:
    """Σr of every module, PiSSA's beginnings counted."""
    return [
        range(sum(s.update.rank * (1 if design.began(s) is None else 2) for s in module.shares))
        for module in design.modules
    ]


def _module(
    design: Design, module: Module, ground: Ground | None
) -> tuple[tuple[tuple[float, ...], ...], dict[tuple[int, int], float]]:
    found = weighted(design, module, ground)
    values = []
    products: dict[tuple[int, int], float] = {}
    for stack in found.stacks:
        small = core(stack)
        values.append(tuple(spectrum(small, found.coefficients)))
        rows = inner_products(small, found.scalings, len(module.shares))
        for i, share in enumerate(module.shares):
            for j, other in enumerate(module.shares):
                key = (share.adapter, other.adapter)
                products[key] = products.get(key, 0.0) + rows[i][j]
    return tuple(values), products
