"""Which base adapters belong to: what they name, whether they fit the one given, and what proves that it is the one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.compat.headers import Mismatch
from rsoup.contents import fingerprint
from rsoup.digests import DIGEST
from rsoup.errors import IncompatibleError, RsoupError, listing, show
from rsoup.family.seating import Seat, chunks, seated
from rsoup.lora.adapter import Adapter
from rsoup.lora.compare import compared
from rsoup.lora.ground import Ground
from rsoup.manifest import NAME
from rsoup.storage.files import parse_json
from rsoup.storage.protocols import Source

_MAX_MANIFEST_BYTES = 200_000_000
_KINDS: Final = {"base": "base", "revision": "base", "task_type": "config", "fan_in_fan_out": "config",
                 "alora_invocation_tokens": "config", "target_parameters": "config"}  # fmt: skip
_ONE_MODEL = (
    "if these are names of one model: --allow base, and --base BASE to see that the updates fit its tensors"
)


def differences(
    adapters: Sequence[Adapter], allow: Sequence[str], *, with_base: bool
) -> tuple[list[Mismatch], list[str]]:
    """(mismatches, notes): bases, revisions, tasks and shapes that adapters do not share; `allow` may hold `base`."""
    try:
        return [], compared(adapters, allow, with_base=with_base)
    except IncompatibleError as error:
        found: list[Mismatch] = []
        shapes: dict[str, list[str]] = {}
        for problem in error.details:
            kind = _KINDS.get(problem.where)
            if kind is None:
                shapes.setdefault(problem.what, []).append(problem.where)
            else:
                guess = _ONE_MODEL if kind == "base" else None
                found.append(Mismatch(kind, problem.what, guess=guess))
        for what, names in shapes.items():
            count = "1 update" if len(names) == 1 else f"{len(names)} updates"
            shown = f"{count} of another shape, {what}: {listing(names, 3)}"
            found.append(Mismatch("shape", shown, tuple(names), "adapters of models of different sizes?"))
        return found, []


def seats(base: Source | None, adapters: Sequence[Adapter]) -> tuple[list[Seat | None], list[Mismatch]]:
    """(each adapter on the base, None where it does not fit or there is none; a mismatch for each that does not)."""
    found: list[Seat | None] = []
    wrong: list[Mismatch] = []
    for adapter in adapters:
        try:
            found.append(seated(base, adapter) if base is not None else None)
        except IncompatibleError as error:
            found.append(None)
            wrong.append(refusal(error, adapter.name, "base"))
    return found, wrong


def refusal(error: IncompatibleError, name: str | None, kind: str) -> Mismatch:
    """An error about an adapter as a mismatch: its message, its first detail, its hint as the guess."""
    named = (
        error.message if name is None or show(name) in error.message else f"'{show(name)}': {error.message}"
    )
    if error.details:
        first = error.details[0]
        named += f": {first.where}: {first.what}" if first.where else f": {first.what}"
    tensors = tuple(problem.where for problem in error.details if problem.where)
    return Mismatch(kind, named, tensors, error.hint)


@dataclass(frozen=True, slots=True)
class Proofs:
    """Whether each adapter was saved on the given base, None where nothing shows it; mismatches and notes about it."""

    on_base: tuple[bool | None, ...]
    mismatches: tuple[Mismatch, ...]
    notes: tuple[str, ...]


def proofs(base: Source, on: Sequence[Seat | None], *, threads: int | None = None) -> Proofs:
    """Compare the base with what adapters hold of theirs: copies of its tensors, its digest in rsoup's manifest."""
    found: list[bool | None] = []
    wrong: list[Mismatch] = []
    notes: list[str] = []
    digest: str | None = None
    for seat in on:
        if seat is None:
            found.append(None)
            continue
        name = seat.source.adapter.name
        equal, differing = _copies(base, seat)
        content = manifest_base(seat.source.adapter.source)
        if content is not None:
            digest = digest or fingerprint(base, threads=threads)
            (equal if content == digest else differing).append(NAME)
        found.append(not differing if equal or differing else None)
        if differing:
            wrong.append(_other_base(name, differing))
        elif equal:
            notes.append(f"'{show(name)}' was saved on this base: {listing(equal, 3)} of it says so")
    return Proofs(tuple(found), tuple(wrong), tuple(notes))


def _other_base(name: str, differing: Sequence[str]) -> Mismatch:
    tensors = [tensor for tensor in differing if tensor != NAME]
    what = f"its copy of {listing(tensors, 3)} differs from the base's" if tensors else f"{NAME} holds another digest of it"  # fmt: skip
    return Mismatch(
        "base",
        f"'{show(name)}' was saved on another base: {what}",
        tuple(tensors),
        "another revision, or a base that was trained, quantised or padded before?",
    )


def _copies(base: Source, seat: Seat) -> tuple[list[str], list[str]]:
    """The weights of the base that an adapter brings along in the base's shape: (equal ones, others).

    Biases are left out: they may have been trained.
    """
    adapter = seat.source.adapter
    ground = Ground(base, (seat.source,))
    equal: list[str] = []
    differing: list[str] = []
    for name, key in adapter.beneath.items():
        spec = adapter.spec(key)
        if len(spec.shape) < 2:
            continue
        try:
            source, mapped = ground.where(name, spec.shape)
        except IncompatibleError:  # of another shape: a vocabulary that was resized
            continue
        same = _same_values(source, mapped, adapter.source, key)
        (equal if same else differing).append(name)
    return equal, [] if _may_differ(adapter) else differing


def _may_differ(adapter: Adapter) -> bool:
    """Whether what lies below an update need not be the base's own: PiSSA's residual, a soup of whole heads."""
    try:
        return (
            adapter.config.init is not None or adapter.source.side_file(NAME, _MAX_MANIFEST_BYTES) is not None
        )
    except RsoupError:
        return True


def _same_values(one: Source, name: str, other: Source, key: str) -> bool:
    """Whether two tensors of one shape hold the same numbers, once both are rounded to the narrower dtype."""
    import torch

    dtypes = [one.header[name].dtype, other.header[key].dtype]
    narrow = min(dtypes, key=lambda dtype: dtype.significand_bits).torch
    pieces = zip(chunks(one, name), chunks(other, key), strict=True)
    return all(torch.equal(a.to(narrow), b.to(narrow)) for a, b in pieces)


def manifest_base(source: Source) -> str | None:
    """The digest of the base's contents in the manifest beside an adapter that rsoup made, if it holds one."""
    try:
        data = source.side_file(NAME, _MAX_MANIFEST_BYTES)
        found = parse_json(data, NAME) if data is not None else None
    except RsoupError:
        return None  # a manifest is judged by verify
    base = found.get("base") if isinstance(found, dict) and found.get("digest") == DIGEST else None
    content = base.get("content") if isinstance(base, dict) else None
    return content if isinstance(content, str) else None
