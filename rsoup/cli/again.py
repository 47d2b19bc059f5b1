"""A soup alone on the command line means its own recipe: `rsoup merge SOUP` makes it again, `rsoup recipe SOUP` prints it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rsoup.console import Console
from rsoup.errors import UsageError, listing, show, show_path
from rsoup.proof.located import Located, holds_soup
from rsoup.proof.recooking import READING, SHOWN, Again, again

SCHEMA = "rsoup-recipe/1"


def soup_alone(checkpoints: Sequence[str]) -> Located | None:
    """The soup, where one is the only argument and has no name: NAME=SOUP is an ingredient like any other."""
    if len(checkpoints) != 1 or checkpoints[0].lower().endswith((".yaml", ".yml")):
        return None
    (text,) = checkpoints
    name, equals, _ = text.partition("=")
    if equals and "/" not in name and not os.path.lexists(text):
        return None
    return holds_soup(text)


def again_of(
    checkpoints: Sequence[str],
    flags: Sequence[str],
    places: Sequence[str],
    *,
    allow: Sequence[str] = (),
    license_: str | None = None,
) -> Again | None:
    """The soup that is to be made again; None where the arguments are checkpoints or a recipe.

    `flags` are the options that were given and would change it, `places` where its ingredients are here (NAME=PATH).
    Raises UsageError E0731 for such options, E0733 for places of nothing, and what `again` raises.
    """
    found = soup_alone(checkpoints)
    if found is None:
        if places:
            raise UsageError(
                "E0733", "--from says where the ingredients of a soup are, and here is no soup alone",
                hint="rsoup merge SOUP --from NAME=PATH -o OUT; an ingredient of a new soup is NAME=PATH without --from",
            )  # fmt: skip
        return None
    check_places(places)
    flags = [*flags, *(f"--allow {show(name)}" for name in allow if name not in READING)]
    if flags:
        (soup,) = map(show_path, checkpoints)
        raise UsageError(
            "E0731",
            f"a soup alone is made again as it is, and {', '.join(flags)} would change it",
            where=found.shown,
            hint=f"another soup of its ingredients: rsoup recipe {soup} > soup.yaml; with this one as an ingredient: NAME={soup}",
        )
    return again(found, places, allow=allow, license_=license_)


def check_places(places: Sequence[str]) -> None:
    """Raise UsageError E0733 for what is not NAME=PATH, or says one name twice."""
    names = [text.partition("=")[0] for text in places]
    wrong = [text for text in places if not all(text.partition("="))]
    if wrong or len(set(names)) < len(names):
        what = (
            f"--from {show(wrong[0])} does not say what is where" if wrong else f"--from says {listing(sorted({n for n in names if names.count(n) > 1}))} twice"
        )  # fmt: skip
        raise UsageError("E0733", what, hint="--from NAME=PATH, once for each name of the recipe")


def promise(found: Again, out: str) -> str:
    """The line of a plan: whose recipe it is."""
    return f"  again     {found.shown}, by its own recipe; compared at the end: {', '.join(map(show, found.same(out)[:SHOWN] or ['every tensor']))}"


def same(found: Again, out: str) -> str:
    """The line of a soup that was made again: everything compared was equal."""
    names = found.same(out)
    what = (
        "every tensor"
        if not names
        else f"{len(names)} {'file' if len(names) == 1 else 'files'} and every tensor"
    )
    return f"  again     the same bytes as {found.shown}: {what}"


def as_data(found: Again, out: str) -> dict[str, object]:
    """The same as JSON's types."""
    return {
        "soup": found.shown,
        "recipe": found.claims.recipe_sha256,
        "compared": found.same(out),
        "not_compared": [s.name for s in found.claims.subjects if s.name not in found.same(out)],
    }


def show_recipe(soup: str, places: Sequence[str], *, console: Console) -> None:
    """Print the recipe of a soup as a file, its ingredients by their commits; what lay elsewhere keeps its recorded name."""
    from rsoup.recipe_yaml import dump

    check_places(places)
    found = soup_alone([soup])
    if found is None:
        raise UsageError(
            "E0733", "this is no soup: there is no rsoup.json in it", where=show_path(soup),
            hint="the folder that rsoup merge wrote, or its address on the Hub",
        )  # fmt: skip
    made = again(found, places, incomplete=True)
    for name, one in made.unknown:
        console.note(
            f"'{show(name)}' lay on the machine of whoever made it, as '{show(one)}': put its path here"
        )
    text = dump(made.recipe)
    data = {
        "format": SCHEMA, "soup": found.shown, "yaml": text, "missing": [name for name, _ in made.unknown],
        "recipe": {"sha256": made.claims.recipe_sha256, "canonical": dict(made.claims.canonical)},
    }  # fmt: skip
    console.result(text.rstrip("\n"), data, text.rstrip("\n"))
