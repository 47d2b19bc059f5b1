"""Header → files: which tensor goes into which file of the soup, at which byte, and the index that says so."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.storage.protocols import FileLayout
from rsoup.storage.safetensors_header import encode_header
from rsoup.tensors import Header

_SHARD = re.compile(r"^(?P<stem>[^.]+)(?:\.(?P<variant>[^.]+))?-[0-9]{5}-of-[0-9]{5}\.safetensors$")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One weight file of the soup: its name, its tensors in order, its first bytes and its size in bytes."""

    name: str
    tensors: tuple[str, ...]
    head: bytes
    nbytes: int


def kept(reference: Sequence[FileLayout], header: Header) -> list[FileLayout]:
    """The files of `reference` with the tensors that are in `header`; files left empty are left out."""
    files = [FileLayout(file.name, tuple(n for n in file.tensors if n in header)) for file in reference]
    return [file for file in files if file.tensors] or files[:1]


def one_file(name: str, reference: Sequence[FileLayout], header: Header) -> list[FileLayout]:
    """All tensors of `header` in one file, in the order of `reference`."""
    return [FileLayout(name, tuple(n for file in reference for n in file.tensors if n in header))]


def shards(reference: Sequence[FileLayout], header: Header, max_bytes: int) -> list[FileLayout]:
    """The tensors of `header` in files of at most `max_bytes` bytes of data each, named as transformers does.

    A tensor larger than that has a file of its own. The stem and the variant are those of `reference`.
    """
    parts: list[list[str]] = [[]]
    filled = 0
    for name in one_file("", reference, header)[0].tensors:
        size = header[name].nbytes
        if parts[-1] and filled + size > max_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    stem, variant = _stem(reference[0].name)
    if len(parts) == 1:
        return [FileLayout(f"{stem}{variant}.safetensors", tuple(parts[0]))]
    count = len(parts)
    return [
        FileLayout(f"{stem}{variant}-{number:05d}-of-{count:05d}.safetensors", tuple(names))
        for number, names in enumerate(parts, 1)
    ]


def _stem(file: str) -> tuple[str, str]:
    if found := _SHARD.match(file):
        return found["stem"], f".{found['variant']}" if found["variant"] else ""
    stem, _, variant = file.removesuffix(".safetensors").partition(".")
    return stem, f".{variant}" if variant else ""


def output_file(layout: FileLayout, header: Header, recipe_sha256: str) -> OutputFile:
    """The file as it will be: wide dtypes first, so that every tensor is aligned, else in the order given."""
    ordered = sorted(layout.tensors, key=lambda name: -header[name].dtype.bits)
    metadata = {"format": "pt", "rsoup.recipe": recipe_sha256}
    head = encode_header({name: header[name] for name in ordered}, metadata)
    return OutputFile(layout.name, tuple(ordered), head, len(head) + sum(header[n].nbytes for n in ordered))


def index_file(files: Sequence[OutputFile], header: Header) -> tuple[str, bytes] | None:
    """(name, bytes) of the index of a sharded checkpoint, as transformers writes it; None for one plain file."""
    found = _SHARD.match(files[0].name)
    if found is None and len(files) == 1:
        return None
    variant = f".{found['variant']}" if found and found["variant"] else ""
    stem = found["stem"] if found else "model"
    metadata = {
        "total_parameters": sum(spec.numel for spec in header.values()),
        "total_size": sum(spec.nbytes for spec in header.values()),
    }
    index = {"metadata": metadata, "weight_map": {name: file.name for file in files for name in file.tensors}}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    return f"{stem}.safetensors.index{variant}.json", text.encode("utf-8")
