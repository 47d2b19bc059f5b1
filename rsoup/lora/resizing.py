"""resize(adapter, out): one adapter at lower ranks, as near to it as they allow."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rsoup.errors import IncompatibleError, UsageError, show
from rsoup.lora.merging import Cooked, merge_adapters
from rsoup.lora.mounting import makes_adapter
from rsoup.names import names_for
from rsoup.prepare import by_commit
from rsoup.progress import OnProgress
from rsoup.recipe import Ingredient, Recipe
from rsoup.request import Request, make

Path = str | os.PathLike[str]


def resize_recipe(
    adapter: str,
    *,
    base: str | None = None,
    rank: int | str | None = None,
    max_error: str | float | None = None,
    dtype: str | None = None,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    license: str | None = None,
    name: str | None = None,
) -> Recipe:
    """The soup of this one adapter with λ = 1, truncated.

    Raises UsageError E0219 (neither rank nor error), IncompatibleError E0365 (no adapter).
    """
    if rank is None and max_error is None:
        raise UsageError(
            "E0219",
            "nothing says how small the adapter is to be",
            hint="--rank 16 bounds its ranks; --max-error 0.1 its relative error",
        )
    ingredient = Ingredient(name if name is not None else names_for([adapter])[0], (adapter,))
    recipe = make(
        Request([ingredient], base=base, rank=rank, max_error=max_error, dtype=dtype, drop=drop, allow=allow, license=license)
    )  # fmt: skip
    far = not os.path.exists(adapter)
    recipe = by_commit(recipe) if far else recipe
    if not (far and recipe.checkpoints()[0][1] == adapter) and not makes_adapter(recipe):
        raise IncompatibleError(
            "E0365",
            "this is no adapter: it has no adapter_config.json",
            where=show(adapter),
            hint="full weights become an adapter with: rsoup extract FINETUNE --base BASE --rank R -o OUT",
        )
    return recipe


def resize(
    adapter: Path,
    out: Path,
    *,
    base: Path | None = None,
    rank: int | str | None = None,
    max_error: str | float | None = None,
    dtype: str | None = None,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    license: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fail_above_error: float | None = None,
) -> Cooked:
    """argmin ‖s·B·A − B'·A'‖ over factors of a lower rank, module by module: `merge` of one adapter, truncated.

    Either `rank` bounds every rank, or the ranks are the fewest whose relative error (Frobenius, over all modules) is
    at most `max_error`. `base` is needed for DoRA, PiSSA and OLoRA. Raises as `merge` does, and UsageError E0219,
    IncompatibleError E0365. Source: Eckart and Young 1936.
    """
    recipe = resize_recipe(
        os.fspath(adapter), base=None if base is None else os.fspath(base), rank=rank, max_error=max_error, dtype=dtype,
        drop=drop, allow=allow, license=license, name=name,
    )  # fmt: skip
    (made,) = merge_adapters(
        [(recipe, os.fspath(out))],
        overwrite=overwrite,
        threads=threads,
        progress=progress,
        fail_above_error=fail_above_error,
    )
    return made
