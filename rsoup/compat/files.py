"""What lies beside the weights, compared: configurations, tokenizers, templates; for a pipeline, in every component."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rsoup.compat.headers import Mismatch
from rsoup.compat.tokenizer import compare_tokenizers
from rsoup.errors import RefusedFileError, listing, show
from rsoup.storage.files import parse_json
from rsoup.storage.pickled.sb3 import SETTINGS
from rsoup.storage.protocols import Source

MAX_CONFIG_BYTES = 10_000_000
MAX_TOKENIZER_BYTES = 200_000_000
_PIPELINE = "model_index.json"
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


_POLICY = ("policy_class", "policy_kwargs", "observation_space", "action_space", "use_sde")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of the process that saved the archive
_ALGORITHMS = (
    "clip_range",
    "n_epochs",
    "target_entropy",
    "exploration_rate",
    "policy_delay",
    "top_quantiles_to_drop_per_net",
)


def config_of(source: Source) -> Mapping[str, object] | None:
    """The parsed config.json of a checkpoint; of a pipeline all of its components', each under NAME_config.

    Of a policy of Stable-Baselines3, what its settings say of the network and the spaces it acts in.
    """
    if SETTINGS in source.skipped_files:
        return _policy(_parsed(source, SETTINGS) or {})
    if _PIPELINE in source.side_files:
        _parsed(source, _PIPELINE)  # it is copied, so it has to be one
        parts = [name.partition("/")[0] for name in source.side_files if name.endswith("/config.json")]
        found = {f"{part}_config": _parsed(source, f"{part}/config.json") for part in parts}
        found["scheduler_config"] = _parsed(source, "scheduler/scheduler_config.json")
        return {part: config for part, config in found.items() if config is not None}
    return _parsed(source, "config.json")


def _policy(settings: Mapping[str, object]) -> Mapping[str, object]:
    """The readable part of what decides a policy; pickled objects are never opened."""
    found: dict[str, object] = {}
    for key in _POLICY:
        value = _readable(settings.get(key))
        if isinstance(value, dict) and key != "policy_kwargs":  # where one may lack what the other has
            found |= {f"{key}.{inner}": what for inner, what in value.items()}
        elif key in settings:
            found[key] = value
    own = [key for key in _ALGORITHMS if key in settings]
    return {**found, "settings_of_the_algorithm": ", ".join(own)}


def _readable(value: object) -> object:
    if isinstance(value, str):
        return _ADDRESS.sub("", value)
    if not isinstance(value, dict):
        return value
    return {
        key: _readable(inner)
        for key, inner in value.items()
        if key not in (":serialized:", "__doc__", "_np_random") and not str(key).startswith("_abc")
    }


def _parsed(source: Source, name: str) -> Mapping[str, object] | None:
    data = source.side_file(name, MAX_CONFIG_BYTES)
    if data is None:
        return None
    shown = f"{show(source.name)}/{show(name)}"
    value = parse_json(data, shown)
    if not isinstance(value, dict):
        raise RefusedFileError("E0808", "not a JSON file rsoup can trust: it holds no object", where=shown)
    return value


def compare_files(sources: Mapping[str, Source], notes: list[str]) -> list[Mismatch]:
    """Every mismatch between the tokenizers of checkpoints; notes on other files that differ are added to `notes`."""
    found: list[Mismatch] = []
    folders = dict.fromkeys(_folder(name) for source in sources.values() for name in source.side_files)
    for folder in folders:
        found += _tokenizers(sources, folder, notes)
        first = next(iter(sources))
        for name in _COMPARED:
            file = folder + name
            ours = sources[first].side_file(file, MAX_TOKENIZER_BYTES)
            others = [
                name
                for name, source in sources.items()
                if source.side_file(file, MAX_TOKENIZER_BYTES) not in (ours, None)
            ]
            if ours is not None and others:
                notes.append(f"{show(file)} differs between '{show(first)}' and {listing(others)}")
    return found


def _folder(name: str) -> str:
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def _tokenizers(sources: Mapping[str, Source], folder: str, notes: list[str]) -> list[Mismatch]:
    found: list[Mismatch] = []
    having = [name for name, source in sources.items() if _has_tokenizer(source, folder)]
    if having and (lacking := [name for name in sources if name not in having]):
        notes.append(f"no tokenizer in {listing(lacking)}: it was not compared")
    alike = [name for name in having[1:] if not _differ(having[0], name, sources, folder, notes, found)]
    if having[:1] == ["base"]:  # a fine-tune may know more tokens than its base, but not than the others
        for name in alike[1:]:
            _differ(alike[0], name, sources, folder, notes, found)
    return found


def _has_tokenizer(source: Source, folder: str) -> bool:
    return any(folder + name in source.side_files for name in (_TOKENIZER, *_VOCABULARIES))


def _differ(
    one: str,
    other: str,
    sources: Mapping[str, Source],
    folder: str,
    notes: list[str],
    found: list[Mismatch],
) -> bool:
    """Add to `found` and `notes` how two tokenizers differ; whether `found` grew."""
    file = folder + _TOKENIZER
    a, b = (sources[name].side_file(file, MAX_TOKENIZER_BYTES) for name in (one, other))
    before = len(found)
    if a is not None and b is not None and a != b:
        parsed = [parse_json(data, f"{show(n)}/{show(file)}") for n, data in ((one, a), (other, b))]
        mismatch, more = compare_tokenizers(one, parsed[0], other, parsed[1], may_add=one == "base")
        notes += more
        found += [mismatch] if mismatch else []
    elif a is None or b is None:
        for name in _VOCABULARIES:
            file = folder + name
            data = [sources[side].side_file(file, MAX_TOKENIZER_BYTES) for side in (one, other)]
            if None not in data and data[0] != data[1]:
                what = f"{show(file)} differs between '{show(one)}' and '{show(other)}'"
                found.append(Mismatch("tokenizer", what))
    return len(found) > before
