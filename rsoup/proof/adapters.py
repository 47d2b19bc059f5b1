"""A soup that is an adapter, made again from its adapters: bit for bit, or by what its truncated factors multiply to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsoup.contents import head_of, sha256_of
from rsoup.errors import IncompatibleError, UsageError, show, show_path
from rsoup.lora.adapter import read_float64
from rsoup.lora.algebra import difference_norm
from rsoup.lora.beside import ARITHMETIC
from rsoup.lora.cooking import cook
from rsoup.lora.opening import Opened, put_together
from rsoup.lora.outline import ModuleOut, Outline
from rsoup.lora.planning import Planned, planned
from rsoup.proof.claims import Claims, folder_of
from rsoup.proof.rederive import check_strangers
from rsoup.proof.verdict import Difference, Level
from rsoup.recipe import ADAPTER_CONFIG, Recipe
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.memory import MemorySource
from rsoup.storage.protocols import Source
from rsoup.tensors import Header

if TYPE_CHECKING:
    import torch

REDERIVED = "every tensor of it is what the recipe in rsoup.json gives of these adapters"
EXTRACTED = "rsoup-extract/1"
TOLERANCE = 1e-5
"""Relative, of ‖B·A‖ of a module: truncated factors come out of a decomposition whose last bits differ between processors."""


class _Kept:
    """A Sink in memory whose tensors are made as they are asked for: an adapter is small."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._data: dict[str, bytearray] = {}

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Keep `data` as the bytes of `tensor` from byte `start` on."""
        whole = self._data.setdefault(tensor, bytearray(self._header[tensor].nbytes))
        whole[start : start + len(data)] = data

    def source(self) -> MemorySource:
        """Everything that was written, as a checkpoint."""
        return MemorySource("again", {n: (self._header[n], bytes(d)) for n, d in self._data.items()})


def is_of_adapters(claims: Claims) -> bool:
    """Whether the manifest is of a soup of adapters."""
    found: object = claims.value["arithmetic"]
    return found == ARITHMETIC


def refuse_extracted(claims: Claims) -> None:
    """Raise UsageError E0231 if the manifest is of an adapter that was extracted: that is not made again here."""
    if claims.value["arithmetic"] == EXTRACTED:
        raise UsageError(
            "E0231",
            "an adapter that was extracted from full weights is not made again",
            hint="leave out --rederive and --sample; extract it once more, and compare the two with rsoup diff",
        )


def rederive(
    recipe: Recipe,
    opened: Sequence[CheckpointSource],
    out: str,
    soup: Source,
    claims: Claims,
    *,
    threads: int | None = None,
) -> Level:
    """Whether mixing the adapters again gives every tensor of the soup and its configuration.

    `opened` holds the base last where the recipe has one. Raises IncompatibleError E0330, E0331 where they are not
    the adapters of the recipe.
    """
    count = len(recipe.checkpoints())
    try:
        ready = put_together(recipe, opened[:count], opened[count:], threads=threads)
        (plan,) = planned(ready, [(recipe, out)], threads=threads)
    except UsageError as error:
        raise IncompatibleError(
            "E0330",
            f"the recipe does not fit these adapters: {error.message}",
            where=claims.shown,
            hint="give the adapters that the soup was made of, in the recipe's order",
        ) from error
    names = [name for name, _ in recipe.checkpoints()]
    check_strangers(claims, dict(zip(names, ready.contents, strict=True)))
    again = _again(ready, plan, threads)
    found = _files(plan, out, soup, claims) + _tensors(plan, again, soup)
    return Level(3, "rederive", REDERIVED, tuple(found), {"tensors": len(plan.header)})


def _again(ready: Opened, plan: Planned, threads: int | None) -> Source:
    if plan.outline is None:
        assert plan.design.copy is not None
        return ready.adapters[plan.design.copy].source
    sink = _Kept(plan.header)
    cook([plan.outline], ready.ground, [sink], threads=threads)
    return sink.source()


def _files(plan: Planned, out: str, soup: Source, claims: Claims) -> list[Difference]:
    """The head of the weight file, and the configuration, if they are not what the recipe gives."""
    found = []
    if soup.header != plan.header:
        return [Difference(plan.file.name, "its tensors are not those that the recipe gives")]
    path = os.path.join(folder_of(out), plan.file.name)
    if head_of(path, show_path(path)) != plan.file.head:
        found.append(Difference(plan.file.name, "its header is not the one the recipe gives"))
    config = os.path.join(folder_of(out), ADAPTER_CONFIG)
    if (
        not plan.of_pipeline
        and sha256_of(config, show_path(config)) != hashlib.sha256(plan.config).hexdigest()
    ):
        found.append(Difference(ADAPTER_CONFIG, "it is not the configuration that the recipe gives"))
    if plan.file.name not in {subject.name for subject in claims.subjects}:
        found.append(Difference(plan.file.name, "the manifest does not list it"))
    return found


def _tensors(plan: Planned, again: Source, soup: Source) -> list[Difference]:
    if soup.header != plan.header:
        return []
    altered = [name for name in plan.header if _bytes(soup, name) != _bytes(again, name)]
    excused = _excused(plan.outline, again, soup) if plan.outline is not None and altered else set()
    return [
        Difference(f"tensor '{show(name)}'", "it is not what the recipe gives of these adapters")
        for name in altered
        if name not in excused
    ]


def _bytes(source: Source, name: str) -> bytearray:
    data = bytearray(source.header[name].nbytes)
    source.read(name, 0, memoryview(data))
    return data


def _excused(outline: Outline, again: Source, soup: Source) -> set[str]:
    """The tensors of modules that were decomposed, and whose factors multiply to the same within the tolerance."""
    excused: set[str] = set()
    for out in outline.modules.values():
        if (out.exact and not out.module.dora) or out.module.like.experts > 1:
            continue
        ours, theirs = _factors(out, again), _factors(out, soup)
        zero = (ours[0] * 0, ours[1])
        if difference_norm(ours, theirs) <= TOLERANCE * difference_norm(ours, zero):
            excused |= {
                key for key in out.header() if key in (out.a_key, out.b_key) or _close(key, again, soup)
            }
    return excused


def _factors(out: ModuleOut, source: Source) -> tuple[torch.Tensor, torch.Tensor]:
    b, a = read_float64(source, out.b_key, source.name), read_float64(source, out.a_key, source.name)
    return b.reshape(b.shape[0], -1), a.reshape(a.shape[0], -1)


def _close(key: str, again: Source, soup: Source) -> bool:
    """Whether a magnitude or a bias is the same within the tolerance."""
    ours, theirs = read_float64(again, key, "again"), read_float64(soup, key, "soup")
    return bool(((ours - theirs).norm() <= TOLERANCE * ours.norm()).item())
