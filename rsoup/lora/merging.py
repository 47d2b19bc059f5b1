"""Adapters in, one adapter out: the flow of a soup that is an adapter, for one recipe or for many at once."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from rsoup.contents import content, tensor_digests
from rsoup.digests import file_digest
from rsoup.errors import UsageError
from rsoup.layout import OutputFile
from rsoup.lora.beside import Beside, write_beside
from rsoup.lora.cooking import Written, cook
from rsoup.lora.opening import Opened, opened
from rsoup.lora.planning import Planned, check_gate, planned
from rsoup.lora.result import AdapterMeasures
from rsoup.manifest import NAME, Accept, encode
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import Recipe
from rsoup.storage.staging import Staging
from rsoup.storage.target import check_target, is_single_file
from rsoup.tensors import Header


@dataclass(frozen=True, slots=True)
class Cooked:
    """One finished adapter: where it is, its files and bytes, its figures, notes, manifest."""

    out: str
    files: tuple[str, ...]
    nbytes: int
    read_nbytes: int
    seconds: float
    tensors: int
    dropped: tuple[str, ...]
    measures: AdapterMeasures
    config: Mapping[str, object]
    header: Header
    notes: tuple[str, ...]
    manifest: Mapping[str, object]


def merge_adapters(
    recipes: Sequence[tuple[Recipe, str]],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fail_above_error: float | None = None,
    check: Callable[[Planned], None] | None = None,
    accept: Accept | None = None,
) -> list[Cooked]:
    """Write the soup of every (recipe, output): all over the same adapters, read and decomposed once.

    Each output is what it would be alone, bit for bit; all of it or nothing. `check` may refuse a plan before
    anything is written, `accept` a manifest before its adapter is put in its place. Raises UsageError (2),
    IncompatibleError (3), GateError (4, E0401: an error above `fail_above_error`), TargetError (6), AccessError (7),
    RefusedFileError (8), BusyError (75). Source: Ramé et al. 2023, section 2.2, for θ₀ + Σλᵢ(θᵢ − θ₀).
    """
    begun = time.monotonic()
    with opened(recipes[0][0], threads=threads) as ready:
        for _, out in recipes:
            check_place(ready, out, overwrite=overwrite)
        plans = planned(ready, recipes, threads=threads, progress=progress)
        for plan in plans:
            check_gate(plan, fail_above_error)
            if check is not None:
                check(plan)
        return _write(
            ready,
            plans,
            overwrite=overwrite,
            threads=threads,
            progress=progress,
            begun=begun,
            accept=accept,
        )


def check_place(ready: Opened, out: str, *, overwrite: bool) -> None:
    """Refuse an output that is no folder (E0214), or where nothing may be written (E0213, E0601, E0607)."""
    _check_out(out)
    check_target(out, [place for source in ready.sources for place in source.places], overwrite=overwrite)


def _check_out(out: str) -> None:
    if is_single_file(out):
        raise UsageError(
            "E0214",
            "an adapter is a folder: its configuration says what its tensors mean",
            hint="-o NAME, without an ending; --fold makes full weights, which fit into one file",
        )


class _AdapterSink:
    """A Sink over the one weight file of a staged adapter."""

    def __init__(self, staging: Staging, file: OutputFile) -> None:
        self._staging, self._file = staging, file.name
        self._at = dict(zip(file.tensors, file.offsets, strict=True))

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Put `data` at byte `start` of the tensor."""
        self._staging.write(self._file, self._at[tensor] + start, data)


def _write(
    ready: Opened,
    plans: Sequence[Planned],
    *,
    overwrite: bool,
    threads: int | None,
    progress: OnProgress | None,
    begun: float,
    accept: Accept | None,
) -> list[Cooked]:
    with ExitStack() as stack:
        stagings = [
            stack.enter_context(
                Staging(
                    plan.out, _sha256(ready, plan), {plan.file.name: (plan.file.pieces, plan.file.nbytes)}
                )
            )
            for plan in plans
        ]
        for plan in plans:
            check_target(plan.out, [], overwrite=overwrite)
        sinks = [_AdapterSink(staging, plan.file) for staging, plan in zip(stagings, plans, strict=True)]
        meter = Meter("writing", sum(plan.file.nbytes for plan in plans), progress)
        cooked = [(plan, sink) for plan, sink in zip(plans, sinks, strict=True) if plan.outline is not None]
        found = cook(
            [plan.outline for plan, _ in cooked if plan.outline is not None],
            ready.ground,
            [sink for _, sink in cooked],
            threads=threads,
        )
        written = iter(found)
        results = []
        for plan, staging, sink in zip(plans, stagings, sinks, strict=True):
            mine = Written(_copy(ready, plan, sink)) if plan.outline is None else next(written)
            meter.add(plan.file.nbytes)
            measured = replace(plan, measures=_with_rounding(plan.measures, mine))
            results.append(
                _commit(
                    ready, measured, staging, mine.digests, overwrite=overwrite, begun=begun, accept=accept
                )
            )
        return results


def _commit(
    ready: Opened,
    plan: Planned,
    staging: Staging,
    tensors: Mapping[str, str],
    *,
    overwrite: bool,
    begun: float,
    accept: Accept | None,
) -> Cooked:
    """Everything beside the weights, and the output in its place."""
    for source in ready.sources:
        source.check_unchanged()
    weights = file_digest(plan.file.head, [tensors[name] for name in plan.file.tensors])
    side = write_beside(
        Beside(
            ready=ready,
            recipe=plan.recipe,
            out=plan.out,
            config=None if plan.of_pipeline else plan.config,
            measures=plan.measures,
            weights=(plan.file.name, plan.file.nbytes, weights),
            tensors=tensors,
            content=content(plan.header, tensors),
            modules=len(plan.design.modules),
            seconds=time.monotonic() - begun,
        ),
        staging,
        overwrite=overwrite,
    )
    if accept is not None:
        accept(side.manifest)
    staging.commit(overwrite=overwrite, last={NAME: encode(side.manifest)})
    return _result(ready, plan, side.names, [*plan.notes, *side.notes], side.manifest, begun)


def _with_rounding(measures: AdapterMeasures, written: Written) -> AdapterMeasures:
    """The figures with what rounding the factors to a narrow dtype changed, where they were rounded to one."""
    norm = measures.ranks.norm if measures.ranks is not None else 0.0
    if not written.rounding_squared or not norm:
        return measures
    return replace(measures, stored_error=math.sqrt(math.fsum(written.rounding_squared.values())) / norm)


def _sha256(ready: Opened, plan: Planned) -> str:
    digest = hashlib.sha256()
    for part in ("rsoup-lora/1", plan.recipe.sha256(), *(source.identity for source in ready.sources)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _copy(ready: Opened, plan: Planned, sink: _AdapterSink) -> dict[str, str]:
    """The adapter's own tensors, byte for byte; their digests."""
    assert plan.design.copy is not None
    source = ready.adapters[plan.design.copy].source
    for name, spec in source.header.items():
        buffer = memoryview(bytearray(spec.nbytes))
        source.read(name, 0, buffer)
        sink.write(name, 0, buffer)
    return tensor_digests(source)


def _result(
    ready: Opened,
    plan: Planned,
    names: Sequence[str],
    notes: Sequence[str],
    manifest: Mapping[str, object],
    begun: float,
) -> Cooked:
    read = sum(spec.nbytes for adapter in ready.adapters for spec in adapter.source.header.values())
    return Cooked(
        out=plan.out,
        files=(plan.file.name, *names, NAME),
        nbytes=plan.file.nbytes,
        read_nbytes=read,
        seconds=time.monotonic() - begun,
        tensors=len(plan.header),
        dropped=tuple(plan.recipe.drop),
        measures=plan.measures,
        config=plan.configuration,
        header=plan.header,
        notes=tuple(notes),
        manifest=manifest,
    )
