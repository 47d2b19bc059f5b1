"""The model card of a soup that is an adapter."""

from __future__ import annotations

from collections.abc import Sequence

import rsoup
from rsoup.lora.result import AdapterMeasures
from rsoup.recipe import Recipe
from rsoup.report import card
from rsoup.report.heritage import LICENCE_KEYS, Card, base_models, is_repo


def metadata(
    recipe: Recipe,
    cards: Sequence[Card],
    named: str | None,
    base: tuple[str, Card] | None = None,
) -> tuple[dict[str, object], list[str]]:
    """(Hub metadata, notes): base_model is the model the adapter sits on, relation adapter, library peft.

    That is what its configuration has `named`, else the one that the adapters' cards agree on, else the `base`.
    """
    shared, notes = card.of_ingredients(recipe, cards, base)
    found: dict[str, object] = {}
    parents = (
        [named] if named is not None and is_repo(named) else base_models([("", one) for one in cards], base)
    )
    if len(parents) == 1:
        found["base_model"] = parents[0]
        found["base_model_relation"] = "adapter"
    found["library_name"] = "peft"
    found |= {
        key: shared[key] for key in ("pipeline_tag", "language", *LICENCE_KEYS, "rsoup") if key in shared
    }
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
    lines += card.ingredient_rows(recipe)
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
