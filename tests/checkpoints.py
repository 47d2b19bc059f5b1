"""Checkpoints made in milliseconds: right ones for every test, malformed ones by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load, save

from rsoup import plan as plans
from rsoup import pot
from rsoup.recipe import Recipe
from rsoup.storage.memory import MemorySink, MemorySource
from rsoup.storage.protocols import Source
from rsoup.tensors import DTYPES, TensorSpec

Tensors = dict[str, torch.Tensor]

CONFIG: Mapping[str, object] = {"architectures": ["TinyModel"], "hidden_size": 48, "model_type": "tiny"}


class Family(NamedTuple):
    """A base and the checkpoints that were fine-tuned from it."""

    base: Tensors
    tuned: list[Tensors]


def related(n: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16, step: float = 0.01) -> Family:
    """A base and `n` fine-tunes of it, each `step` of its norm away, in mixed shapes.

    A tensor of more than one slice (65,536 elements), a matrix, a vector, a scalar, one without elements,
    an integer buffer that all of them share.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "embed.weight": (277, 256),
        "layers.0.bias": (48,),
        "layers.0.weight": (48, 64),
        "norm.empty": (0, 16),
        "scale": (),
    }

    def drawn(size: float) -> Tensors:
        return {
            name: torch.randn(shape, generator=generator, dtype=torch.float64) * size
            for name, shape in shapes.items()
        }

    start = drawn(1.0)
    buffers = {"position_ids": torch.arange(33)}
    base = {name: value.to(dtype) for name, value in start.items()}
    tuned = []
    for _ in range(n):
        moved = drawn(step)
        tuned.append({name: (start[name] + moved[name]).to(dtype) for name in shapes} | buffers)
    return Family(base | buffers, tuned)


def write_file(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Path:
    """A safetensors file as the library writes it, with `format: pt` unless other metadata is given."""
    where = Path(path)
    where.write_bytes(save(dict(tensors), {"format": "pt"} if metadata is None else metadata))
    return where


def write_folder(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    *,
    shards: int = 1,
    variant: str | None = None,
    config: Mapping[str, object] | None = CONFIG,
    side_files: Mapping[str, bytes | str] | None = None,
) -> Path:
    """A checkpoint's folder as `save_pretrained` writes it: one file, or `shards` of them and their index."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"model.{variant}" if variant else "model"
    if shards == 1:
        write_file(folder / f"{stem}.safetensors", tensors)
    else:
        names = list(tensors)
        size = -(-len(names) // shards)
        weight_map: dict[str, str] = {}
        for number in range(shards):
            part = names[number * size : (number + 1) * size]
            file = f"{stem}-{number + 1:05d}-of-{shards:05d}.safetensors"
            write_file(folder / file, {name: tensors[name] for name in part})
            weight_map |= dict.fromkeys(part, file)
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        infix = f".{variant}" if variant else ""
        (folder / f"model.safetensors.index{infix}.json").write_text(json.dumps(index))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(dict(config)))
    for name, data in (side_files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Every tensor of a safetensors file, or of all safetensors files directly in a folder."""
    where = Path(path)
    files = sorted(where.glob("*.safetensors")) if where.is_dir() else [where]
    return {name: tensor for file in files for name, tensor in load(file.read_bytes()).items()}


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor, row by row, as a file holds them."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def tree(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Every file below a folder (hidden ones too) with its bytes; links and empty folders by their kind."""
    found: dict[str, bytes] = {}
    for item in sorted(Path(path).rglob("*")):
        name = str(item.relative_to(path))
        if item.is_symlink():
            found[name] = b"link to " + os.fsencode(item.readlink())
        elif item.is_dir():
            found[f"{name}/"] = b""
        else:
            found[name] = item.read_bytes()
    return found


def record(dtype: str, shape: Sequence[int], begin: int, end: int, **more: object) -> dict[str, object]:
    """One tensor's record in a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


def raw_safetensors(
    header: Mapping[str, object] | str | bytes, data: bytes = b"", *, length: int | None = None
) -> bytes:
    """The bytes of a safetensors file made by hand: any header (a mapping, or text as it stands) and data.

    `length` is what its first 8 bytes claim instead of the truth. Nothing is checked, padded or sorted.
    """
    if isinstance(header, Mapping):
        header = json.dumps(header)
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


Stored = tuple[str, tuple[int, ...], bytes]
"""A tensor as a file holds it: the dtype's safetensors name, the shape, the bytes."""


def in_memory(name: str, tensors: Mapping[str, Stored]) -> MemorySource:
    """A checkpoint that never touches a disk."""
    rows = {key: (TensorSpec(DTYPES[dtype], shape), data) for key, (dtype, shape, data) in tensors.items()}
    return MemorySource(name, rows)


def from_torch(name: str, tensors: Mapping[str, torch.Tensor]) -> MemorySource:
    """A checkpoint of torch tensors that never touches a disk."""
    kinds = {dtype.torch_name: dtype.name for dtype in DTYPES.values() if dtype.torch_name}
    return in_memory(
        name,
        {
            key: (kinds[str(value.dtype).removeprefix("torch.")], tuple(value.shape), tensor_bytes(value))
            for key, value in tensors.items()
        },
    )


def cooked(
    recipe: Recipe,
    sources: Sequence[Source],
    base: Source | None = None,
    *,
    threads: int = 1,
    block_elements: int | None = None,
) -> dict[str, bytes]:
    """The soup's tensors by name, made in memory; for methods that need no angles."""
    plan = plans.make(recipe, sources, base)
    if block_elements is not None:
        plan = replace(plan, block_elements=block_elements)
    sink = MemorySink(plan.header)
    everything = [*sources, *([base] if base is not None else [])]
    pot.cook(plan, everything, sink, on_block=lambda *_: None, threads=threads)
    return {name: bytes(data) for name, data in sink.tensors.items()}
