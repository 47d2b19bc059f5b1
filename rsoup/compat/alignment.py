"""Checkpoints brought under one set of names and shapes, where that is certain or was asked for; else left as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rsoup.compat.headers import VOCABULARY
from rsoup.errors import UsageError, listing, show
from rsoup.storage.protocols import Source
from rsoup.storage.views import Completed, Renamed, Rows
from rsoup.tensors import Header, TensorSpec

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PREFIX_PARTS = 4


def matching_names(header: Header, reference: Header, *, partial: bool = False) -> dict[str, str] | None:
    """The one way to rename all tensors of `header` to names of `reference` with equal shapes; None if there is no such way.

    Tried are prefixes (`module.`, `model.`, `base_model.model.`, …: any, on either side) and what `torch.compile`,
    FSDP and checkpointing put inside names. Every tensor must find its own, all of the reference's must be found
    (with `partial`: need not be), and two ways that differ are none. Names that match already are None too.
    """
    if not header or header.keys() <= reference.keys():
        return None
    plain = {name: _WRAPPERS.sub("", name) for name in header}
    wanted = {_WRAPPERS.sub("", name): name for name in reference}
    if len(set(plain.values())) < len(plain) or len(wanted) < len(reference):
        return None
    ways: list[dict[str, str]] = []
    for old in _prefixes(list(plain.values())):
        for new in _prefixes(list(wanted)):
            way = {name: new + text[len(old) :] for name, text in plain.items()}
            fits = all(
                text in wanted and header[name].shape == reference[wanted[text]].shape
                for name, text in way.items()
            )
            named = {name: wanted[text] for name, text in way.items()} if fits else {}
            if named and (partial or len(named) == len(wanted)) and named not in ways:
                ways.append(named)
    return ways[0] if len(ways) == 1 else None


def _prefixes(names: Sequence[str]) -> list[str]:
    """'' and what all names begin with, part by part: `a.`, `a.b.`."""
    found = [""]
    parts = names[0].split(".")[:-1]
    for count in range(1, min(len(parts), _PREFIX_PARTS) + 1):
        prefix = "".join(f"{part}." for part in parts[:count])
        if not all(name.startswith(prefix) for name in names):
            break
        found.append(prefix)
    return found


def aligned(
    sources: Sequence[Source],
    base: Source | None,
    drop: frozenset[str] = frozenset(),
    *,
    missing: str | None = None,
    vocab: str | None = None,
) -> tuple[list[Source], Source | None, list[str]]:
    """(sources, base, notes): the same checkpoints with the names of the base, else of the first of them.

    Names are mapped where there is one total way (`matching_names`). `missing="base"` takes what a partial
    fine-tune lacks from the base; `vocab="truncate"` cuts vocabulary tensors to the fewest rows, `vocab="pad"`
    continues them to the most, with the rows of the base, else of the first that has them. Each is a note.
    """
    notes: list[str] = []
    reference = base if base is not None else sources[0]
    seen = [
        source if source is reference else _renamed(source, reference, drop, missing, notes)
        for source in sources
    ]
    if missing == "base":
        if base is None:
            raise UsageError("E0207", "--missing base needs a base", hint="add --base BASE")
        seen = [_completed(source, base, drop, notes) for source in seen]
    if vocab is not None:
        everything = [*seen, *([base] if base is not None else [])]
        resized = _resized(everything, base, vocab, notes)
        seen, base = (resized[:-1], resized[-1]) if base is not None else (resized, None)
    return seen, base, notes


def _kept(header: Header, drop: frozenset[str]) -> Header:
    return {name: spec for name, spec in header.items() if name not in drop} if drop else header


def _renamed(
    source: Source, reference: Source, drop: frozenset[str], missing: str | None, notes: list[str]
) -> Source:
    kept = _kept(source.header, drop)
    names = matching_names(kept, _kept(reference.header, drop), partial=missing == "base")
    if names is None:
        return source
    first = next(name for name in kept if names[name] != name)
    notes.append(
        f"the tensors of '{show(source.name)}' have other names and are mapped, all {len(names)} of them: "
        f"'{show(first)}' is '{show(names[first])}' in '{show(reference.name)}'"
    )
    dropped = {name: name for name in source.header if name not in kept}
    if dropped.keys() & set(names.values()):
        return source
    return Renamed(source, {**names, **dropped})


def _completed(source: Source, base: Source, drop: frozenset[str], notes: list[str]) -> Source:
    lacking = [name for name in base.header if name not in source.header and name not in drop]
    if not lacking:
        return source
    count = f"{len(lacking)} of {len(base.header)} tensors"
    notes.append(f"'{show(source.name)}' lacks {count}, which are the base's: {listing(lacking, 3)}")
    return Completed(source, base, lacking)


def _resized(sources: Sequence[Source], base: Source | None, vocab: str, notes: list[str]) -> list[Source]:
    sizes: dict[str, list[int]] = {}
    for name in sources[0].header:
        shapes = [s.header[name].shape for s in sources if name in s.header]
        alike = len({shape[1:] for shape in shapes}) == 1 and all(shapes)
        if VOCABULARY.search(name) and alike and len({shape[0] for shape in shapes}) > 1:
            sizes[name] = [shape[0] for shape in shapes]
    if not sizes:
        raise UsageError(
            "E0216",
            f"--vocab {vocab}: no vocabulary tensor differs in its rows",
            hint="leave it out; `rsoup check` tells how the checkpoints differ",
        )
    rows = {name: (min if vocab == "truncate" else max)(found) for name, found in sizes.items()}
    result = []
    for source in sources:
        wrong = {
            n: count for n, count in rows.items() if n in source.header and source.header[n].shape[0] != count
        }
        candidates = [*([base] if base is not None else []), *sources]
        donor = None if vocab == "truncate" else _donor(source, wrong, candidates)
        if wrong:
            notes.append(_rows_note(source, wrong, donor))
        result.append(Rows(source, wrong, donor) if wrong else source)
    return result


def _donor(source: Source, rows: Mapping[str, int], candidates: Sequence[Source]) -> Source | None:
    """The first that has all these rows, in the dtype of the source."""
    wanted = {
        name: TensorSpec(source.header[name].dtype, (count, *source.header[name].shape[1:]))
        for name, count in rows.items()
    }
    return next((s for s in candidates if all(s.header.get(n) == spec for n, spec in wanted.items())), None)


def _rows_note(source: Source, rows: Mapping[str, int], donor: Source | None) -> str:
    name, count = next(iter(rows.items()))
    has = source.header[name].shape[0]
    if has > count:
        return f"rows {count} to {has - 1} of {listing(list(rows), 2)} of '{show(source.name)}' are cut off"
    if donor is None:
        raise UsageError(
            "E0216",
            f"--vocab pad: no checkpoint has all the rows that '{show(source.name)}' lacks, in its dtype",
            hint="resize them with resize_token_embeddings first",
        )
    return f"rows {has} to {count - 1} of {listing(list(rows), 2)}, which '{show(source.name)}' lacks, are those of '{show(donor.name)}'"
