"""Recipe: what was asked and found sound. A base, some ingredients, a mix λ and how to write the soup."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rsoup import dialects
from rsoup import mix as mixes
from rsoup.errors import show
from rsoup.hub.address import address_of, halves
from rsoup.hub.commit import snapshot_path
from rsoup.stores.address import is_store, split_far
from rsoup.stores.snapshot import copy_of

CARE_DISTANCE: Final = 0.2  # relative distance from the base: beyond it a note, beyond the next a refusal
MAX_DISTANCE: Final = 0.7
ADAPTER_CONFIG: Final = dialects.ADAPTER_CONFIG
_PINNED: Final = re.compile(r"[^/]+/[^/@]+@[0-9a-f]{40}(?:/.*)?")  # what a manifest calls it
CANONICAL_OPTIONS: Final = (
    *("key", "missing", "vocab", "file_format", "optimizer_from"),
    *("fold", "rank", "max_error"),
)  # there only if given


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One checkpoint, or several of one reward (seeds, averaged with equal shares), that get one λ."""

    name: str
    checkpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A mix of its own for the tensors whose name matches a glob, or that lie in a range of layers.

    `layers` are the first and the last layer, both included; a tensor's layer is the first purely
    numeric part of its dotted name (`model.layers.3.mlp.up_proj.weight` lies in layer 3).
    """

    mix: tuple[Fraction, ...]
    match: str | None = None
    layers: tuple[int, int] | None = None

    def applies_to(self, tensor: str) -> bool:
        """Whether the tensor of this name gets this rule's mix; case counts."""
        if self.match is not None:
            return fnmatch.fnmatchcase(tensor, self.match)
        layer = layer_of(tensor)
        return self.layers is not None and layer is not None and (self.layers[0] <= layer <= self.layers[1])

    def __str__(self) -> str:
        if self.match is not None:
            return f"match '{show(self.match)}'"
        assert self.layers is not None
        return f"layers {self.layers[0]}-{self.layers[1]}"


def layer_of(tensor: str) -> int | None:
    """The first purely numeric part of a dotted name, or None: `h.11.attn.bias` lies in layer 11."""
    found = re.search(r"(?:^|\.)([0-9]{1,9})(?:\.|$)", tensor)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything the user decides about a soup; made by `request.make`, which refuses what cannot be meant.

    `mix` holds the λ that are applied (one exact fraction per ingredient), `typed_mix` the λ as they
    were given where `normalize` changed them. `variant` picks `model.VARIANT.safetensors` and its like in
    every checkpoint. `max_shard_bytes` None keeps the layout of the base's
    (else the first ingredient's) files, `dtype` None keeps the ingredients' dtypes. `key` is the entry of a
    PyTorch file that holds the weights; `missing` "base" completes partial fine-tunes; `vocab` "truncate" or
    "pad" makes vocabularies equally long; `file_format` is how a folder's weights are stored, None safetensors. For adapters, `fold` makes
    full weights; `rank` or `max_error` (relative, Frobenius) truncate the adapter that is made. `recorded` holds (name,
    what a manifest calls it) of checkpoints that a published soup recorded otherwise than their place here says.
    """

    ingredients: tuple[Ingredient, ...]
    mix: tuple[Fraction, ...]
    typed_mix: tuple[Fraction, ...]
    base: str | None = None
    method: str = "linear"
    level: str = "tensor"
    scale: Fraction = Fraction(1)
    affine: bool = False
    variant: str | None = None
    dtype: str | None = None
    max_shard_bytes: int | None = None
    files_from: str | None = None
    buffers_from: str | None = None
    optimizer_from: str | None = None
    key: str | None = None
    missing: str | None = None
    vocab: str | None = None
    file_format: str | None = None
    fold: bool | None = None
    rank: int | None = None
    max_error: str | None = None
    drop: tuple[str, ...] = ()
    per_tensor: tuple[Rule, ...] = ()
    allow: tuple[str, ...] = ()
    max_distance: float = MAX_DISTANCE
    license: str | None = None
    recorded: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The ingredients' names, in the order of the mix."""
        return tuple(ingredient.name for ingredient in self.ingredients)

    def checkpoints(self) -> tuple[tuple[str, str], ...]:
        """(name, uri) of every ingredient's checkpoints in order: `bleu`, or `bleu/1`, `bleu/2` for a group."""
        return tuple(
            (ingredient.name if len(ingredient.checkpoints) == 1 else f"{ingredient.name}/{number}", uri)
            for ingredient in self.ingredients
            for number, uri in enumerate(ingredient.checkpoints, 1)
        )

    def public_checkpoints(self) -> tuple[tuple[str, ...], ...]:
        """What a manifest calls the checkpoints of each ingredient."""
        known = dict(self.recorded)
        called = [known.get(name) or public_name(uri) for name, uri in self.checkpoints()]
        return tuple(tuple(called[i] for i in group) for group in self.groups())

    @property
    def public_base(self) -> str | None:
        """What a manifest calls the base."""
        return None if self.base is None else dict(self.recorded).get("base") or public_name(self.base)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The positions in `checkpoints` of each ingredient's."""
        groups, at = [], 0
        for ingredient in self.ingredients:
            groups.append(tuple(range(at, at + len(ingredient.checkpoints))))
            at += len(ingredient.checkpoints)
        return tuple(groups)

    def mix_for(self, tensor: str) -> tuple[Fraction, ...]:
        """The mix of this tensor: that of the first rule that applies, else the recipe's."""
        return next((rule.mix for rule in self.per_tensor if rule.applies_to(tensor)), self.mix)

    def canonical(self) -> dict[str, object]:
        """What decides the soup's bytes, without any path: the same soup has the same canonical form."""
        form: dict[str, object] = {
            "base": self.public_base,
            "dtype": self.dtype,
            "drop": list(self.drop),
            "ingredients": [
                {
                    "checkpoints": list(called),
                    "lambda": mixes.format_number(share),
                    "name": ingredient.name,
                }
                for ingredient, share, called in zip(
                    self.ingredients, self.mix, self.public_checkpoints(), strict=True
                )
            ],
            "max_shard_bytes": self.max_shard_bytes,
            "method": self.method,
            "per_tensor": [
                {
                    "lambda": [mixes.format_number(share) for share in rule.mix],
                    "layers": None if rule.layers is None else list(rule.layers),
                    "match": rule.match,
                }
                for rule in self.per_tensor
            ],
            "variant": self.variant,
            "scale": mixes.format_number(self.scale),
            "affine": self.affine,
            "buffers_from": self.buffers_from,
        }
        if self.method == "slerp":
            form["level"] = self.level
        return form | {
            name: value for name in CANONICAL_OPTIONS if (value := getattr(self, name)) is not None
        }

    def sha256(self) -> str:
        """The recipe's hash: SHA-256 of its canonical form as sorted, compact JSON."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def public_name(uri: str) -> str:
    """What may be published of where a checkpoint lay: the last part of a path (of both, for `CHECKPOINT+ADAPTER`).

    A pinned address of the Hub is `org/name@commit`, with the path in the repository if there is one.
    """
    return "+".join(_public_part(part) for part in uri.split("+"))


def _public_part(part: str) -> str:
    if part.startswith("hf://") or _PINNED.fullmatch(part):
        return part.removeprefix("hf://")
    return part.rstrip("/").rpartition("/")[2] or "root"


def address_in(recorded: str) -> str | None:
    """Where a checkpoint lies that a manifest calls so: its pinned address, `hf://` in front; None for a path's last part."""
    parts = recorded.split("+")
    return "+".join(f"hf://{part}" for part in parts) if all(map(_PINNED.fullmatch, parts)) else None


def is_far(uri: str) -> bool:
    """Whether this is an address of the Hub or of an object store of which nothing is here yet; nobody is asked."""
    if halves(uri) is not None or split_far(uri) is not None:
        return False  # CHECKPOINT+ADAPTER is full weights, wherever they are
    if is_store(uri):
        return copy_of(uri) == uri and not os.path.lexists(uri)
    return address_of(uri) is not None and not os.path.lexists(snapshot_path(uri))


def are_adapters(ingredients: Sequence[Ingredient]) -> bool:
    """Whether every checkpoint is an adapter: PEFT's folder, or a LoRA of diffusers."""
    return all(dialects.is_adapter_place(uri) for ingredient in ingredients for uri in ingredient.checkpoints)
