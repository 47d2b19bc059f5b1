"""The arguments of `rsoup merge` that are about the soup itself → the recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rsoup.errors import UsageError, listing, show
from rsoup.names import names_for
from rsoup.recipe import Ingredient, Recipe
from rsoup.request import Request, make


@dataclass(frozen=True, slots=True)
class Arguments:
    """What `rsoup merge` was given about the soup itself."""

    checkpoints: Sequence[str]
    mix: str | None = None
    uniform: bool = False
    normalize: bool = False
    affine: bool = False
    scale: str = "1"
    base: str | None = None
    method: str = "linear"
    level: str = "tensor"
    dtype: str | None = None
    variant: str | None = None
    max_shard_size: str = "keep"
    files_from: str | None = None
    buffers_from: str | None = None
    optimizer_from: str | None = None
    key: str | None = None
    missing: str | None = None
    vocab: str | None = None
    file_format: str | None = None
    fold: bool = False
    rank: str | None = None
    max_error: str | None = None
    drop: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    max_distance: str = "0.7"
    license: str | None = None


def recipe_of(arguments: Arguments) -> Recipe:
    """The recipe in the one YAML file that was named, or the one the options spell out."""
    paths = arguments.checkpoints
    recipes = [path for path in paths if path.lower().endswith((".yaml", ".yml"))]
    if not recipes:
        return make(
            Request(
                parse_ingredients(paths), mix=None if arguments.mix is None else arguments.mix.split(","), uniform=arguments.uniform,
                normalize=arguments.normalize, affine=arguments.affine, base=arguments.base, method=arguments.method, level=arguments.level,
                scale=arguments.scale, variant=arguments.variant, dtype=arguments.dtype, max_shard_size=arguments.max_shard_size,
                files_from=arguments.files_from, buffers_from=arguments.buffers_from,
                optimizer_from=arguments.optimizer_from, key=arguments.key, missing=arguments.missing, vocab=arguments.vocab,
                file_format=arguments.file_format, fold=arguments.fold, rank=arguments.rank, max_error=arguments.max_error, drop=arguments.drop, allow=arguments.allow,
                max_distance=arguments.max_distance, license=arguments.license,
            )
        )  # fmt: skip
    if len(paths) > 1:
        raise UsageError(
            "E0206",
            f"a recipe ({listing(recipes, 1)}) comes alone",
            hint="put every checkpoint into the recipe",
        )
    if given := flags(arguments):
        raise UsageError(
            "E0206",
            f"{', '.join(given)} and a recipe contradict each other",
            hint="write it into the recipe, so that the recipe tells the whole truth",
        )
    from rsoup.recipe_yaml import load

    return load(recipes[0])


def flags(arguments: Arguments, *, but: Sequence[str] = ()) -> list[str]:
    """The options that were given, as they are typed; the fields `but` are left out."""
    plain = Arguments(arguments.checkpoints)
    names = [field.name for field in fields(plain) if field.name not in but]
    changed = [name for name in names if getattr(plain, name) != getattr(arguments, name)]
    return ["--lambda" if name == "mix" else f"--{name.replace('_', '-')}" for name in changed]


def parse_ingredients(arguments: Sequence[str]) -> list[Ingredient]:
    """PATH, NAME=PATH or NAME=PATH,PATH…; something that exists under the whole text is always a path."""
    named: list[tuple[str | None, tuple[str, ...]]] = []
    for text in arguments:
        name, equals, rest = text.partition("=")
        if not equals or os.path.lexists(text) or "/" in name:
            named.append((None, (text,)))
            continue
        paths = (rest,) if os.path.lexists(rest) else tuple(rest.split(","))
        if not all(paths):
            raise UsageError(
                "E0202",
                f"'{show(text)}' names an empty path",
                hint="NAME=PATH, or NAME=PATH,PATH for several seeds",
            )
        named.append((name, paths))
    fallback = iter(names_for([paths[0] for name, paths in named if name is None]))
    return [Ingredient(name if name is not None else next(fallback), paths) for name, paths in named]
