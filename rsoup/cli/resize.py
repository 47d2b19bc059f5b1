"""`rsoup resize`: one adapter at lower ranks; what the user sees is what `rsoup merge` shows of an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.cli import merge_adapter
from rsoup.cli.gates import Gates
from rsoup.cli.merge import mix_text
from rsoup.cli.merge_arguments import parse_ingredients
from rsoup.console import Console
from rsoup.errors import UsageError
from rsoup.lora.resizing import resize_recipe
from rsoup.recipe import Ingredient


def run(
    adapter: str,
    out: str,
    *,
    base: str | None,
    rank: str | None,
    max_error: str | None,
    dtype: str | None,
    drop: Sequence[str],
    allow: Sequence[str],
    license_: str | None,
    gates: Gates,
    overwrite: bool,
    dry_run: bool,
    threads: int | None,
    console: Console,
) -> None:
    """Make the smaller adapter, or say what it would be."""
    ingredient = one_of(adapter)
    recipe = resize_recipe(
        ingredient.checkpoints[0], base=base, rank=rank, max_error=max_error, dtype=dtype, drop=drop, allow=allow,
        license=license_, name=ingredient.name,
    )  # fmt: skip
    show = merge_adapter.show_plan if dry_run else merge_adapter.run
    show(recipe, out, mix_text(recipe), overwrite=overwrite, threads=threads, gates=gates, console=console)


def one_of(argument: str) -> Ingredient:
    """PATH or NAME=PATH. Raises UsageError E0202 where several are named."""
    (ingredient,) = parse_ingredients([argument])
    if len(ingredient.checkpoints) > 1:
        raise UsageError("E0202", "one checkpoint at a time", hint="rsoup merge averages several first")
    return ingredient
