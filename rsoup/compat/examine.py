"""Everything compared before a byte is written: tensors, quantisation, config.json, tokenizers; all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rsoup.compat.config import compare_configs
from rsoup.compat.files import compare_files, config_of
from rsoup.compat.headers import Mismatch, averaged_copies, compare_headers, own_heads
from rsoup.compat.quantised import bare_fp8, quantised
from rsoup.errors import IncompatibleError, Problem, listing, show
from rsoup.storage.protocols import Source
from rsoup.tensors import Header

SHOWN_MISMATCHES = 20
_CHUNK_BYTES = 1 << 20
_ALLOWABLE = {"config": "config", "tokenizer": "tokenizer"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every way in which checkpoints differ, as data: what stands against a soup, and what a reader should know.

    `notes` are about differences, `remarks` about single checkpoints.
    """

    mismatches: tuple[Mismatch, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]


def compare(
    sources: Sequence[Source],
    drop: frozenset[str] = frozenset(),
    *,
    weights: bool = True,
    resized: bool = False,
) -> Comparison:
    """Every mismatch and note between these checkpoints; the first one is the measure, nothing is refused.

    Headers and small files are read; with `weights` also a head that some store and some tie to the embeddings.
    """
    named = {_distinct(i, source, sources): source for i, source in enumerate(sources)}
    headers = {name: _without(source.header, drop) for name, source in named.items()}
    configs = {name: config_of(source) for name, source in named.items()}
    found = [what for name in headers if (what := quantised(name, headers[name], configs[name]))]
    found += [_tied(m, named) if weights else m for m in compare_headers(headers)]
    config_found, notes = compare_configs(
        configs, ignored=frozenset({"vocab_size"}) if resized else frozenset()
    )
    found += config_found + compare_files(named, notes)
    remarks = _grouped(named)
    first = next(iter(headers.values()))
    remarks += [*_batch_norm(first), *bare_fp8(first), *averaged_copies(first)]
    remarks += own_heads(first, with_base="base" in named)
    return Comparison(tuple(found), tuple(notes), tuple(remarks))


def _grouped(sources: Mapping[str, Source]) -> list[str]:
    """The sources' own notes, each once, with the names of all that have it."""
    having: dict[str, list[str]] = {}
    for name, source in sources.items():
        for note in dict.fromkeys(source.notes):
            having.setdefault(note, []).append(show(name))
    return [f"{', '.join(names)}: {note}" for note, names in having.items()]


def examine(
    sources: Sequence[Source], drop: frozenset[str], allow: Sequence[str], *, resized: bool = False
) -> list[str]:
    """Notes for the reader, if these checkpoints may be mixed; the first one is the measure.

    Raises IncompatibleError E0301 with every difference there is, E0302 if one of them is quantised.
    Differences the user allowed (`config`, `tokenizer`) become notes. `resized`: vocabularies were made equally long.
    """
    found = compare(sources, drop, resized=resized)
    if packed := [mismatch for mismatch in found.mismatches if mismatch.kind == "quantised"]:
        raise _error(
            "E0302",
            f"{len(packed)} of {len(sources)} checkpoints {'are' if len(packed) > 1 else 'is'} quantised: codes have no average",
            packed,
        )
    refused = [mismatch for mismatch in found.mismatches if _ALLOWABLE.get(mismatch.kind) not in allow]
    if refused:
        raise _error("E0301", "the checkpoints do not belong together", refused)
    allowed = [f"allowed: {mismatch.what}" for mismatch in found.mismatches]
    return [*found.notes, *allowed, *found.remarks]


def _distinct(index: int, source: Source, sources: Sequence[Source]) -> str:
    alike = [other for other in sources if other.name == source.name]
    return source.name if len(alike) == 1 else f"{source.name}#{index + 1}"


def _without(header: Header, drop: frozenset[str]) -> Header:
    return {name: spec for name, spec in header.items() if name not in drop} if drop else header


def _error(code: str, message: str, mismatches: Sequence[Mismatch]) -> IncompatibleError:
    details = tuple(
        Problem(m.kind, m.what + (f" ({m.guess})" if m.guess else "")) for m in mismatches[:SHOWN_MISMATCHES]
    )
    kinds = {mismatch.kind for mismatch in mismatches}
    hint = None
    if len(mismatches) > SHOWN_MISMATCHES:
        message += f" ({len(mismatches)} differences, the first {SHOWN_MISMATCHES} shown)"
    if code == "E0302":
        hint = "mix the original checkpoints, then quantise the soup"
    elif kinds <= set(_ALLOWABLE):
        flags = " ".join(f"--allow {_ALLOWABLE[kind]}" for kind in sorted(kinds))
        hint = f"if you know that this does not matter: {flags}"
    elif kinds == {"missing"} and all(m.guess is None for m in mismatches):
        hint = (
            "a soup needs every tensor in every checkpoint: --missing base (with --base) completes a partial fine-tune, "
            "--drop 'GLOB' leaves tensors out of the soup"
        )
    return IncompatibleError(code, message, details=details, hint=hint)


def _tied(mismatch: Mismatch, sources: Mapping[str, Source]) -> Mismatch:
    """The mismatch of a head that some store and some tie to the embeddings, with the truth for a guess."""
    if mismatch.kind != "missing" or len(mismatch.tensors) != 1 or "tied" not in (mismatch.guess or ""):
        return mismatch
    head = mismatch.tensors[0]
    drop = f"--drop '{show(head)}'"
    for name, source in sources.items():
        if head not in source.header:
            continue
        twins = [other for other, spec in source.header.items() if other != head and "embed" in other]
        twins = [other for other in twins if source.header[other] == source.header[head]]
        if not any(_same_bytes(source, head, twin) for twin in twins):
            guess = (
                f"in '{show(name)}' it is a head of its own, not the embeddings again: {drop} would lose it"
            )
            return replace(mismatch, guess=guess)
    return replace(mismatch, guess=f"a tied head: it equals the embeddings wherever it is stored, so {drop}")


def _same_bytes(source: Source, one: str, other: str) -> bool:
    """Whether two tensors of a checkpoint hold the same bytes."""
    size = source.header[one].nbytes
    ours, theirs = (memoryview(bytearray(min(_CHUNK_BYTES, size))) for _ in range(2))
    for start in range(0, size, _CHUNK_BYTES):
        count = min(_CHUNK_BYTES, size - start)
        source.read(one, start, ours[:count])
        source.read(other, start, theirs[:count])
        if ours[:count] != theirs[:count]:
            return False
    return True


def _batch_norm(header: Header) -> list[str]:
    statistics = [name for name in header if name.endswith(("running_mean", "running_var"))]
    if not statistics:
        return []
    return [
        f"{len(statistics)} BatchNorm statistics ({listing(statistics, 1)}) are averaged, which is not what the soup's "
        "activations have: run some training data through the soup in train mode before you use it"
    ]
