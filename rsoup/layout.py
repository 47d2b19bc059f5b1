"""Header → files: which tensor goes into which file of the soup, at which byte, and the index that says so."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from rsoup.errors import UsageError
from rsoup.storage.pickled.sb3 import Sb3Archive
from rsoup.storage.pickled.sb3_write import sb3_archive
from rsoup.storage.pickled.torch_write import archive
from rsoup.storage.pickled.zip_write import CrcPlace
from rsoup.storage.protocols import FileLayout
from rsoup.storage.safetensors_header import encode_header
from rsoup.tensors import Header

_NAME = re.compile(
    r"^(?P<folder>.*/)?(?P<stem>[^./]+?)(?:\.(?P<variant>[^/]+?))?(?P<shard>-[0-9]{5}-of-[0-9]{5})?\.(?P<ending>[^./]+)$"
)
_ENDINGS = {"safetensors": ".safetensors", "torch": ".bin"}
_NEVER_SHARDED = ("diffusion_pytorch_model",)  # diffusers reads shards of safetensors only
_STEMS = {"safetensors": {"pytorch_model": "model"}, "torch": {"model": "pytorch_model"}}


@dataclass(frozen=True, slots=True)
class Sb3:
    """The format of a policy's archive: whose other members it has, and whose optimisers, if any are kept."""

    donor: Sb3Archive
    optimizers: Sb3Archive | None = None


FileFormat = Literal["safetensors", "torch"] | Sb3


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One weight file of the soup before its tensors are written: its name, its size in bytes, its tensors in order.

    `offsets` are the bytes where the tensors begin, `pieces` all other bytes and where they lie (the first ones
    first), `crcs` what has to be filled in when the tensors are there.
    """

    name: str
    tensors: tuple[str, ...]
    offsets: tuple[int, ...]
    pieces: tuple[tuple[int, bytes], ...]
    nbytes: int
    crcs: tuple[CrcPlace, ...] = ()

    @property
    def head(self) -> bytes:
        """The first bytes of the file."""
        return self.pieces[0][1]


def renamed(
    files: Sequence[FileLayout], file_format: FileFormat, *, keep_variant: bool = True
) -> list[FileLayout]:
    """The same files under the names they have in this format: `model.safetensors` is `pytorch_model.bin` in torch's.

    Without `keep_variant`, `model.fp16.safetensors` is `model.safetensors`, which is what loaders look for first.
    """
    if isinstance(file_format, Sb3):
        return list(files)
    result = []
    for file in files:
        found = _NAME.match(file.name)
        known = found is not None and found["stem"] in (
            *_STEMS["torch"],
            *_STEMS["safetensors"],
            *_NEVER_SHARDED,
        )
        lose = known and not keep_variant and found is not None and found["variant"]
        if found is None or (found["ending"] == _ENDINGS[file_format][1:] and not lose):
            result.append(file)
            continue
        stem = _STEMS[file_format].get(found["stem"], found["stem"])
        variant = f".{found['variant']}" if found["variant"] and not lose else ""
        alone = file_format == "torch" and stem in _NEVER_SHARDED
        shard = "" if alone else found["shard"] or ""
        name = f"{found['folder'] or ''}{stem}{variant}{shard}{_ENDINGS[file_format]}"
        if result and result[-1].name == name:
            result[-1] = FileLayout(name, (*result[-1].tensors, *file.tensors))
        else:
            result.append(FileLayout(name, file.tensors))
    return result


def kept(reference: Sequence[FileLayout], header: Header) -> list[FileLayout]:
    """The files of `reference` with the tensors that are in `header`; files left empty are left out."""
    files = [FileLayout(file.name, tuple(n for n in file.tensors if n in header)) for file in reference]
    return [file for file in files if file.tensors] or files[:1]


def one_file(name: str, reference: Sequence[FileLayout], header: Header) -> list[FileLayout]:
    """All tensors of `header` in one file, in the order of `reference`."""
    return [FileLayout(name, tuple(n for file in reference for n in file.tensors if n in header))]


def shards(reference: Sequence[FileLayout], header: Header, max_bytes: int) -> list[FileLayout]:
    """The tensors of `header` in files of at most `max_bytes` bytes of data each, named as transformers does.

    A tensor larger than that has a file of its own. The stems and variants are those of `reference`, and the
    components of a pipeline stay in their folders.
    """
    result: list[FileLayout] = []
    folders: dict[str, list[FileLayout]] = {}
    for file in reference:
        folders.setdefault(file.name.rpartition("/")[0], []).append(file)
    for files in folders.values():
        result += _split(files, header, max_bytes)
    return result


def _split(reference: Sequence[FileLayout], header: Header, max_bytes: int) -> list[FileLayout]:
    found = _NAME.match(reference[0].name)
    assert found is not None
    alone = found["ending"] == "bin" and found["stem"] in _NEVER_SHARDED
    parts: list[list[str]] = [[]]
    filled = 0
    for name in one_file("", reference, header)[0].tensors:
        size = header[name].nbytes
        if parts[-1] and filled + size > max_bytes and not alone:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    before = f"{found['folder'] or ''}{found['stem']}" + (f".{found['variant']}" if found["variant"] else "")
    if len(parts) == 1:
        return [FileLayout(f"{before}.{found['ending']}", tuple(parts[0]))]
    count = len(parts)
    return [
        FileLayout(f"{before}-{number:05d}-of-{count:05d}.{found['ending']}", tuple(names))
        for number, names in enumerate(parts, 1)
    ]


def output_file(
    layout: FileLayout,
    header: Header,
    recipe_sha256: str,
    file_format: FileFormat = "safetensors",
    more: Mapping[str, str] | None = None,
) -> OutputFile:
    """The file as it will be; in safetensors wide dtypes come first, so that every tensor is aligned.

    The tensors of a pipeline's component go without the component's folder before their names. `more` is metadata
    for a safetensors header.
    """
    prefix = layout.name.rpartition("/")[0]
    start = len(prefix) + 1 if prefix else 0
    if file_format != "safetensors":
        specs = {name[start:]: header[name] for name in layout.tensors}
        if isinstance(file_format, Sb3):
            made = sb3_archive(specs, file_format.donor, file_format.optimizers)
        else:
            made = archive(specs, root=os.path.splitext(os.path.basename(layout.name))[0])
        offsets = tuple(made.offsets[name[start:]] for name in layout.tensors)
        return OutputFile(layout.name, layout.tensors, offsets, made.pieces, made.nbytes, made.crc_places)
    ordered = tuple(sorted(layout.tensors, key=lambda name: -header[name].dtype.bits))
    if "__metadata__" in {name[start:] for name in ordered}:
        raise UsageError(
            "E0218",
            "a tensor is called '__metadata__', which safetensors cannot hold",
            hint="-o NAME.pt or --file-format torch stores it; --drop '__metadata__' leaves it out",
        )
    metadata = {**(more or {}), "format": "pt", "rsoup.recipe": recipe_sha256}
    head = encode_header({name[start:]: header[name] for name in ordered}, metadata)
    ends = list(accumulate((header[name].nbytes for name in ordered), initial=len(head)))
    return OutputFile(layout.name, ordered, tuple(ends[:-1]), ((0, head),), ends[-1])


def index_files(files: Sequence[OutputFile], header: Header) -> list[tuple[str, bytes]]:
    """(name, bytes) of the index of each folder's files, as transformers writes it, where they are shards."""
    found = []
    folders: dict[str, list[OutputFile]] = {}
    for file in files:
        folders.setdefault(file.name.rpartition("/")[0], []).append(file)
    for folder, inside in folders.items():
        index = _index_file(inside, header, f"{folder}/" if folder else "")
        found += [index] if index else []
    return found


def _index_file(files: Sequence[OutputFile], header: Header, folder: str) -> tuple[str, bytes] | None:
    found = _NAME.match(files[0].name)
    if len(files) == 1 and (found is None or not found["shard"]):
        return None
    stem, ending = (found["stem"], found["ending"]) if found else ("model", "safetensors")
    variant = f".{found['variant']}" if found and found["variant"] else ""
    start = len(folder)
    specs = [header[name] for file in files for name in file.tensors]
    metadata = {
        "total_parameters": sum(spec.numel for spec in specs),
        "total_size": sum(spec.nbytes for spec in specs),
    }
    weight_map = {name[start:]: file.name[start:] for file in files for name in file.tensors}
    text = json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"
    return f"{folder}{stem}.{ending}.index{variant}.json", text.encode("utf-8")
