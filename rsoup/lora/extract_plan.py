"""A measured fine-tune → Plan: ranks, keys, header, configuration of its adapter; and its figures once it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rsoup import layout
from rsoup.layout import OutputFile
from rsoup.lora import extracted
from rsoup.lora.changes import Parts, fan_in_fan_out, norm_of, parted
from rsoup.lora.extracted import Figures
from rsoup.lora.ranks import choose
from rsoup.lora.reducing import Place, Reduced, reduce, spectra
from rsoup.lora.tuned import Moved, Tuned
from rsoup.progress import Meter, OnProgress
from rsoup.storage.protocols import FileLayout, Sink
from rsoup.tensors import DTYPES, Header

WEIGHTS: Final = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before the factors are made. `spectra` are whole where ranks were chosen by error."""

    found: Tuned
    moved: Moved
    parts: Parts
    ranks: Mapping[str, int]
    spectra: Mapping[str, Sequence[float]] | None
    places: Mapping[str, Place]
    header: Header
    file: OutputFile
    config: Mapping[str, object]


def planned(
    found: Tuned,
    change: Moved,
    save: bool,
    embeddings: bool,
    threads: int | None,
    progress: OnProgress | None,
) -> Plan:
    """What becomes of every change, at which rank, under which keys.

    Where ranks are chosen by error all singular values are taken first. Raises IncompatibleError E0360 to E0364.
    """
    recipe, header = found.recipe, found.header
    parts = parted(
        change.changes,
        header,
        save=save,
        embeddings=embeddings,
        drop=found.drop,
        tied=found.tied,
        elsewhere=found.elsewhere,
    )
    model_type = found.config.get("model_type")
    inverted = fan_in_fan_out(parts.factors, header, model_type if isinstance(model_type, str) else None)
    sides = {one.module: min(one.spec.shape) for one in parts.factors}
    values: dict[str, tuple[float, ...]] | None = None
    if recipe.rank is not None:
        ranks = {module: min(recipe.rank, side) for module, side in sides.items()}
    else:
        meter = _meter("measuring", found, parts, progress)
        values = spectra(parts.factors, found.tuned, found.base, threads=threads, on_module=meter)
        chosen = choose({m: [v] for m, v in values.items()}, sides, rank=None, max_error=recipe.max_error)
        ranks = dict(chosen.chosen)
    ranks = extracted.levelled(ranks)
    where = extracted.places(parts, ranks, inverted=inverted)
    made = extracted.header_of(parts, where, DTYPES[recipe.dtype or "F32"], header)
    file = layout.output_file(FileLayout(WEIGHTS, tuple(made)), made, recipe.sha256())
    config = extracted.config_of(found, parts, ranks, inverted=inverted)
    return Plan(found, change, parts, ranks, values, where, made, file, config)


class _Count:
    """Tells a meter of every module that was read."""

    def __init__(self, meter: Meter, found: Tuned) -> None:
        self._meter, self._both = meter, (found.tuned, found.base)

    def __call__(self, change: object) -> None:
        """One more is done."""
        inner = getattr(change, "inner", "")
        self._meter.add(sum(source.header[inner].nbytes for source in self._both))


def _meter(phase: str, found: Tuned, parts: Parts, progress: OnProgress | None) -> _Count:
    both = (found.tuned, found.base)
    total = sum(source.header[change.inner].nbytes for source in both for change in parts.factors)
    return _Count(Meter(phase, total, progress), found)


def reduced_by(
    plan: Plan, sink: Sink | None, threads: int | None, progress: OnProgress | None
) -> dict[str, Reduced]:
    """The factors of every module, made and stored (without a sink, made and forgotten)."""
    found = plan.found
    return reduce(
        plan.parts.factors,
        plan.places,
        plan.header,
        found.tuned,
        found.base,
        sink,
        exact=plan.spectra is not None,
        threads=threads,
        on_module=_meter("extracting", found, plan.parts, progress),
    )


def foreseen(plan: Plan, threads: int | None, progress: OnProgress | None) -> Figures:
    """The figures without an output: from whole spectra if there are any, else the factors are made and forgotten."""
    if plan.spectra is None:
        return figures_of(plan, reduced_by(plan, None, threads, progress))
    left = {m: math.fsum(v * v for v in s[plan.ranks[m] :]) for m, s in plan.spectra.items()}
    squares = {m: math.fsum(v * v for v in s) for m, s in plan.spectra.items()}
    return _told(plan, plan.spectra, squares, left)


def figures_of(plan: Plan, reduced: Mapping[str, Reduced]) -> Figures:
    """The figures of factors as they are stored."""
    values = plan.spectra or {module: one.spectrum for module, one in reduced.items()}
    squares = {module: one.square for module, one in reduced.items()}
    return _told(plan, values, squares, {module: one.left_over for module, one in reduced.items()})


def _told(
    plan: Plan, values: Mapping[str, Sequence[float]], squares: Mapping[str, float], left: Mapping[str, float]
) -> Figures:
    """The figures from ‖Δ‖² and ‖Δ − B·A‖² of every module; `values` give the errors that other ranks would have."""
    sides = {c.module: min(c.spec.shape) for c in plan.parts.factors}
    known = plan.ranks if plan.spectra is None else sides
    table = choose({m: [v] for m, v in values.items()}, known, rank=max(known.values()), max_error=None)
    errors = {m: math.sqrt(left[m] / squares[m]) if squares[m] else 0.0 for m in squares}
    worst = sorted(((error, m) for m, error in errors.items()), reverse=True)[:3]
    total = math.fsum(squares.values())
    ranks = replace(
        table,
        chosen=dict(plan.ranks),
        norm=math.sqrt(total),
        error=math.sqrt(math.fsum(left.values()) / total) if total else 0.0,
        worst=tuple((m, error) for error, m in worst),
    )
    everything = norm_of(plan.moved.changes)
    return Figures(
        ranks=ranks,
        norms={m: math.sqrt(value) for m, value in squares.items()},
        errors=errors,
        saved=plan.parts.saved,
        biases=plan.parts.biases,
        left_out=extracted.left_out(plan.parts.left_out),
        left_out_share=norm_of(plan.parts.left_out) / everything if everything else 0.0,
        distance=plan.moved.distance,
    )
