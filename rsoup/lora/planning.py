"""Open adapters + recipes → plans: ranks, headers, configurations and figures of what will be written; nothing is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rsoup import layout
from rsoup.errors import GateError
from rsoup.layout import OutputFile
from rsoup.lora import pipelines, portable
from rsoup.lora.adapter import is_pipeline_lora
from rsoup.lora.algebra import tail
from rsoup.lora.compare import rank_note
from rsoup.lora.config import MAX_CONFIG_BYTES
from rsoup.lora.design import Design, left_out
from rsoup.lora.factors import distance_from_soup
from rsoup.lora.opening import Opened
from rsoup.lora.outline import Outline, outline
from rsoup.lora.pipeline_config import metadata_of
from rsoup.lora.ranks import TOLERANCE, TOLERANCE_F64, Ranks, choose
from rsoup.lora.result import AdapterMeasures, facts, measures
from rsoup.lora.spectra import Spectra, survey
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import ADAPTER_CONFIG, Recipe
from rsoup.storage.protocols import FileLayout
from rsoup.tensors import Header

WEIGHTS = "adapter_model.safetensors"
"""The name of PEFT's file; servers and PEFT look for no other."""


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
    def of_pipeline(self) -> bool:
        """Whether it is a LoRA in the format of diffusers, whose configuration is in the header of its file."""
        return self.design.adapters[0].of_pipeline

    @property
    def configuration(self) -> dict[str, object]:
        """What adapter_config.json will say, or the metadata of a LoRA of diffusers."""
        found: dict[str, object] = json.loads(self.config or b"{}")
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
    mixed = [design for design in designs if design.copy is None]
    nbytes = sum(spec.nbytes for adapter in ready.adapters for spec in adapter.source.header.values())
    meter = Meter("measuring", nbytes, progress)
    spectra = iter(survey(mixed, ready.ground, threads=threads, on_module=partial(_count, meter, ready)))
    base = None if ready.ground is None else ready.ground.base.header
    return [
        _planned(ready, recipe, out, design, next(spectra), base)
        if design.copy is None
        else _copied(ready, recipe, out, design)
        for (recipe, out), design in zip(recipes, designs, strict=True)
    ]


def _count(meter: Meter, ready: Opened, module: str) -> None:
    """Tell the meter that a module's factors were read."""
    updates = [(a, a.updates[module]) for a in ready.adapters if module in a.updates]
    meter.add(sum(adapter.spec(key).nbytes for adapter, update in updates for key in update.keys.all()))


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
    notes += _drop_notes(ready, design)
    made = outline(design, ranks.chosen, spectra.stacked)
    notes += rank_note(list(ranks.chosen.values()))
    of_pipeline = design.adapters[0].of_pipeline
    config = metadata_of(made) if of_pipeline else portable.encode(portable.config_of(made, base))
    file = _file(recipe, made.header, config if of_pipeline else None)
    return Planned(recipe, out, design, made, file, made.header, config, found, tuple(notes))


def _drop_notes(ready: Opened, design: Design) -> list[str]:
    """A note on how much of the soup --drop leaves out."""
    if not design.recipe.drop:
        return []
    without = left_out(design, ready.alike)
    (lost,) = survey([without], ready.ground)
    norm = math.sqrt(math.fsum(tail(v, 0) ** 2 for lists in lost.values.values() for v in lists))
    others = len(without.wholes) + len(without.rows) - len(design.wholes) - len(design.rows)
    left = [f"{len(without.modules)} modules with ‖ΔW‖ {norm:.4g}"] if without.modules else []
    left += [f"{others} of what is stored whole"] if others else []
    return [f"--drop leaves out {' and '.join(left)}"] if left else []


def _file(recipe: Recipe, header: Header, metadata: bytes | None) -> OutputFile:
    """The weight file: PEFT's, or that of diffusers with what its metadata says."""
    if metadata is None:
        return layout.output_file(FileLayout(WEIGHTS, tuple(header)), header, recipe.sha256())
    more = {pipelines.METADATA: metadata.decode()} if metadata else {}
    return layout.output_file(
        FileLayout(pipelines.WEIGHTS, tuple(header)), header, recipe.sha256(), more=more
    )


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
    if is_pipeline_lora(adapter.source):
        config = adapter.source.metadata.get(pipelines.METADATA, "").encode()
        file = _file(recipe, header, config)
    else:
        found = adapter.source.side_file(ADAPTER_CONFIG, MAX_CONFIG_BYTES)
        assert found is not None
        config, file = found, _file(recipe, header, None)
    figures = AdapterMeasures(tuple(facts(a, None) for a in ready.adapters), (), None, copied=adapter.name)
    return Planned(recipe, out, design, None, file, header, config, figures, ready.notes)


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
