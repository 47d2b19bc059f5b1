"""merge(recipe, out): the one flow. Recipe → sources → plan → blocks → commit → result."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from rsoup import manifest
from rsoup.beside import Written, write_beside
from rsoup.cooking import cook_staged, measured_together
from rsoup.errors import IncompatibleError, Problem, show
from rsoup.gram import Distances
from rsoup.lora.fused import contents, fused
from rsoup.lora.merging import Cooked, merge_adapters
from rsoup.lora.mounting import makes_adapter
from rsoup.lora.result import AdapterMeasures
from rsoup.manifest import Accept
from rsoup.methods import METHODS
from rsoup.plan import Plan
from rsoup.prepare import Prepared, by_commit, prepared_together, way_of
from rsoup.progress import OnProgress
from rsoup.recipe import CARE_DISTANCE, Recipe
from rsoup.remote.transfer import Transfer, Way
from rsoup.storage.pickled.zip_write import fill_crcs
from rsoup.storage.staging import Staging
from rsoup.storage.target import check_target, is_single_file, sidecar
from rsoup.tally import Tally


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A finished soup: where it is, what it is made of, what was measured and what a reader should know.

    `distances` (of the ingredients' checkpoints, in order) and `update_error` are None without a base. `adapter`
    are the figures of a soup that is an adapter, None for full weights. `transfers` say how far weights came.
    """

    out: str
    files: tuple[str, ...]
    nbytes: int
    read_nbytes: int
    seconds: float
    resumed_blocks: int
    mixed: int
    copied: int
    dropped: tuple[str, ...]
    distances: Distances | None
    update_error: float | None
    notes: tuple[str, ...]
    manifest: Mapping[str, object] = field(repr=False)
    adapter: AdapterMeasures | None = None
    transfers: tuple[Transfer, ...] = ()


def merge(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fail_above_error: float | None = None,
    accept: Accept | None = None,
    fetch: Way | None = None,
) -> MergeResult:
    """Write the soup θ(λ) = Σ λᵢθᵢ of `recipe` to `out`, exact, in constant memory; all of it or nothing.

    `out` ending in `.safetensors` is one file with NAME.rsoup.json beside it, anything else a folder. A run
    that was killed is taken up where it was. `progress` is called from worker threads, one at a time; `accept` with the
    manifest, right before the soup is put in its place: what it raises leaves the target as it was. `fetch` "stream"
    leaves far weights where they are, "cache" downloads them first; without it, what `way_of` says.

    Raises UsageError (2), IncompatibleError (3), TargetError (6), AccessError (7), RefusedFileError (8),
    BusyError (75). Source: Ramé et al. 2023, Rewarded soups, section 2.2; arithmetic rsoup-arith/1.
    """
    (made,) = merge_many(
        [(recipe, out)],
        overwrite=overwrite,
        threads=threads,
        progress=progress,
        fail_above_error=fail_above_error,
        accept=accept,
        fetch=fetch,
    )
    return made


def merge_many(
    recipes: Sequence[tuple[Recipe, str | os.PathLike[str]]],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fail_above_error: float | None = None,
    accept: Accept | None = None,
    fetch: Way | None = None,
) -> list[MergeResult]:
    """Write the soup of every (recipe, output) from one reading of the checkpoints; each is what `merge` gives alone.

    The recipes differ in λ, scale and rules only. Every output is complete or not there; those that are
    finished stay if a later one fails. Raises what `merge` raises; ValueError for recipes of different checkpoints.
    """
    begun = time.monotonic()
    asked = [(by_commit(recipe), os.fspath(out)) for recipe, out in recipes]
    if makes_adapter(asked[0][0]):
        return _adapters(asked, overwrite, threads, progress, fail_above_error, accept)
    way = way_of(asked[0][0], fetch)
    with prepared_together(asked, overwrite=overwrite, fetch=way) as ready, ExitStack() as stack:
        stagings = [stack.enter_context(_staging(one)) for one in ready]
        for one in ready:
            check_target(one.out, [], overwrite=overwrite)
        for source in ready[0].sources:
            source.check_sums()
        decided = ready
        if METHODS[asked[0][0].method].needs_gram:
            planned = measured_together(ready, threads, progress)
            decided = [replace(one, plan=plan) for one, plan in zip(ready, planned, strict=True)]
        tallies, resumed = _cook(decided, stagings, threads, progress)
        for source in ready[0].sources:
            source.check_unchanged()
        rows = zip(decided, stagings, tallies, resumed, strict=True)
        return [_commit(*row, overwrite=overwrite, begun=begun, accept=accept) for row in rows]


def _staging(ready: Prepared) -> Staging:
    files = {file.name: (file.pieces, file.nbytes) for file in ready.plan.files}
    return Staging(ready.out, ready.plan.sha256([source.identity for source in ready.sources]), files)


def _cook(
    ready: Sequence[Prepared], stagings: Sequence[Staging], threads: int | None, progress: OnProgress | None
) -> tuple[list[Tally], list[int]]:
    """What was learnt of every soup, and how many of its blocks were there; those that read the same go together."""
    summed = [fused(one.plan, one.sources, threads=threads) for one in ready]
    tallies = [Tally(one.plan, one.grams) for one in summed]
    resumed = [0] * len(ready)
    together = [i for i, one in enumerate(summed) if not one.grams]
    for group in [together, *([i] for i in range(len(ready)) if i not in together)]:
        if group:
            found = cook_staged(
                [summed[i].plan for i in group],
                summed[group[0]].sources,
                [stagings[i] for i in group],
                [tallies[i] for i in group],
                threads,
                progress,
            )
            for i in group:
                resumed[i] = found
    return tallies, resumed


def _commit(
    ready: Prepared,
    staging: Staging,
    tally: Tally,
    resumed: int,
    *,
    overwrite: bool,
    begun: float,
    accept: Accept | None,
) -> MergeResult:
    """Everything beside the weights, and the soup in its place."""
    plan, target = ready.plan, ready.out
    finished = {
        file.name: staging.finish(file.name, partial(fill_crcs, crcs=file.crcs))
        for file in plan.files
        if file.crcs
    }
    transfers = tuple(ready.transfers)
    notes = [*ready.notes, *(one.told for one in transfers if one.way == "stream"), *_after(plan, tally)]
    side: Written = {}
    if not is_single_file(target):
        side, more = write_beside(ready, staging, tally, overwrite=overwrite)
        notes += more
    built = manifest.build(
        plan,
        tally,
        contents(plan, tally, ready.sources),
        finished=finished,
        side_files=side,
        files_from=plan.checkpoints[ready.donor],
        seconds=time.monotonic() - begun,
        transfers=[one.as_json() for one in transfers if one.way == "stream"],
    )
    if accept is not None:
        accept(built)
    staging.commit(overwrite=overwrite, last={manifest.NAME: manifest.encode(built)})
    mixed = sum(tensor.copy_from is None for tensor in plan.tensors)
    names = [file.name for file in plan.files]
    return MergeResult(
        out=target,
        files=(*names, *side, os.path.basename(sidecar(target)) if is_single_file(target) else manifest.NAME),
        nbytes=plan.nbytes,
        read_nbytes=ready.read_nbytes,
        seconds=time.monotonic() - begun,
        resumed_blocks=resumed,
        mixed=mixed,
        copied=len(plan.tensors) - mixed,
        dropped=plan.dropped,
        distances=tally.distances(),
        update_error=tally.update_error(),
        notes=tuple(notes),
        manifest=built,
        transfers=transfers,
    )


def _adapters(
    recipes: Sequence[tuple[Recipe, str]],
    overwrite: bool,
    threads: int | None,
    progress: OnProgress | None,
    fail_above_error: float | None,
    accept: Accept | None,
) -> list[MergeResult]:
    """Soups of adapters, as adapters."""
    made = merge_adapters(
        recipes,
        overwrite=overwrite,
        threads=threads,
        progress=progress,
        fail_above_error=fail_above_error,
        accept=accept,
    )
    return [_of_adapter(one) for one in made]


def _of_adapter(made: Cooked) -> MergeResult:
    copied = made.measures.copied is not None
    return MergeResult(
        out=made.out,
        files=made.files,
        nbytes=made.nbytes,
        read_nbytes=made.read_nbytes,
        seconds=made.seconds,
        resumed_blocks=0,
        mixed=0 if copied else made.tensors,
        copied=made.tensors if copied else 0,
        dropped=made.dropped,
        distances=None,
        update_error=None,
        notes=made.notes,
        manifest=made.manifest,
        adapter=made.measures,
    )


def _after(plan: Plan, tally: Tally) -> list[str]:
    """Notes on what was measured. Raises IncompatibleError E0306 for a soup of strangers."""
    notes = [
        f"'{show(name)}' stays NaN or infinite in {count} of its elements, as every ingredient with a share of it is"
        for name, count in tally.kept_nonfinite().items()
    ]
    distances = tally.distances()
    if distances is None:
        return notes
    names = plan.checkpoints
    strangers = [
        Problem(f"'{show(names[i])}'", f"relative distance {value:.3f} from the base")
        for i, value in enumerate(distances.relative)
        if value is not None and value > plan.recipe.max_distance
    ]
    if strangers and "distance" not in plan.recipe.allow:
        raise IncompatibleError(
            "E0306",
            f"{len(strangers)} of {len(names) - 1} checkpoints look unrelated to the base (farther than {plan.recipe.max_distance:g})",
            details=tuple(strangers),
            hint="a soup of strangers does not work; is it the right base? If you know better: --allow distance",
        )
    for i, value in enumerate(distances.relative):
        if value == 0.0:
            notes.append(f"'{show(names[i])}' equals the base (distance 0)")
        elif value is not None and value > CARE_DISTANCE:
            notes.append(
                f"'{show(names[i])}' moved far from the base (relative distance {value:.3f}); check that the soup works"
            )
    return notes
