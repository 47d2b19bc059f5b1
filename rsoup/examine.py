"""Everything compared before a byte is written: tensors, quantisation, config.json, tokenizers; all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rsoup.compat import Mismatch, compare_headers, quantised
from rsoup.compat_files import compare_configs, compare_tokenizers
from rsoup.errors import IncompatibleError, Problem, listing, show
from rsoup.storage.files import parse_json
from rsoup.storage.protocols import Source
from rsoup.tensors import Header

MAX_CONFIG_BYTES = 10_000_000
MAX_TOKENIZER_BYTES = 200_000_000
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
    headers = {
        _distinct(i, source, sources): _without(source.header, drop) for i, source in enumerate(sources)
    }
    configs = {name: _config(source) for name, source in zip(headers, sources, strict=True)}
    packed = [what for name in headers if (what := quantised(name, headers[name], configs[name]))]
    if packed:
        raise _error(
            "E0302",
            f"{len(packed)} of {len(sources)} checkpoints are quantised and have no weights to average",
            packed,
        )
    found = compare_headers(headers)
    config_found, notes = compare_configs(configs)
    found += config_found + _tokenizers(dict(zip(headers, sources, strict=True)), notes)
    refused = [mismatch for mismatch in found if _ALLOWABLE.get(mismatch.kind) not in allow]
    notes += [f"allowed: {mismatch.what}" for mismatch in found if mismatch not in refused]
    if refused:
        raise _error("E0301", "the checkpoints do not belong together", refused)
    for name, source in zip(headers, sources, strict=True):
        notes += [f"{show(name)}: {note}" for note in source.notes]
    return notes + _batch_norm(sources[0].header)


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
    details = tuple(Problem(m.kind, m.what + (f" ({m.guess})" if m.guess else "")) for m in mismatches[:20])
    kinds = {mismatch.kind for mismatch in mismatches}
    hint = None
    if len(mismatches) > 20:
        message += f" ({len(mismatches)} differences, the first 20 shown)"
    if code == "E0302":
        hint = "mix the original checkpoints, then quantise the soup"
    elif kinds <= set(_ALLOWABLE):
        flags = " ".join(f"--allow {_ALLOWABLE[kind]}" for kind in sorted(kinds))
        hint = f"if you know that this does not matter: {flags}"
    elif kinds == {"missing"}:
        hint = (
            "a soup needs every tensor in every checkpoint; leave tensors out of the soup with --drop 'GLOB'"
        )
    return IncompatibleError(code, message, details=details, hint=hint)


def _tokenizers(sources: Mapping[str, Source], notes: list[str]) -> list[Mismatch]:
    found: list[Mismatch] = []
    having = [name for name, source in sources.items() if _has_tokenizer(source)]
    if having and (lacking := [name for name in sources if name not in having]):
        notes.append(f"no tokenizer in {listing(lacking)}: it was not compared")
    for name in having[1:]:
        found += _compare_two(having[0], sources[having[0]], name, sources[name])
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
    return any(name in source.side_files for name in ("tokenizer.json", *_VOCABULARIES))


def _compare_two(one_name: str, one: Source, other_name: str, other: Source) -> list[Mismatch]:
    a, b = (source.side_file("tokenizer.json", MAX_TOKENIZER_BYTES) for source in (one, other))
    if a is not None and b is not None:
        if a == b:
            return []
        parsed = [
            parse_json(data, f"{show(name)}/tokenizer.json")
            for name, data in ((one_name, a), (other_name, b))
        ]
        mismatch = compare_tokenizers(one_name, parsed[0], other_name, parsed[1])
        return [mismatch] if mismatch else []
    found = []
    for file in _VOCABULARIES:
        data = [source.side_file(file, MAX_TOKENIZER_BYTES) for source in (one, other)]
        if None not in data and data[0] != data[1]:
            found.append(
                Mismatch("tokenizer", f"{file} differs between '{show(one_name)}' and '{show(other_name)}'")
            )
    return found


def _batch_norm(header: Header) -> list[str]:
    statistics = [name for name in header if name.endswith(("running_mean", "running_var"))]
    if not statistics:
        return []
    return [
        f"{len(statistics)} BatchNorm statistics ({listing(statistics, 1)}) are averaged, which is not what the soup's "
        "activations have: run some training data through the soup in train mode before you use it"
    ]
