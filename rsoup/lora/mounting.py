"""Adapters among checkpoints, each put on the base it belongs to, so that all of them are full checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from rsoup.compat.tied import EMBEDDING, HEAD, is_tied
from rsoup.dialects import is_adapter_place
from rsoup.errors import IncompatibleError, UsageError, listing, show
from rsoup.lora.adapted import AdaptedSource
from rsoup.lora.adapter import is_adapter, read_adapter, read_config, untrained
from rsoup.lora.compare import other_base, same_base
from rsoup.lora.config import TOKENS
from rsoup.lora.foreign_source import ForeignSource
from rsoup.recipe import Recipe
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.protocols import Source
from rsoup.storage.views import Aliased, Lent

_MOUNTED = (AdaptedSource, ForeignSource)


def makes_adapter(recipe: Recipe) -> bool:
    """Whether the soup is an adapter: all ingredients are, and full weights were not asked for."""
    places = [uri for _, uri in recipe.checkpoints()]
    return not recipe.fold and all(is_adapter_place(uri) for uri in places)


def with_base(recipe: Recipe, sources: Sequence[CheckpointSource]) -> tuple[Recipe, list[str]]:
    """The recipe with the base that its adapters name, where it names none itself and that folder is here.

    `sources` are the open ingredients. Raises UsageError E0207 where an adapter needs a base and there is none.
    """
    alone = [source for source in sources if is_adapter(source) and source.under is None]
    if recipe.base is not None or not alone:
        return recipe, []
    named = {read_config(source).base for source in alone}
    path = next(iter(named)) if len(named) == 1 else None
    if path is None or not os.path.isdir(path):
        shown = f" (they name '{show(path)}', which is no folder here)" if path else ""
        if len(named) > 1:
            shown = f" (they do not name one: {listing(sorted(name or '' for name in named), 3)})"
        raise UsageError(
            "E0207",
            f"full weights of an adapter need the base it was trained on{shown}",
            hint="add --base BASE",
        )
    return replace(recipe, base=path), [f"the base is the one the adapters name: {show(path)}"]


def mounted(
    recipe: Recipe, opened: Sequence[CheckpointSource], *, weights: bool = True
) -> tuple[list[Source], list[str]]:
    """(every checkpoint as a full one, notes), the base last if the recipe has one.

    Raises IncompatibleError E0340 to E0345 and RefusedFileError E0820 to E0824 for adapters that cannot be, E0840 to
    E0845 for those of types that only PEFT knows.
    """
    if recipe.fold and not any(is_adapter(source) for source in opened):
        raise UsageError("E0206", "--fold means nothing without an adapter", hint="leave it out")
    if recipe.rank is not None or recipe.max_error is not None:
        raise UsageError(
            "E0206", "--rank and --max-error mean nothing to full weights", hint="leave them out"
        )
    if not any(is_adapter(source) for source in opened):
        return list(opened), []
    base = mounted_base(opened[-1]) if recipe.base is not None else None
    fine_tuned = opened if base is None else opened[:-1]
    sources = [_mount(source, base) for source in fine_tuned]
    adapted = [source for source in sources if isinstance(source, AdaptedSource)]
    notes = list(untrained([source.adapter for source in adapted])) if weights else []
    alone = [s for s, file in zip(sources, fine_tuned, strict=True) if file.under is None]
    on_base = [s for s in alone if isinstance(s, _MOUNTED)]
    notes += [*same_base(on_base, recipe.allow), *other_base(on_base, recipe.base)]
    everything = [*sources, *([base] if base is not None else [])]
    everything, more = _untied(everything, notes)
    return _with_new_heads(everything, recipe, more)


def mounted_base(source: CheckpointSource) -> Source:
    """The base as a full checkpoint: CHECKPOINT+ADAPTER is one, an adapter alone is none (E0207)."""
    if is_adapter(source) and source.under is None:
        raise UsageError(
            "E0207",
            "the base is an adapter, which is no model by itself",
            hint="--base BASE is the checkpoint the adapters were trained on, or CHECKPOINT+ADAPTER",
        )
    return _mount(source, None)


def _mount(source: CheckpointSource, base: Source | None) -> Source:
    if not is_adapter(source):
        return source
    under = base if source.under is None else _mount(source.under, None)
    if under is None:
        raise UsageError(
            "E0207",
            f"'{show(source.name)}' is an adapter, and there is no checkpoint for it to sit on",
            hint="add --base BASE, or write CHECKPOINT+ADAPTER",
        )
    config = read_config(source)
    if config.raw.get("alora_invocation_tokens"):
        raise IncompatibleError(
            "E0340",
            "this adapter cannot be folded: it acts only after its invocation tokens (aLoRA), weights always do",
            where=show(source.name),
            hint="without --fold the soup stays an adapter that its tokens switch on",
        )
    if config.is_low_rank or config.peft_type == TOKENS:
        return AdaptedSource(under, read_adapter(source))
    return ForeignSource(under, source, config)


def _untied(sources: list[Source], notes: list[str]) -> tuple[list[Source], list[str]]:
    """Give every checkpoint a head of its own where an adapter changes one of two tied tensors and not the other."""
    embedding = next((name for name in sources[0].header if EMBEDDING.search(name)), None)
    if embedding is None or not any(_splits(source, embedding) for source in sources):
        return sources, notes
    seen: list[Source] = []
    for source in sources:
        if HEAD in source.header:
            seen.append(source)
            continue
        changed = isinstance(source, _MOUNTED) and embedding in source.changed
        inner = source.base if isinstance(source, _MOUNTED) and changed else source
        seen.append(Aliased(source, {HEAD: (inner, embedding)}))
    note = (
        f"the adapters change '{show(embedding)}' or its tied head and not both: the soup stores '{HEAD}' of its own "
        "and says tie_word_embeddings false"
    )
    return seen, [*notes, note]


def _splits(source: Source, embedding: str) -> bool:
    """Whether an adapter changes the embeddings of a tied model alone (rows of tokens count for both), or its head."""
    if not isinstance(source, _MOUNTED) or HEAD in source.base.header or not is_tied(source.base):
        return False
    if isinstance(source, AdaptedSource):
        ensured = source.adapter.config.raw.get("ensure_weight_tying")
        if ensured and "lm_head" not in source.adapter.updates:
            return False
    return HEAD in source.header or embedding in source.changed


def _with_new_heads(
    sources: list[Source], recipe: Recipe, notes: list[str]
) -> tuple[list[Source], list[str]]:
    """Tensors that the ingredients have and the base has not: the soup's are Σλᵢθᵢ, if Σλ = 1 and all have them."""
    if recipe.base is None:
        return sources, notes
    *fine_tuned, base = sources
    new = [name for name in dict.fromkeys(n for s in fine_tuned for n in s.header) if _is_new(name, sources)]
    if not new:
        return sources, notes
    lacking = [source.name for source in fine_tuned if any(name not in source.header for name in new)]
    if lacking:
        return sources, notes  # the comparison says it
    if recipe.affine or recipe.scale != 1:
        raise IncompatibleError(
            "E0345",
            f"the base has no {listing(new, 3)} of that shape, so that only a soup with Σλ = 1 of them is defined",
            hint=f"leave out --affine and --scale, or --drop '{show(new[0])}'",
        )
    first = fine_tuned[0]
    filled = Lent(base, {name: (first, name) for name in new})
    note = f"{listing(new, 3)}: the base has none of that shape, so they are averaged among the ingredients alone"
    return [*fine_tuned, filled], [*notes, note]


def _is_new(name: str, sources: Sequence[Source]) -> bool:
    """Whether a tensor is not in the base, or all adapters agree on another shape of it: a resized vocabulary."""
    *fine_tuned, base = sources
    if name not in base.header:
        return True
    shapes = {s.header[name].shape for s in fine_tuned if name in s.header}
    adapted = all(isinstance(s, (*_MOUNTED, Aliased)) for s in fine_tuned)
    return adapted and len(shapes) == 1 and base.header[name].shape not in shapes
