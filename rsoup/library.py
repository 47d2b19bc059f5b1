"""The library's door: recipes from Python values, as the command line makes them from its arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction

from rsoup.names import names_for
from rsoup.recipe import MAX_DISTANCE, Ingredient, Recipe
from rsoup.request import Request, make

Path = str | os.PathLike[str]


def make_recipe(
    ingredients: Mapping[str, Path | Sequence[Path]] | Sequence[Path],
    *,
    mix: Sequence[str | Fraction] | None = None,
    uniform: bool = False,
    normalize: bool = False,
    affine: bool = False,
    base: Path | None = None,
    method: str = "linear",
    level: str = "tensor",
    scale: str | Fraction = "1",
    variant: str | None = None,
    dtype: str | None = None,
    max_shard_size: str | None = None,
    files_from: str | None = None,
    buffers_from: str | None = None,
    optimizer_from: str | None = None,
    key: str | None = None,
    missing: str | None = None,
    vocab: str | None = None,
    file_format: str | None = None,
    fold: bool = False,
    rank: int | None = None,
    max_error: str | float | None = None,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    max_distance: float = MAX_DISTANCE,
    license: str | None = None,
) -> Recipe:
    """The recipe for Σ λᵢθᵢ: `ingredients` by name (several paths are one group) or as plain paths.

    `mix` holds one λ per ingredient, as texts (`"0.3"`, `"1/3"`) or fractions: exact, never floats. The
    other options are those of `rsoup merge`. Raises UsageError E02xx for what cannot be meant.
    """
    if isinstance(ingredients, Mapping):
        asked = [Ingredient(name, _paths(value)) for name, value in ingredients.items()]
    else:
        paths = [os.fspath(path) for path in ingredients]
        asked = [Ingredient(name, (path,)) for name, path in zip(names_for(paths), paths, strict=True)]
    return make(
        Request(
            asked, mix=mix, uniform=uniform, normalize=normalize, affine=affine, base=None if base is None else os.fspath(base),
            method=method, level=level, scale=scale, variant=variant, dtype=dtype, max_shard_size=max_shard_size,
            files_from=files_from, buffers_from=buffers_from, optimizer_from=optimizer_from,
            key=key, missing=missing, vocab=vocab, file_format=file_format, fold=fold, rank=rank, max_error=max_error, drop=drop, allow=allow, max_distance=max_distance, license=license,
        )
    )  # fmt: skip


def _paths(value: Path | Sequence[Path]) -> tuple[str, ...]:
    if isinstance(value, str | os.PathLike):
        return (os.fspath(value),)
    return tuple(os.fspath(path) for path in value)


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file, read strictly; relative paths in it start at its folder.

    Raises UsageError E0220 with every problem at once, each as file:line:column.
    """
    from rsoup.recipe_yaml import load

    return load(os.fspath(path))
