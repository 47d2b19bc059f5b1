"""check(checkpoints): may these be mixed, and how far did they move? Nothing is written, nothing is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction

from rsoup.compat.alignment import aligned
from rsoup.compat.examine import compare
from rsoup.compat.headers import Mismatch, dropped
from rsoup.errors import IncompatibleError, RsoupError, UsageError, listing, show
from rsoup.family.adapters import AdapterMeasures
from rsoup.family.adapting import are_low_rank, examined, is_full
from rsoup.family.bases import refusal
from rsoup.family.claims import claimed_base, licences
from rsoup.family.measures import Measures, measure
from rsoup.family.survey import comparable, survey
from rsoup.family.verdict import Limits, Verdict, judge, judge_adapters
from rsoup.lora.mounting import mounted, with_base
from rsoup.names import names_for
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import CARE_DISTANCE, MAX_DISTANCE, Ingredient, Recipe
from rsoup.remote.transfer import Fetch, Transfer, Way
from rsoup.storage.checkpoint import Leniency, open_checkpoint
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.protocols import Source

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found: the verdict with its reasons, every mismatch, every measure, notes.

    `base` is the path of the base that was used, `found_base` says that the checkpoints' own metadata named it.
    `measures` is None where only headers were read, and for adapters that were compared as such: these are
    `adapters`, and `tensors` counts the modules all of them change. `left_out` are tensors that not all have alike.
    """

    names: tuple[str, ...]
    base: str | None
    found_base: bool
    verdict: Verdict
    limits: Limits
    mismatches: tuple[Mismatch, ...]
    measures: Measures | None
    tensors: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    read_nbytes: int
    seconds: float
    adapters: AdapterMeasures | None = None
    transfers: tuple[Transfer, ...] = ()


def check(
    checkpoints: Mapping[str, Path] | Sequence[Path],
    base: Path | None = None,
    *,
    headers: bool = False,
    care: float | None = None,
    max_distance: float = MAX_DISTANCE,
    variant: str | None = None,
    key: str | None = None,
    missing: str | None = None,
    vocab: str | None = None,
    fold: bool = False,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    threads: int | None = None,
    progress: OnProgress | None = None,
    fetch: Way = "stream",
) -> CheckResult:
    """How far each θᵢ moved from θ₀, ‖θᵢ − θ₀‖/‖θ₀‖ and more, and whether a soup of them can work.

    Without `base`, one that the checkpoints' metadata names is used where it lies on this machine; else only the
    distances between the checkpoints are measured. With `headers` no weights are read. Names that differ in one
    total way are mapped, `missing="base"` completes partial fine-tunes and `vocab` makes vocabularies equally long, as in merge. Tensors that a glob of
    `drop` matches are left out of everything; `allow` may hold `symlinks`, `unindexed` and, for adapters, `base`; `key`
    is the entry of a PyTorch file that holds the weights; `fetch` says how far weights come. Mismatches are reported.

    PEFT adapters of low rank are compared as such (`adapters` of the result); with `fold`, or among full
    checkpoints, each is put on its base and measured as the full checkpoint it makes.

    Raises UsageError (2) for limits or options that cannot be meant, AccessError (7), RefusedFileError (8).
    """
    begun = time.monotonic()
    limits = _limits(min(CARE_DISTANCE, max_distance) if care is None else care, max_distance)
    named = _named(checkpoints)
    leniency = Leniency("symlinks" in allow, "unindexed" in allow)
    with ExitStack() as stack:

        def opened(name: str, uri: str) -> CheckpointSource:
            how: Fetch = "headers" if headers else fetch
            source = open_checkpoint(uri, name=name, variant=variant, key=key, leniency=leniency, fetch=how)
            stack.callback(source.close)
            return source

        fine_tuned = [opened(name, uri) for name, uri in named]
        notes: list[str] = []
        used, theirs = (os.fspath(base), None) if base is not None else claimed_base(fine_tuned, named, notes)
        alone = not fold and are_low_rank(fine_tuned)
        recipe = _recipe(named, used, fold=fold)
        if not alone:
            recipe, more = with_base(recipe, fine_tuned)
            used, notes = recipe.base, [*notes, *more]
        reference: CheckpointSource | None = None
        if used is not None:
            try:
                reference = opened("base", used)
            except RsoupError as error:
                if base is not None or not (alone or all(map(is_full, fine_tuned))):
                    raise
                notes.append(f"the base the checkpoints name, {theirs}, cannot be read: {error.message}")
                used, recipe = None, replace(recipe, base=None)
        if alone:
            _refuse_options(variant=variant, key=key, missing=missing, vocab=vocab)
            found = _as_adapters(
                fine_tuned, reference, limits, headers=headers, drop=drop, allow=allow, threads=threads, progress=progress
            )  # fmt: skip
        else:
            try:
                found = _as_checkpoints(
                    fine_tuned, reference, limits, recipe=recipe, headers=headers,
                    missing=missing, vocab=vocab, drop=drop, threads=threads, progress=progress,
                )  # fmt: skip
            except IncompatibleError as error:  # of adapters alone: one that does not fit, or is not finite
                mismatches = (refusal(error, error.where, "adapter"),)
                found = _Found(judge(mismatches, None, limits), mismatches, ())
        everything = (*fine_tuned, *([reference] if reference else []))
        for source in everything:
            source.check_unchanged()
        transfers = [one for source in everything for one in source.transfers]
        notes += [one.told for one in transfers if one.way == "stream" and not headers]
    return CheckResult(
        tuple(name for name, _ in named), used, used is not None and base is None, found.verdict, limits,
        found.mismatches, found.measures, found.tensors, found.left_out, (*notes, *found.notes), found.nbytes,
        time.monotonic() - begun, found.adapters, tuple(transfers),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    verdict: Verdict
    mismatches: tuple[Mismatch, ...]
    notes: tuple[str, ...]
    measures: Measures | None = None
    tensors: int = 0
    left_out: tuple[str, ...] = ()
    nbytes: int = 0
    adapters: AdapterMeasures | None = None


def _as_adapters(
    sources: Sequence[CheckpointSource],
    base: Source | None,
    limits: Limits,
    *,
    headers: bool,
    drop: Sequence[str],
    allow: Sequence[str],
    threads: int | None,
    progress: OnProgress | None,
) -> _Found:
    found = examined(
        sources, base, headers=headers, drop=drop, allow=allow, threads=threads, progress=progress
    )
    return _Found(
        judge_adapters(found.mismatches, found.found, limits, with_base=base is not None),
        found.mismatches,
        (*found.notes, *licences(sources)),
        tensors=found.found.shared if found.found is not None else 0,
        nbytes=found.read_nbytes,
        adapters=found.found,
    )


def _as_checkpoints(
    fine_tuned: Sequence[CheckpointSource],
    base: CheckpointSource | None,
    limits: Limits,
    *,
    recipe: Recipe,
    headers: bool,
    missing: str | None,
    vocab: str | None,
    drop: Sequence[str],
    threads: int | None,
    progress: OnProgress | None,
) -> _Found:
    full, mounts = mounted(recipe, [*fine_tuned, *([base] if base is not None else [])], weights=not headers)
    reference: Source | None = full[-1] if base is not None else None
    without = _dropped(full, drop)
    sources, reference, views = aligned(
        full if base is None else full[:-1], reference, without, missing=missing, vocab=vocab
    )
    ordered: list[Source] = [*sources, reference] if reference else [*sources[1:], sources[0]]
    found = compare(
        [reference, *sources] if reference else sources,
        without,
        weights=not headers,
        resized=vocab is not None,
    )
    notes = [*mounts, *views, *found.notes, *found.remarks, *licences(sources)]
    measured, left_out = (
        [name for name in names if name not in without]
        for names in comparable([source.header for source in ordered])
    )
    measures, nbytes = None, 0
    if not headers:
        for source in ordered:
            source.check_sums()
        nbytes = sum(source.header[name].nbytes for source in ordered for name in measured)
        meter = Meter("checking", nbytes, progress)
        records = survey(ordered, measured, moved=reference is not None, threads=threads, progress=meter.add)
        measures = measure(records, [source.name for source in fine_tuned], base=reference is not None)
        notes += _remarks(measures)
    for source in ordered:
        source.check_unchanged()
    return _Found(
        judge(found.mismatches, measures, limits),
        found.mismatches,
        tuple(notes),
        measures,
        len(measured),
        tuple(left_out),
        nbytes,
    )


def _recipe(named: Sequence[tuple[str, str]], base: str | None, *, fold: bool) -> Recipe:
    """What decides how adapters are put on their base, as a recipe says it to a merge."""
    share = (Fraction(1, len(named)),) * len(named)
    ingredients = tuple(Ingredient(name, (uri,)) for name, uri in named)
    return Recipe(ingredients, share, share, base=base, fold=fold or None)


def _refuse_options(**options: str | None) -> None:
    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        what = f"{', '.join(given)}: means nothing to adapters as such"
        raise UsageError("E0206", what, hint="leave it out; --fold measures the full checkpoints they make")


def _limits(care: float, max_distance: float) -> Limits:
    if not 0 <= care <= max_distance:
        raise UsageError(
            "E0210",
            f"limits of {care:g} and {max_distance:g} cannot be meant",
            hint="shares of the base's norm, the first at most as large: --care 0.2 --max-distance 0.7",
        )
    return Limits(care, max_distance)


def _named(checkpoints: Mapping[str, Path] | Sequence[Path]) -> list[tuple[str, str]]:
    if isinstance(checkpoints, Mapping):
        named = [(name, os.fspath(path)) for name, path in checkpoints.items()]
    else:
        paths = [os.fspath(path) for path in checkpoints]
        named = list(zip(names_for(paths), paths, strict=True))
    if not named:
        raise UsageError("E0202", "there is nothing to check", hint="rsoup check CHECKPOINT CHECKPOINT")
    return named


def _dropped(sources: Sequence[Source], globs: Sequence[str]) -> frozenset[str]:
    matches = dropped([source.header for source in sources], globs)
    if nothing := [glob for glob, names in matches.items() if not names]:
        raise UsageError("E0209", f"--drop {listing(nothing)} matches no tensor of any checkpoint",
                         hint="globs are matched against whole names: 'v_head.*'")  # fmt: skip
    return frozenset(name for names in matches.values() for name in names)


def _remarks(measures: Measures) -> list[str]:
    """What the measures say beside the verdict."""
    notes = []
    for i, name in enumerate(measures.names):
        if (
            measures.total is not None
            and measures.total.absolute[i] == 0.0
            and measures.total.changed[i] == 0
        ):
            notes.append(f"'{show(name)}' equals the base in every measured tensor (distance 0)")
        below = [tensor for k, tensor in measures.below_precision if k == i]
        if below:
            notes.append(
                f"{len(below)} tensors of '{show(name)}' differ from the base by the rounding of their dtype alone: {listing(below, 3)}"
            )
    if measures.copied:
        notes.append(
            f"{len(measures.copied)} tensors that are no floats differ, which merge refuses (--buffers-from): {listing(list(measures.copied), 3)}"
        )
    if measures.carried:
        notes.append(f"{measures.carried} elements are NaN or infinite everywhere alike; a soup keeps them")
    return notes
