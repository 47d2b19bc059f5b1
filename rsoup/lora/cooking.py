"""The second pass: the tensors of the soup's file, module by module, into a sink; the bytes are digested on the way."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from rsoup.digests import ChunkHasher, tensor_digest
from rsoup.errors import IncompatibleError, show
from rsoup.lora.adapter import read_float64
from rsoup.lora.algebra import difference_norm, truncated
from rsoup.lora.blocks import Shared, weighted
from rsoup.lora.factors import factor_average
from rsoup.lora.ground import Ground
from rsoup.lora.outline import ModuleOut, Outline
from rsoup.storage.protocols import Sink
from rsoup.tensors import TensorSpec
from rsoup.workers import alone, each, torch_threads

if TYPE_CHECKING:
    import torch

    Made = dict[str, torch.Tensor]

PIECE_ELEMENTS = 1 << 20
_NARROW_BITS = 24  # factors of fewer bits than float32's are worth a word on what their rounding changes


@dataclass(slots=True)
class Written:
    """What was written: the digest of every tensor by key, and ‖rounding of the factors‖² of modules in narrow dtypes."""

    digests: dict[str, str] = field(default_factory=dict)
    rounding_squared: dict[str, float] = field(default_factory=dict)


Task = tuple[str, str]
"""What to make: ("module", its name), ("whole", its key) or ("rows", its key)."""


def cook(
    outlines: Sequence[Outline],
    ground: Ground | None,
    sinks: Sequence[Sink],
    *,
    threads: int | None = None,
) -> list[Written]:
    """Write every outline's tensors to its sink, from one reading of the factors; what is known of each.

    What each gets is what it would get alone: outlines share a QR decomposition only of the very same blocks.
    """
    tasks: dict[Task, None] = {}
    for outline in outlines:
        tasks |= dict.fromkeys(("module", name) for name in outline.modules)
        tasks |= dict.fromkeys(("whole", key) for key in outline.wholes)
        tasks |= dict.fromkeys(("rows", key) for key in outline.rows)
    written = [Written() for _ in outlines]

    def worker(_: threading.Event) -> Callable[[Task], list[Written]]:
        alone()
        return lambda task: _task(task, outlines, ground, sinks)

    def on_result(_: Task, found: list[Written]) -> None:
        for mine, more in zip(written, found, strict=True):
            mine.digests.update(more.digests)
            mine.rounding_squared.update(more.rounding_squared)

    with torch_threads(load=True):
        each(tasks, worker, on_result, threads=threads)
    return written


def _task(
    task: Task, outlines: Sequence[Outline], ground: Ground | None, sinks: Sequence[Sink]
) -> list[Written]:
    kind, name = task
    shared: Shared = {}
    found = []
    for outline, sink in zip(outlines, sinks, strict=True):
        mine = Written()
        if kind == "module" and name in outline.modules:
            out = outline.modules[name]
            made = _module(outline, out, ground, shared)
            mine.digests |= {key: _put(sink, key, outline.header[key], value) for key, value in made.items()}
            if out.dtype.significand_bits < _NARROW_BITS:
                mine.rounding_squared[name] = _rounding_squared(out, made)
        elif kind == "whole" and name in outline.wholes:
            mine.digests[name] = _whole(outline, name, ground, sink)
        elif kind == "rows" and name in outline.rows:
            mine.digests[name] = _put(sink, name, outline.header[name], _rows(outline, name, ground))
        found.append(mine)
    return found


def _rounding_squared(out: ModuleOut, made: Made) -> float:
    """‖B·A as stored − B·A‖² over the experts of a module."""
    import torch

    like = out.module.like
    b, a = (
        made[out.b_key].reshape(like.rows, -1, like.experts),
        made[out.a_key].reshape(like.experts, -1, like.columns),
    )
    rounded = [value.to(out.dtype.torch).to(torch.float64) for value in (b, a)]
    gaps = [
        difference_norm((b[:, :, e], a[e]), (rounded[0][:, :, e], rounded[1][e])) for e in range(like.experts)
    ]
    return math.fsum(gap * gap for gap in gaps)


def _module(outline: Outline, out: ModuleOut, ground: Ground | None, shared: Shared) -> Made:
    import torch

    design, module = outline.design, out.module
    if design.recipe.method == "factors":
        pairs = [factor_average(design, module)]
        gain = None
    else:
        found = weighted(design, module, ground, shared)
        gain = found.gain
        if out.exact and found.plain:
            pairs = [(stack.b, stack.a * found.coefficients[:, None]) for stack in found.blocks.stacks]
        elif out.exact:
            pairs = [(stack.b * found.coefficients, stack.a) for stack in found.blocks.stacks]
        else:
            pairs = [truncated(q, found.coefficients, out.rank) for q in found.blocks.bases()]
    b = torch.stack([b for b, _ in pairs], dim=2).reshape(module.like.rows, -1)
    a = torch.cat([a for _, a in pairs])
    made = {out.a_key: a, out.b_key: b}
    if out.dora:
        assert ground is not None
        dtype = out.dtype.torch
        stored = (b.to(dtype).to(torch.float64), a.to(dtype).to(torch.float64))
        share = module.shares[0]
        norms = ground.norms_with(share.adapter, share.update, *stored)
        made[f"{out.stem}lora_magnitude_vector"] = norms if gain is None else gain * norms
    if out.biased:
        made[f"{out.stem}lora_B.bias"] = _bias(outline, out)
    return made


def _bias(outline: Outline, out: ModuleOut) -> torch.Tensor:
    import torch

    total = torch.zeros(out.module.like.rows, dtype=torch.float64)
    for share in out.module.shares:
        if share.update.keys.bias is not None:
            total = (
                total
                + outline.design.adapters[share.adapter].read(share.update.keys.bias).reshape(-1)
                * share.coefficient
            )
    return total


def _rows(outline: Outline, key: str, ground: Ground | None) -> torch.Tensor:
    import torch

    rows, adapters = outline.rows[key], outline.design.adapters
    values = {
        i: adapters[i].read(adapters[i].rows[rows.name][1]) for terms in rows.terms for i, _, _ in terms
    }
    base = None
    made = []
    for index, terms in zip(rows.indices, rows.terms, strict=True):
        row = sum(
            (values[i][position] * float(mix) for i, position, mix in terms),
            start=torch.zeros(1, dtype=torch.float64),
        )
        rest = 1 - sum((mix for _, _, mix in terms), Fraction(0))
        if rest != 0:
            assert ground is not None
            if base is None:
                source, inner = ground.where(rows.name, (-1, len(row)))
                base = read_float64(source, inner, "base")
            row = row + base[index] * float(rest)
        made.append(row)
    return torch.stack(made)


def _whole(outline: Outline, key: str, ground: Ground | None, sink: Sink) -> str:
    """Σλᵢθᵢ + (1 − Σλᵢ)·θ₀, a million elements at a time, in the order of rsoup-arith/1: ascending λ."""
    import torch

    whole, spec = outline.wholes[key], outline.header[key]
    sources = [(float(mix), outline.design.adapters[i].source, inner) for i, inner, mix in whole.terms]
    if whole.rest != 0:
        assert ground is not None
        sources.append((float(whole.rest), *ground.where(whole.name, spec.shape)))
    sources.sort(key=lambda term: term[0])
    hasher = ChunkHasher()
    for start in range(0, spec.numel, PIECE_ELEMENTS):
        count = min(PIECE_ELEMENTS, spec.numel - start)
        total: torch.Tensor | None = None
        for coefficient, source, inner in sources:
            dtype = source.header[inner].dtype
            buffer = bytearray(count * dtype.itemsize)
            source.read(inner, start * dtype.itemsize, memoryview(buffer))
            part = torch.frombuffer(buffer, dtype=dtype.torch).to(torch.float64) * coefficient
            total = part if total is None else total + part
        assert total is not None
        data = _bytes(key, spec, total)
        hasher.update(data)
        sink.write(key, start * spec.dtype.itemsize, data)
    return tensor_digest([hasher.digests()])


def _put(sink: Sink, key: str, spec: TensorSpec, value: torch.Tensor) -> str:
    data = _bytes(key, spec, value.reshape(spec.shape))
    hasher = ChunkHasher()
    hasher.update(data)
    sink.write(key, 0, data)
    return tensor_digest([hasher.digests()])


def _bytes(key: str, spec: TensorSpec, value: torch.Tensor) -> memoryview:
    """The bytes of float64 numbers rounded once. Raises IncompatibleError E0305 where one is too large, or not finite."""
    import torch

    rounded = value.to(spec.dtype.torch).contiguous()
    if not math.isfinite(rounded.sum(dtype=torch.float64).item()):
        raise IncompatibleError(
            "E0305",
            f"too large for {spec.dtype.name}: elements of the soup's '{show(key)}'",
            hint=spec.dtype.remedy,
        )
    return memoryview(rounded.reshape(-1).view(torch.uint8).numpy().data)
