"""README.md: the soup's model card, with the metadata the Hub reads and not a word of anybody's prose lost."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import chain

import rsoup
from rsoup.errors import show
from rsoup.gram import Distances
from rsoup.mix import format_number
from rsoup.recipe import Recipe
from rsoup.report.heritage import Card, base_models, inherited, licences_of
from rsoup.storage.protocols import Source

NAME = "README.md"
MAX_CARD_BYTES = 5_000_000
PICTURES = ("front.png", "front.svg")  # what a published card may show
NO_CARD: Card = {}
SECTION = "rsoup:soup"


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


def beside(source: Source) -> Card:
    """The metadata of the card that lies beside a checkpoint's weights; empty where there is none."""
    data = source.side_file(NAME, MAX_CARD_BYTES)
    return split(data.decode("utf-8", "replace"))[0] if data else {}


def replaced(out: str, *, overwrite: bool) -> str | None:
    """The card in a folder that is to be replaced, whose prose is kept; None where there is none."""
    path = os.path.join(out, NAME)
    if not overwrite or not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(MAX_CARD_BYTES)


def join(metadata: Mapping[str, object], prose: str) -> str:
    """A card from its metadata and its prose; values are quoted by the YAML library where they need it."""
    import yaml

    text = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n{prose}"


def metadata(
    recipe: Recipe,
    cards: Sequence[Card],
    base: tuple[str, Card] | None = None,
    *,
    library: str | None = None,
) -> tuple[dict[str, object], list[str]]:
    """(Hub metadata, notes) of a full-weight soup: base_model, relation, tags, library, pipeline, licence.

    `cards` are the metadata of the checkpoints' cards in order, `base` what a manifest calls the base, and its card's.
    Only names of Hub repositories get in, never a local path. Where the ingredients' licences differ none is chosen,
    a note says so, and the key `rsoup` lists them, so that a push refuses until one is. `library` is the library_name
    where the cards name none.
    """
    called = list(chain(*recipe.public_checkpoints()))
    known = [*cards, *[NO_CARD] * (len(called) - len(cards))]
    parents = base_models(list(zip(called, known, strict=True)), base)
    found: dict[str, object] = {}
    if parents:
        found["base_model"] = parents if len(parents) > 1 else parents[0]
        found["base_model_relation"] = "merge"
    shared, notes = of_ingredients(recipe, cards, base)
    found |= shared
    if library:
        found.setdefault("library_name", library)
    found["tags"] = ["merge", "rsoup", "rewarded-soup"]
    return found, notes


def of_ingredients(
    recipe: Recipe, cards: Sequence[Card], base: tuple[str, Card] | None
) -> tuple[dict[str, object], list[str]]:
    """(library, pipeline, language and licence that the cards agree on, notes)."""
    found: dict[str, object] = {}
    for key in ("library_name", "pipeline_tag", "language"):
        values = [card[key] for card in cards if card.get(key)]
        if values and all(value == values[0] for value in values):
            found[key] = values[0]
    given = inherited(licences_of(cards), licences_of([base[1]] if base else []), recipe.license)
    notes = [] if given.note is None else [given.note]
    if given.licence is not None:
        found |= given.licence.fields()
    elif given.differ:
        notes.append(
            f"the ingredients' licences differ ({', '.join(given.differ)}); the card names none: --license ID"
        )
        found["rsoup"] = {"licenses": list(given.differ)}
    return found, notes


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
    lines += ingredient_rows(recipe)
    lines += ["", f"Method: {recipe.method}" + (f", scale {format_number(recipe.scale)}" if recipe.scale != 1 else "") + ". "
              + (f"Base: {code(recipe.public_base or '')}." if recipe.base else "No base was given."), ""]  # fmt: skip
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
    return marked(SECTION, "\n".join(lines))


def ingredient_rows(recipe: Recipe) -> list[str]:
    """Rows of a Markdown table: the ingredient, its checkpoints as a manifest calls them, its λ."""
    rows = []
    for ingredient, called, share in zip(
        recipe.ingredients, recipe.public_checkpoints(), recipe.mix, strict=True
    ):
        rows.append(f"| {code(ingredient.name)} | {', '.join(map(code, called))} | {format_number(share)} |")
    return rows


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def code(text: str) -> str:
    """Text as Markdown code inside a table cell: no backtick, bar or line end can break out of it."""
    return "`" + show(text).replace("`", "'").replace("|", "¦") + "`"


def merged(existing: str | None, found: Mapping[str, object], new_body: str) -> str:
    """The card to write: metadata brought up to date in an existing card, its prose untouched; or a new card.

    Only what stands between rsoup's own marks in the prose is replaced: it is about the last soup.
    """
    if existing is None:
        return join(found, new_body)
    old, prose = split(existing)
    tags = list(dict.fromkeys([*as_list(old.get("tags")), *as_list(found.get("tags"))]))
    new = {key: value for key, value in old.items() if key != "rsoup"}
    return join({**new, **found, "tags": tags}, with_section(prose, SECTION, section(new_body), append=False))


def as_list(value: object) -> list[object]:
    """A value of metadata that may be one, several or none, as a list."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def marked(name: str, text: str) -> str:
    """Text between the marks by which it is found and replaced later; a reader of the card does not see them."""
    return f"<!-- {name} -->\n{text}<!-- /{name} -->\n"


def section(prose: str, name: str = SECTION) -> str | None:
    """What stands between the marks of this name, the marks left out; None where there are none."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if prose.count(begin) != 1 or prose.count(end) != 1 or prose.index(begin) > prose.index(end):
        return None
    return prose[prose.index(begin) + len(begin) : prose.index(end)]


def with_section(prose: str, name: str, text: str | None, *, append: bool = True) -> str:
    """The prose with this text between the marks; without marks it is added at the end, or not at all."""
    held = section(prose, name)
    if text is None or (held is None and not append):
        return prose
    if held is not None:
        return prose.replace(marked(name, held), marked(name, text))
    return prose + ("" if not prose or prose.endswith("\n") else "\n") + marked(name, text)


def without_section(prose: str, name: str) -> str:
    """The prose without the marks of this name and what stands between them."""
    held = section(prose, name)
    return prose if held is None else prose.replace(marked(name, held), "")
