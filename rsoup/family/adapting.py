"""examined(adapters): everything a check says of adapters as such, with or without their base."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.compat.files import compare_files
from rsoup.compat.headers import Mismatch
from rsoup.errors import IncompatibleError, UsageError, listing, show
from rsoup.family.adapters import AdapterMeasures, described, measured
from rsoup.family.bases import Proofs, differences, proofs, refusal, seats
from rsoup.family.seating import read_nbytes
from rsoup.family.updates import survey_updates
from rsoup.lora.adapter import Adapter, is_adapter, read_adapter, read_config, without
from rsoup.lora.config import TOKENS
from rsoup.lora.design import touched
from rsoup.progress import Meter, OnProgress
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.protocols import Source


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found of adapters; `found` is None where one of them is of a kind that cannot be mixed."""

    mismatches: tuple[Mismatch, ...]
    found: AdapterMeasures | None
    notes: tuple[str, ...]
    read_nbytes: int


def are_low_rank(sources: Sequence[CheckpointSource]) -> bool:
    """Whether all checkpoints are adapters whose updates are products of factors, or rows of an embedding."""
    return all(is_adapter(source) and source.under is None and _is_low_rank(source) for source in sources)


def is_full(source: CheckpointSource) -> bool:
    """Whether a checkpoint needs no base to have weights of its own."""
    return not is_adapter(source) or source.under is not None


def _is_low_rank(source: CheckpointSource) -> bool:
    try:
        config = read_config(source)
    except IncompatibleError:  # E0340: of low rank, and one that cannot be mixed
        return True
    return config.is_low_rank or config.peft_type == TOKENS


def examined(
    sources: Sequence[CheckpointSource],
    base: Source | None,
    *,
    headers: bool,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> Examined:
    """Compare adapters with each other and with their base, and measure their updates; with `headers` read no factor.

    Differences are mismatches, never raised. Raises RefusedFileError E0820 to E0824, UsageError E0209 for a glob of
    `drop` without a match.
    """
    adapters, refused = _read(sources)
    if refused:
        return Examined(tuple(refused), None, (), 0)
    adapters = _without(adapters, drop)
    mismatches, notes = differences(adapters, allow, with_base=base is not None)
    mismatches += compare_files({source.name: source for source in sources}, notes)
    on, wrong = seats(base, adapters)
    mismatches += wrong
    adapters = [a if seat is None else seat.source.adapter for a, seat in zip(adapters, on, strict=True)]
    notes += [f"{show(source.name)}: {note}" for source in sources for note in source.notes]
    if headers:
        return Examined(tuple(mismatches), described(adapters, [None] * len(on)), tuple(notes), 0)
    for source in (*sources, *([base] if base is not None else [])):
        source.check_sums()
    proved = Proofs((None,) * len(on), (), ()) if base is None else proofs(base, on, threads=threads)
    nbytes = read_nbytes(adapters, on)
    meter = Meter("checking", nbytes, progress)
    records, nonfinite = survey_updates(adapters, on, threads=threads, progress=meter.add)
    found = measured(described(adapters, proved.on_base), records, nonfinite)
    notes += [*proved.notes, *_unknown(adapters, found, with_base=base is not None)]
    return Examined((*mismatches, *proved.mismatches), found, tuple(notes), nbytes)


def _read(sources: Sequence[CheckpointSource]) -> tuple[list[Adapter], list[Mismatch]]:
    adapters: list[Adapter] = []
    refused: list[Mismatch] = []
    for source in sources:
        try:
            adapters.append(read_adapter(source))
        except IncompatibleError as error:
            refused.append(refusal(error, source.name, "adapter"))
    return adapters, refused


def _without(adapters: Sequence[Adapter], globs: Sequence[str]) -> list[Adapter]:
    """The adapters without what they do to the tensors that a glob of `--drop` matches."""
    names = [dict.fromkeys(touched(adapter)) for adapter in adapters]
    every = dict.fromkeys(name for own in names for name in own)
    matches = {glob: [name for name in every if fnmatch.fnmatchcase(name, glob)] for glob in globs}
    if nothing := [glob for glob, found in matches.items() if not found]:
        raise UsageError(
            "E0209",
            f"--drop {listing(nothing)} matches no tensor these adapters change",
            hint=f"the names look like '{show(next(iter(every), ''))}'",
        )
    out = {name for found in matches.values() for name in found}
    kept = []
    for adapter, own in zip(adapters, names, strict=True):
        left = adapter
        for name in own:
            left = without(left, name) if name in out else left
        kept.append(left)
    return kept


def _unknown(adapters: Sequence[Adapter], found: AdapterMeasures, *, with_base: bool) -> list[str]:
    """Notes on what could not be measured, and on what the norms do not count."""
    notes = []
    lacking = [a.name for a in adapters if a.uses_dora or a.config.init is not None]
    if lacking and not with_base:
        notes.append(
            f"what {listing(lacking)} change depends on the base's own weights (DoRA, PiSSA, OLoRA): --base BASE measures it"
        )
    whole = [row.facts.name for row in found.rows if row.replaces]
    if whole:
        notes.append(
            f"{listing(whole)} also store{'s' if len(whole) == 1 else ''} tensors or rows whole, which the norms of ΔW "
            "do not count; --fold --base BASE measures all of it"
        )
    return notes
