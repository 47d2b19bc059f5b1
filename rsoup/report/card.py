"""README.md: the soup's model card, with the metadata the Hub reads and not a word of anybody's prose lost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import rsoup
from rsoup.errors import show
from rsoup.gram import Distances
from rsoup.mix import format_number
from rsoup.recipe import Recipe, public_name

NAME = "README.md"
MAX_CARD_BYTES = 5_000_000
_REPO = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
_NO_LICENCE = ("", "license", "licence", "unknown", "other-unknown")


def split(card: str) -> tuple[dict[str, object], str]:
    """(metadata, prose) of a card: the YAML between the first two `---` lines, and everything after it.

    A card whose metadata is not a plain YAML table has none; its whole text is prose.
    """
    found = re.match(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", card, re.DOTALL)
    if found is None:
        return {}, card
    import yaml

    try:
        loaded = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, card
    if not isinstance(loaded, dict):
        return {}, card
    return {str(key): value for key, value in loaded.items()}, card[found.end() :]


def join(metadata: Mapping[str, object], prose: str) -> str:
    """A card from its metadata and its prose; values are quoted by the YAML library where they need it."""
    import yaml

    text = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n{prose}"


def metadata(
    recipe: Recipe,
    ingredient_cards: Sequence[Mapping[str, object]],
    base_id: str | None,
    *,
    library: str | None = None,
) -> tuple[dict[str, object], list[str]]:
    """(Hub metadata, notes) of a full-weight soup: base_model, relation, tags, library, pipeline, licence.

    Only names of Hub repositories get in, never a local path. A licence is inherited where all ingredients
    that have one agree; otherwise it is left out and a note says so. `library`
    is the library_name where the ingredients' cards name none.
    """
    notes: list[str] = []
    parents = [uri for ingredient in recipe.ingredients for uri in ingredient.checkpoints if is_repo(uri)]
    parents = parents or ([base_id] if base_id else [])
    found: dict[str, object] = {}
    if parents:
        found["base_model"] = parents if len(parents) > 1 else parents[0]
        found["base_model_relation"] = "merge"
    for key in ("library_name", "pipeline_tag", "language"):
        values = [card[key] for card in ingredient_cards if card.get(key)]
        if values and all(value == values[0] for value in values):
            found[key] = values[0]
    if library and "library_name" not in found:
        found["library_name"] = library
    licence = recipe.license or _licence(ingredient_cards, notes)
    if licence:
        found["license"] = licence
    found["tags"] = ["merge", "rsoup", "rewarded-soup"]
    return found, notes


def is_repo(uri: str) -> bool:
    """Whether this is the name of a Hub repository rather than a path on this machine."""
    import os

    return bool(_REPO.match(uri)) and not os.path.exists(uri)


def _licence(cards: Sequence[Mapping[str, object]], notes: list[str]) -> str | None:
    values = {str(card["license"]).strip().lower() for card in cards if card.get("license")} - set(
        _NO_LICENCE
    )
    if len(values) > 1:
        notes.append(
            f"the ingredients' licences differ ({', '.join(show(v) for v in sorted(values))}); the card names none: --license ID"
        )
    return values.pop() if len(values) == 1 else None


def body(recipe: Recipe, distances: Distances | None, update_error: float | None) -> str:
    """The prose of a new card: what was mixed, with which λ, how far apart, and how to make it again."""
    lines = [
        "",
        "# Soup",
        "",
        f"The weighted average of {_plural(len(recipe.ingredients), 'ingredient')}, made with rsoup {rsoup.__version__}.",
        "",
    ]
    lines += ["| ingredient | checkpoints | λ |", "|---|---|---|"]
    for ingredient, share in zip(recipe.ingredients, recipe.mix, strict=True):
        checkpoints = ", ".join(code(public_name(uri)) for uri in ingredient.checkpoints)
        lines.append(f"| {code(ingredient.name)} | {checkpoints} | {format_number(share)} |")
    lines += ["", f"Method: {recipe.method}" + (f", scale {format_number(recipe.scale)}" if recipe.scale != 1 else "") + ". "
              + (f"Base: {code(public_name(recipe.base))}." if recipe.base else "No base was given."), ""]  # fmt: skip
    if recipe.per_tensor:
        lines += ["Some tensors have a mix of their own; `rsoup.json` lists them.", ""]
    if distances is not None:
        shares = [value for value in distances.relative if value is not None]
        if shares:
            lines += [
                f"Distance of the checkpoints from the base, relative: {', '.join(f'{value:.4f}' for value in shares)}.",
                "",
            ]
    if update_error is not None:
        lines += [f"The stored dtype rounds away {update_error:.2%} of the update against the base.", ""]
    lines += [
        f"Recipe hash: `{recipe.sha256()}`. `rsoup.json` holds the recipe, and a digest of every file and tensor.",
        "",
    ]
    return "\n".join(lines)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def code(text: str) -> str:
    """Text as Markdown code inside a table cell: no backtick, bar or line end can break out of it."""
    return "`" + show(text).replace("`", "'").replace("|", "¦") + "`"


def merged(existing: str | None, found: Mapping[str, object], new_body: str) -> str:
    """The card to write: metadata brought up to date in an existing card, its prose untouched; or a new card."""
    if existing is None:
        return join(found, new_body)
    old, prose = split(existing)
    tags = list(dict.fromkeys([*_as_list(old.get("tags")), *_as_list(found.get("tags"))]))
    return join({**old, **found, "tags": tags}, prose)


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]
