"""Open adapters + recipes → plans: ranks, headers, configurations and figures of what will be written; nothing is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rsoup import layout
from rsoup.errors import GateError
from rsoup.layout import OutputFile
from rsoup.lora import portable
from rsoup.lora.compare import rank_note
from rsoup.lora.config import MAX_CONFIG_BYTES
from rsoup.lora.design import Design, Module
from rsoup.lora.factors import distance_from_soup
from rsoup.lora.opening import Opened
from rsoup.lora.outline import Outline, outline
from rsoup.lora.ranks import TOLERANCE, TOLERANCE_F64, Ranks, choose
from rsoup.lora.result import AdapterMeasures, facts, measures
from rsoup.lora.spectra import Spectra, survey
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import ADAPTER_CONFIG, Recipe
from rsoup.storage.protocols import FileLayout
from rsoup.tensors import Header

WEIGHTS = "adapter_model.safetensors"
"""The name of the file; servers and PEFT look for no other."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An adapter before it is written: its design, outline and file, its configuration, its figures."""

    recipe: Recipe
    out: str
    design: Design
    outline: Outline | None
    file: OutputFile
    header: Header
    config: bytes
    measures: AdapterMeasures
    notes: tuple[str, ...]

    @property
    def configuration(self) -> dict[str, object]:
        """What adapter_config.json will say."""
        found: dict[str, object] = json.loads(self.config)
        return found


def planned(
    ready: Opened,
    recipes: Sequence[tuple[Recipe, str]],
    *,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> list[Planned]:
    """Everything decided of every output: designs, spectra, ranks, headers, configurations."""
    designs = [ready.design(recipe) for recipe, _ in recipes]
    nbytes = sum(spec.nbytes for adapter in ready.adapters for spec in adapter.source.header.values())
    meter = Meter("measuring", nbytes * len(designs), progress)
    base = None if ready.ground is None else ready.ground.base.header
    found = []
    for (recipe, out), design in zip(recipes, designs, strict=True):
        if design.copy is not None:
            found.append(_copied(ready, recipe, out, design))
            continue
        spectra = survey(design, ready.ground, threads=threads, on_module=partial(_count, meter, design))
        found.append(_planned(ready, recipe, out, design, spectra, base))
    return found


def _count(meter: Meter, design: Design, module: Module) -> None:
    """Tell the meter that a module's factors were read."""
    meter.add(
        sum(design.adapters[s.adapter].spec(key).nbytes for s in module.shares for key in s.update.keys.all())
    )


def _planned(
    ready: Opened, recipe: Recipe, out: str, design: Design, spectra: Spectra, base: Header | None
) -> Planned:
    notes = list(ready.notes)
    if recipe.method == "factors":
        ranks = _factor_ranks(design)
        found = measures(design, spectra, ranks, distance_from_soup(design))
    else:
        ranks = choose(
            spectra.values,
            spectra.stacked,
            rank=recipe.rank,
            max_error=recipe.max_error,
            tolerance=_tolerance(recipe),
        )
        found = measures(design, spectra, ranks)
        notes += _rank_notes(ranks)
    made = outline(design, ranks.chosen, spectra.stacked)
    notes += rank_note(list(ranks.chosen.values()))
    file = layout.output_file(FileLayout(WEIGHTS, tuple(made.header)), made.header, recipe.sha256())
    config = portable.encode(portable.config_of(made, base))
    return Planned(recipe, out, design, made, file, made.header, config, found, tuple(notes))


def _tolerance(recipe: Recipe) -> float:
    return TOLERANCE_F64 if recipe.dtype == "F64" else TOLERANCE


def _rank_notes(ranks: Ranks) -> list[str]:
    lossless = sum(ranks.exact[name] < ranks.stacked[name] for name in ranks.exact)
    if not lossless:
        return []
    return [
        f"{lossless} of {len(ranks.exact)} modules need less than Σr: what is left out is below {TOLERANCE:.0e} of them"
    ]


def _factor_ranks(design: Design) -> Ranks:
    each = {module.name: module.like.rank for module in design.modules}
    return Ranks(each, each, each, 0.0, 0.0, (), ())


def _copied(ready: Opened, recipe: Recipe, out: str, design: Design) -> Planned:
    assert design.copy is not None
    adapter = ready.adapters[design.copy]
    header = adapter.source.header
    file = layout.output_file(FileLayout(WEIGHTS, tuple(header)), header, recipe.sha256())
    config = adapter.source.side_file(ADAPTER_CONFIG, MAX_CONFIG_BYTES)
    assert config is not None
    found = AdapterMeasures(tuple(facts(a, None) for a in ready.adapters), (), None, copied=adapter.name)
    return Planned(recipe, out, design, None, file, header, config, found, ready.notes)


def check_gate(plan: Planned, limit: float | None) -> None:
    """Raise GateError E0401 where the error of an adapter is above the limit a user set."""
    if limit is None:
        return
    ranks = plan.measures.ranks
    error = (
        plan.measures.factors_distance
        if plan.measures.factors_distance is not None
        else ranks.error
        if ranks
        else 0.0
    )
    if error > limit:
        raise GateError(
            "E0401",
            f"the adapter would be {error:.3g} of its norm away from the soup; {limit:g} is the limit (--fail-above-error)",
            hint="a higher --rank, or none for the exact soup",
        )
