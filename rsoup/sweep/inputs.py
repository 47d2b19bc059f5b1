"""Inputs: digests of what soups are made of, taken once and remembered by the files' identity."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from rsoup.contents import fingerprint
from rsoup.dialects import ADAPTER_CONFIG
from rsoup.lora.mounting import makes_adapter, with_base
from rsoup.prepare import compared, open_all
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import Recipe
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.whole import write_whole
from rsoup.sweep import folder as folders

_CONFIG_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Inputs:
    """Digests of checkpoints by their path: `contents` of what they hold, `beside` of the files beside the weights."""

    contents: Mapping[str, str]
    beside: Mapping[str, str]


def digests(
    recipes: list[Recipe], folder: str, *, threads: int | None = None, progress: OnProgress | None = None
) -> Inputs:
    """The digests of every checkpoint the recipes name, bases too; those of unchanged files come from `folder`.

    Weights are read once in a lifetime of the sweep. Raises what opening a checkpoint raises, and, of full weights,
    what `merge` raises where they do not belong together: before anything is evaluated.
    """
    known = _load(folder)
    contents: dict[str, str] = {}
    beside: dict[str, str] = {}
    for recipe in recipes:
        places = [*recipe.checkpoints(), *([("base", recipe.base)] if recipe.base is not None else [])]
        with ExitStack() as stack:
            opened = open_all(recipe, places, recipe.allow, stack)
            if not makes_adapter(recipe):
                _compare(recipe, opened, stack)
            for (_, path), source in zip(places, opened, strict=True):
                if path in contents:
                    continue
                identity = _identity(source)
                if identity not in known:
                    known[identity] = _content(source, threads, progress)
                contents[path] = known[identity]
                beside[path] = _beside(source)
    _save(folder, known)
    return Inputs(contents, beside)


def _compare(recipe: Recipe, opened: list[CheckpointSource], stack: ExitStack) -> None:
    based, _ = with_base(recipe, opened)
    if based.base is not None and recipe.base is None:  # one that adapters name
        opened = [*opened, *open_all(recipe, [("base", based.base)], recipe.allow, stack)]
    compared(based, opened, recipe.allow)


def _parts(source: CheckpointSource) -> list[CheckpointSource]:
    """The checkpoint, and the one an adapter lies on where it was named with it."""
    return [source] if source.under is None else [source, *_parts(source.under)]


def _identity(source: CheckpointSource) -> str:
    digest = hashlib.sha256()
    for part in _parts(source):
        digest.update(part.identity.encode() + b"\0" + _config(part) + b"\0")
    return digest.hexdigest()


def _content(source: CheckpointSource, threads: int | None, progress: OnProgress | None) -> str:
    digest = hashlib.sha256()
    parts = _parts(source)
    meter = Meter("reading", sum(spec.nbytes for part in parts for spec in part.header.values()), progress)
    for part in parts:
        digest.update(fingerprint(part, threads=threads, on_bytes=meter.add).encode() + b"\0")
        digest.update(hashlib.sha256(_config(part)).digest())
    return digest.hexdigest()


def _config(source: CheckpointSource) -> bytes:
    """What an adapter's tensors mean is said beside them."""
    return source.side_file(ADAPTER_CONFIG, _CONFIG_BYTES) or b""


def _beside(source: CheckpointSource) -> str:
    digest = hashlib.sha256()
    for name in sorted(source.side_files):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        for chunk in source.side_file_chunks(name):
            digest.update(hashlib.sha256(chunk).digest())
    return digest.hexdigest()


def _load(folder: str) -> dict[str, str]:
    try:
        with open(os.path.join(folder, folders.INPUTS), "rb") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}  # it only saves time
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _save(folder: str, known: Mapping[str, str]) -> None:
    write_whole(os.path.join(folder, folders.INPUTS), json.dumps(known, indent=1, sort_keys=True).encode())
