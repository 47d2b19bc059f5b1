"""What is known of a soup that is an adapter: its ranks and errors, and what its ingredients are. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.lora.adapter import Adapter
from rsoup.lora.design import Design
from rsoup.lora.ranks import Ranks
from rsoup.lora.spectra import Spectra


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """One adapter: how many modules it changes, its ranks and scalings (lowest, highest), ‖ΔW‖, its kind."""

    name: str
    modules: int
    ranks: tuple[int, int]
    scalings: tuple[float, float]
    norm: float | None
    kind: str


@dataclass(frozen=True, slots=True)
class AdapterMeasures:
    """The figures of a soup of adapters. `ranks` is None where the soup is one of them, bit for bit (`copied`).

    `cosine` is between the ΔW of the ingredients. `stored_error` is what rounding the factors to their dtype
    changes, relative to ‖soup‖; `factors_distance` how far the average of factors is from the soup.
    """

    ingredients: tuple[AdapterFacts, ...]
    cosine: tuple[tuple[float | None, ...], ...]
    ranks: Ranks | None
    copied: str | None = None
    factors_distance: float | None = None
    stored_error: float | None = None


def facts(adapter: Adapter, norm: float | None) -> AdapterFacts:
    """The facts of one adapter whose ‖ΔW‖ is `norm`, if that was measured."""
    ranks = [update.rank for update in adapter.updates.values()] or [0]
    scalings = [update.scaling for update in adapter.updates.values()] or [0.0]
    return AdapterFacts(
        adapter.name,
        len(adapter.updates),
        (min(ranks), max(ranks)),
        (min(scalings), max(scalings)),
        norm,
        kind(adapter),
    )


def kind(adapter: Adapter) -> str:
    """`LoRA`, `rsLoRA`, `DoRA`, `PiSSA`, `OLoRA`, `AdaLoRA` or `token rows`."""
    config = adapter.config
    if config.init is not None:
        return {"pissa": "PiSSA", "olora": "OLoRA"}[config.init]
    if adapter.uses_dora:
        return "DoRA"
    if config.peft_type == "ADALORA":
        return "AdaLoRA"
    if not adapter.updates:
        return "token rows"
    return "rsLoRA" if config.use_rslora else "LoRA"


def measures(
    design: Design, spectra: Spectra, ranks: Ranks, factors_distance: float | None = None
) -> AdapterMeasures:
    """The figures of a soup whose spectra are known. Of DoRA the factors alone say neither norm nor angle."""
    dora = any(module.dora for module in design.modules)
    norms = [
        math.sqrt(max(0.0, row[i]))
        if i in design.used and not dora
        else None  # λ = 0, or its copy was measured
        for i, row in enumerate(spectra.gram)
    ]
    found = tuple(facts(adapter, norm) for adapter, norm in zip(design.adapters, norms, strict=True))
    angles = () if dora else cosines(spectra.gram)
    return AdapterMeasures(found, angles, ranks, factors_distance=factors_distance)


def cosines(gram: Sequence[Sequence[float]]) -> tuple[tuple[float | None, ...], ...]:
    """⟨ΔWᵢ, ΔWⱼ⟩ / (‖ΔWᵢ‖‖ΔWⱼ‖); None where one is zero."""
    size = range(len(gram))

    def cosine(i: int, j: int) -> float | None:
        norms = math.sqrt(max(0.0, gram[i][i])) * math.sqrt(max(0.0, gram[j][j]))
        if not 0.0 < norms < math.inf:
            return None
        return 1.0 if i == j else max(-1.0, min(1.0, gram[i][j] / norms))

    return tuple(tuple(cosine(i, j) for j in size) for i in size)


def measures_json(found: AdapterMeasures) -> dict[str, object]:
    """The figures as JSON's types."""
    data: dict[str, object] = {
        "ingredients": [
            {
                "name": row.name, "kind": row.kind, "modules": row.modules, "ranks": list(row.ranks),
                "scalings": list(row.scalings), "norm": row.norm,
            }
            for row in found.ingredients
        ],
        "cosine": [list(row) for row in found.cosine],
        "copied": found.copied,
    }  # fmt: skip
    if found.stored_error is not None:
        data["stored_error"] = found.stored_error
    if found.factors_distance is not None:
        data["distance_from_soup"] = found.factors_distance
    is_average = found.factors_distance is not None  # of factors, which nothing approximates
    if (ranks := found.ranks) is not None:
        data |= {
            "rank": [min(ranks.chosen.values(), default=0), max(ranks.chosen.values(), default=0)],
            "exact_rank": [min(ranks.exact.values(), default=0), max(ranks.exact.values(), default=0)],
            "stacked_rank": [min(ranks.stacked.values(), default=0), max(ranks.stacked.values(), default=0)],
            "norm": None if is_average else ranks.norm,
            "error": None if is_average else ranks.error,
            "worst": [{"module": name, "error": error} for name, error in ranks.worst],
            "error_by_rank": [{"rank": rank, "error": error} for rank, error in ranks.table],
            "ranks": dict(sorted(ranks.chosen.items())),
        }
    return data
