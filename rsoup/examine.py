"""Everything compared before a byte is written: tensors, quantisation, config.json, tokenizers; all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rsoup.compat import Mismatch, averaged_copies, compare_headers
from rsoup.compat_config import compare_configs
from rsoup.compat_quantised import bare_fp8, quantised
from rsoup.compat_tokenizer import compare_tokenizers
from rsoup.errors import IncompatibleError, Problem, listing, show
from rsoup.storage.files import parse_json
from rsoup.storage.protocols import Source
from rsoup.tensors import Header

MAX_CONFIG_BYTES = 10_000_000
MAX_TOKENIZER_BYTES = 200_000_000
SHOWN_MISMATCHES = 20
_CHUNK_BYTES = 1 << 20
_TOKENIZER = "tokenizer.json"
_VOCABULARIES = (
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_COMPARED = (
    "chat_template.jinja",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "preprocessor_config.json",
)
_ALLOWABLE = {"config": "config", "tokenizer": "tokenizer"}


def examine(sources: Sequence[Source], drop: frozenset[str], allow: Sequence[str]) -> list[str]:
    """Notes for the reader, if these checkpoints may be mixed; the first one is the measure.

    Raises IncompatibleError E0301 with every difference there is, E0302 if one of them is quantised.
    Differences the user allowed (`config`, `tokenizer`) become notes.
    """
    named = {_distinct(i, source, sources): source for i, source in enumerate(sources)}
    headers = {name: _without(source.header, drop) for name, source in named.items()}
    configs = {name: _config(source) for name, source in named.items()}
    packed = [what for name in headers if (what := quantised(name, headers[name], configs[name]))]
    if packed:
        raise _error(
            "E0302",
            f"{len(packed)} of {len(sources)} checkpoints {'are' if len(packed) > 1 else 'is'} quantised: codes have no average",
            packed,
        )
    found = [_tied(mismatch, named) for mismatch in compare_headers(headers)]
    config_found, notes = compare_configs(configs)
    found += config_found + _tokenizers(named, notes)
    refused = [mismatch for mismatch in found if _ALLOWABLE.get(mismatch.kind) not in allow]
    notes += [f"allowed: {mismatch.what}" for mismatch in found if mismatch not in refused]
    if refused:
        raise _error("E0301", "the checkpoints do not belong together", refused)
    for name, source in named.items():
        notes += [f"{show(name)}: {note}" for note in source.notes]
    first = next(iter(headers.values()))
    return [*notes, *_batch_norm(first), *bare_fp8(first), *averaged_copies(first)]


def _distinct(index: int, source: Source, sources: Sequence[Source]) -> str:
    alike = [other for other in sources if other.name == source.name]
    return source.name if len(alike) == 1 else f"{source.name}#{index + 1}"


def _without(header: Header, drop: frozenset[str]) -> Header:
    return {name: spec for name, spec in header.items() if name not in drop} if drop else header


def _config(source: Source) -> Mapping[str, object] | None:
    data = source.side_file("config.json", MAX_CONFIG_BYTES)
    if data is None:
        return None
    value = parse_json(data, f"{show(source.name)}/config.json")
    return value if isinstance(value, dict) else None


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
            "a soup needs every tensor in every checkpoint; leave tensors out of the soup with --drop 'GLOB'"
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


def _tokenizers(sources: Mapping[str, Source], notes: list[str]) -> list[Mismatch]:
    found: list[Mismatch] = []
    having = [name for name, source in sources.items() if _has_tokenizer(source)]
    if having and (lacking := [name for name in sources if name not in having]):
        notes.append(f"no tokenizer in {listing(lacking)}: it was not compared")
    alike = [name for name in having[1:] if not _differ(having[0], name, sources, notes, found)]
    if having[:1] == ["base"]:  # a fine-tune may know more tokens than its base, but not than the others
        for name in alike[1:]:
            _differ(alike[0], name, sources, notes, found)
    first = next(iter(sources))
    for file in _COMPARED:
        ours = sources[first].side_file(file, MAX_TOKENIZER_BYTES)
        others = [
            name
            for name, source in sources.items()
            if source.side_file(file, MAX_TOKENIZER_BYTES) not in (ours, None)
        ]
        if ours is not None and others:
            notes.append(f"{file} differs between '{show(first)}' and {listing(others)}")
    return found


def _has_tokenizer(source: Source) -> bool:
    return any(name in source.side_files for name in (_TOKENIZER, *_VOCABULARIES))


def _differ(
    one: str, other: str, sources: Mapping[str, Source], notes: list[str], found: list[Mismatch]
) -> bool:
    """Add to `found` and `notes` how two tokenizers differ; whether `found` grew."""
    a, b = (sources[name].side_file(_TOKENIZER, MAX_TOKENIZER_BYTES) for name in (one, other))
    before = len(found)
    if a is not None and b is not None and a != b:
        parsed = [parse_json(data, f"{show(n)}/{_TOKENIZER}") for n, data in ((one, a), (other, b))]
        mismatch, more = compare_tokenizers(one, parsed[0], other, parsed[1], may_add=one == "base")
        notes += more
        found += [mismatch] if mismatch else []
    elif a is None or b is None:
        for file in _VOCABULARIES:
            data = [sources[name].side_file(file, MAX_TOKENIZER_BYTES) for name in (one, other)]
            if None not in data and data[0] != data[1]:
                found.append(
                    Mismatch("tokenizer", f"{file} differs between '{show(one)}' and '{show(other)}'")
                )
    return len(found) > before


def _batch_norm(header: Header) -> list[str]:
    statistics = [name for name in header if name.endswith(("running_mean", "running_var"))]
    if not statistics:
        return []
    return [
        f"{len(statistics)} BatchNorm statistics ({listing(statistics, 1)}) are averaged, which is not what the soup's "
        "activations have: run some training data through the soup in train mode before you use it"
    ]
