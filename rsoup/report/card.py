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
_PINNED = re.compile(rf"({_REPO.pattern.strip('^$')})@[0-9a-f]{{40}}(?:/.*)?")
_NO_LICENCE = ("", "license", "licence", "unknown", "other-unknown")
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
    base_card: Mapping[str, object] | None = None,
) -> tuple[dict[str, object], list[str]]:
    """(Hub metadata, notes) of a full-weight soup: base_model, relation, tags, library, pipeline, licence.

    Only names of Hub repositories get in, never a local path. A licence is inherited where all ingredients
    that have one agree; where none has one it is the base's (`base_card`); where they differ it is left out, a note
    says so, and the key `rsoup` lists them, so that a push refuses until one is chosen. `library` is the
    library_name where the ingredients' cards name none.
    """
    notes: list[str] = []
    named = [
        name for ingredient in recipe.ingredients for uri in ingredient.checkpoints for name in repos_in(uri)
    ]
    parents = list(dict.fromkeys(named)) or ([base_id] if base_id else [])
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
    licences = licences_of(ingredient_cards)
    licence = recipe.license or (licences[0] if len(licences) == 1 else None)
    if licence is None and not licences and base_card is not None and (licence := licence_of(base_card)):
        notes.append(f"the licence is the base's: {show(licence)}; the ingredients' cards name none")
    if licence:
        found["license"] = licence
    elif licences:
        notes.append(
            f"the ingredients' licences differ ({', '.join(show(v) for v in licences)}); the card names none: --license ID"
        )
        found["rsoup"] = {"licenses": licences}
    found["tags"] = ["merge", "rsoup", "rewarded-soup"]
    return found, notes


def is_repo(uri: str) -> bool:
    """Whether this is the name of a Hub repository rather than a path on this machine."""
    import os

    return bool(_REPO.match(uri)) and not os.path.exists(uri)


def repos_in(checkpoint: str) -> list[str]:
    """The Hub repositories in a checkpoint's name: `org/name`, or `org/name@commit/path`, with or without `hf://`, `+` between."""
    found = []
    for part in checkpoint.split("+"):
        pinned = _PINNED.fullmatch(part.removeprefix("hf://"))
        if pinned is not None:
            found.append(pinned[1])
        elif is_repo(part):
            found.append(part)
    return found


def licence_of(card: Mapping[str, object]) -> str | None:
    """The licence a card names; None for none, and for a placeholder such as TRL's."""
    value = str(card.get("license") or "").strip().lower()
    return None if value in _NO_LICENCE else value


def licences_of(cards: Sequence[Mapping[str, object]]) -> list[str]:
    """The different licences that cards name, sorted."""
    return sorted({licence for card in cards if (licence := licence_of(card)) is not None})


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
    return marked(SECTION, "\n".join(lines))


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
