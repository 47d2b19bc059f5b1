"""check(checkpoints): may these be mixed, and how far did they move? Nothing is written, nothing is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from rsoup.compat.alignment import aligned
from rsoup.compat.examine import compare
from rsoup.compat.files import MAX_CONFIG_BYTES
from rsoup.compat.headers import Mismatch, dropped
from rsoup.errors import RsoupError, UsageError, listing, show, show_path
from rsoup.family.measures import Measures, measure
from rsoup.family.survey import comparable, survey
from rsoup.family.verdict import Limits, Verdict, judge
from rsoup.names import names_for
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import CARE_DISTANCE, MAX_DISTANCE
from rsoup.report import card
from rsoup.storage.checkpoint import CheckpointSource, Leniency, open_checkpoint
from rsoup.storage.files import parse_json
from rsoup.storage.protocols import Source

Path = str | os.PathLike[str]
_NO_LICENCE = ("", "license", "licence", "unknown", "other-unknown")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found: the verdict with its reasons, every mismatch, every measure, notes.

    `base` is the path of the base that was used, `found_base` says that the checkpoints' own metadata named it.
    `measures` is None where only headers were read. `left_out` are tensors that not all have alike.
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
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> CheckResult:
    """How far each θᵢ moved from θ₀, ‖θᵢ − θ₀‖/‖θ₀‖ and more, and whether a soup of them can work.

    Without `base`, one that the checkpoints' metadata names is used where it lies on this machine; else only the
    distances between the checkpoints are measured. With `headers` no weights are read. Names that differ in one
    total way are mapped, `missing="base"` completes partial fine-tunes and `vocab` makes vocabularies equally long, as in merge. Tensors that a glob of
    `drop` matches are left out of everything; `allow` may hold `symlinks` and `unindexed`; `key` is the entry of
    a PyTorch file that holds the weights. Mismatches are reported, never raised.

    Raises UsageError (2) for limits that cannot be meant, AccessError (7), RefusedFileError (8).
    """
    begun = time.monotonic()
    limits = _limits(min(CARE_DISTANCE, max_distance) if care is None else care, max_distance)
    named = _named(checkpoints)
    leniency = Leniency("symlinks" in allow, "unindexed" in allow)
    with ExitStack() as stack:

        def opened(name: str, uri: str) -> CheckpointSource:
            source = open_checkpoint(uri, name=name, variant=variant, key=key, leniency=leniency)
            stack.callback(source.close)
            return source

        fine_tuned = [opened(name, uri) for name, uri in named]
        notes: list[str] = []
        used, theirs = (os.fspath(base), None) if base is not None else _claimed(fine_tuned, named, notes)
        reference: Source | None = None
        if used is not None:
            try:
                reference = opened("base", used)
            except RsoupError as error:
                if base is not None:
                    raise
                notes.append(f"the base the checkpoints name, {theirs}, cannot be read: {error.message}")
                used = None
        together = [*fine_tuned, *([reference] if reference else [])]
        without = _dropped(together, drop)
        sources, reference, views = aligned(fine_tuned, reference, without, missing=missing, vocab=vocab)
        notes += views
        ordered: list[Source] = [*sources, reference] if reference else [*sources[1:], sources[0]]
        found = compare(
            [reference, *sources] if reference else sources,
            without,
            weights=not headers,
            resized=vocab is not None,
        )
        notes += [*found.notes, *found.remarks, *_licences(sources)]
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
            records = survey(
                ordered, measured, moved=reference is not None, threads=threads, progress=meter.add
            )
            measures = measure(records, [name for name, _ in named], base=reference is not None)
            notes += _remarks(measures)
        for source in ordered:
            source.check_unchanged()
    return CheckResult(
        tuple(name for name, _ in named), used, used is not None and base is None,
        judge(found.mismatches, measures, limits), limits, found.mismatches, measures, len(measured),
        tuple(left_out), tuple(notes), nbytes, time.monotonic() - begun,
    )  # fmt: skip


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
        raise UsageError(
            "E0209",
            f"--drop {listing(nothing)} matches no tensor of any checkpoint",
            hint="globs are matched against whole names: 'v_head.*'",
        )
    return frozenset(name for names in matches.values() for name in names)


def _card(source: Source) -> Mapping[str, object]:
    data = source.side_file(card.NAME, card.MAX_CARD_BYTES)
    return card.split(data.decode("utf-8", "replace"))[0] if data else {}


def _claims(source: Source) -> Iterator[str]:
    """What a checkpoint says it was fine-tuned from: its card's base_model, its config's _name_or_path."""
    model = _card(source).get("base_model")
    models = model if isinstance(model, list) else [model]
    if len(models) == 1 and isinstance(models[0], str) and models[0]:
        yield models[0]
    data = source.side_file("config.json", MAX_CONFIG_BYTES)
    config = parse_json(data, f"{show(source.name)}/config.json") if data is not None else None
    path = config.get("_name_or_path") if isinstance(config, dict) else None
    if isinstance(path, str) and path:
        yield path


def _claimed(
    sources: Sequence[CheckpointSource], named: Sequence[tuple[str, str]], notes: list[str]
) -> tuple[str | None, str | None]:
    """(path, how to call it) of the base that the checkpoints name, if it is one and lies on this machine."""
    own = {os.path.realpath(uri) for _, uri in named}
    claims: dict[str, list[str]] = {}
    for source in sources:
        for claim in _claims(source):
            claims.setdefault(claim, []).append(source.name)
    local = {
        claim: who
        for claim, who in claims.items()
        if os.path.isdir(claim) and os.path.realpath(claim) not in own
    }
    if len({os.path.realpath(claim) for claim in local}) == 1:
        claim = next(iter(local))
        notes.append(f"the base is {show_path(claim)}, as {listing(local[claim])} says; another one: --base")
        return claim, show_path(claim)
    if local:
        notes.append(f"the checkpoints name several bases ({listing(list(local))}): give one with --base")
    elif repos := [claim for claim in claims if card.is_repo(claim)]:
        notes.append(f"no base is given, so nothing is known of how far they moved; give it with --base: it is {' or '.join(map(show, repos[:3]))}")  # fmt: skip
    return None, None


def _licences(sources: Sequence[Source]) -> list[str]:
    found: dict[str, list[str]] = {}
    for source in sources:
        licence = str(_card(source).get("license") or "").strip().lower()
        if licence not in _NO_LICENCE:
            found.setdefault(licence, []).append(source.name)
    if len(found) < 2:
        return []
    shown = "; ".join(f"{show(licence)} in {listing(names)}" for licence, names in sorted(found.items()))
    return [f"the licences differ ({shown})"]


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
