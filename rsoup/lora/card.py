"""The model card of a soup that is an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rsoup
from rsoup.lora.result import AdapterMeasures
from rsoup.mix import format_number
from rsoup.recipe import Recipe, public_name
from rsoup.report import card


def metadata(
    recipe: Recipe,
    cards: Sequence[Mapping[str, object]],
    base: str | None,
    *,
    base_card: Mapping[str, object] | None = None,
) -> tuple[dict[str, object], list[str]]:
    """(Hub metadata, notes): base_model is the model the adapter sits on, relation adapter, library peft."""
    shared, notes = card.metadata(recipe, cards, None, base_card=base_card)
    found: dict[str, object] = {}
    if base is not None and card.is_repo(base):
        found["base_model"] = base
        found["base_model_relation"] = "adapter"
    found["library_name"] = "peft"
    found |= {key: shared[key] for key in ("pipeline_tag", "language", "license", "rsoup") if key in shared}
    found["tags"] = ["lora", "merge", "rsoup", "rewarded-soup"]
    return found, notes


def body(recipe: Recipe, measures: AdapterMeasures) -> str:
    """The prose of a new card: what was mixed, how exactly, and how to load it."""
    lines = [
        "",
        "# Soup",
        "",
        f"An adapter: the weighted sum of the updates of {len(recipe.checkpoints())} adapters, made with rsoup "
        f"{rsoup.__version__}.",
        "",
        "| ingredient | checkpoints | λ |",
        "|---|---|---|",
    ]
    for ingredient, share in zip(recipe.ingredients, recipe.mix, strict=True):
        paths = ", ".join(card.code(public_name(uri)) for uri in ingredient.checkpoints)
        lines.append(f"| {card.code(ingredient.name)} | {paths} | {format_number(share)} |")
    lines += ["", _exactness(measures), ""]
    lines += [
        f"Recipe hash: `{recipe.sha256()}`. `rsoup.json` holds the recipe, and a digest of every file and tensor.",
        "",
    ]
    return card.marked(card.SECTION, "\n".join(lines))


def _exactness(measures: AdapterMeasures) -> str:
    if measures.copied is not None:
        return f"It is {card.code(measures.copied)}, bit for bit."
    if measures.factors_distance is not None:
        return (
            "Its factors A and B are averaged each by itself (--method factors), which is not the soup: "
            f"{measures.factors_distance:.3g} of its norm away from it."
        )
    assert measures.ranks is not None
    ranks = sorted(set(measures.ranks.chosen.values()))
    shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    if measures.ranks.is_exact:
        return f"It is the exact soup, of {shown}."
    return f"It is the best approximation of the soup of {shown}: {measures.ranks.error:.3g} of its norm away from it."
