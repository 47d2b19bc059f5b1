"""A recipe's canonical form → the Recipe again, and given checkpoints → the places it names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Any, Final, TypeVar

from rsoup.errors import RefusedFileError, UsageError, listing, show
from rsoup.recipe import CANONICAL_OPTIONS, Ingredient, Recipe, address_in
from rsoup.request import Request, RuleRequest, make

Path = str | os.PathLike[str]
Given = Mapping[str, Path | Sequence[Path]] | Sequence[Path]

Value = TypeVar("Value", str, int)

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+|/[1-9][0-9]*)?")
_LONGEST: Final = 4000


def recipe_of(form: Mapping[str, object], where: str, *, adapters: bool = False) -> Recipe:
    """The recipe whose `canonical()` is `form`; its paths are the public names, all that a form holds of them.

    `adapters`: it is one of adapters, which need no base to be added up.

    What does not decide the soup's bytes has its default value. Raises RefusedFileError E0830 for
    anything that no recipe of this version of rsoup has for its canonical form.
    """
    try:
        recipe = _recipe(form, adapters=adapters)
        same = json.dumps(recipe.canonical(), sort_keys=True) == json.dumps(form, sort_keys=True)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, UsageError):
        same = False
    if not same:
        raise RefusedFileError(
            "E0830",
            "the recipe in it is not one that this version of rsoup writes",
            where=where,
            hint="a newer rsoup made it? pip install --upgrade rewarded-soups",
        )
    return recipe


def _recipe(form: Mapping[str, Any], *, adapters: bool) -> Recipe:
    rows, size = form["ingredients"], _optional(form["max_shard_bytes"], int)
    request = Request(
        [Ingredient(_text(row["name"]), tuple(map(_text, row["checkpoints"]))) for row in rows],
        mix=[_number(row["lambda"]) for row in rows],
        affine=form["affine"] is True,
        base=_optional(form["base"], str),
        method=_text(form["method"]),
        level=_text(form.get("level", "tensor")),
        scale=_number(form["scale"]),
        variant=_optional(form["variant"], str),
        dtype=_optional(form["dtype"], str),
        max_shard_size=None if size is None else f"{size}B",
        buffers_from=_optional(form["buffers_from"], str),
        drop=[*map(_text, form["drop"])],
        per_tensor=[_rule(row) for row in form["per_tensor"]],
    )
    given: dict[str, Any] = {name: _option(name, form[name]) for name in CANONICAL_OPTIONS if name in form}
    return make(replace(request, adapters=adapters, **given))


def _option(name: str, value: object) -> object:
    """The value of an option that is there only if it was given: a text, but for two."""
    kind = {"fold": bool, "rank": int}.get(name, str)
    if type(value) is not kind:
        raise TypeError
    return value


def _rule(row: Mapping[str, Any]) -> RuleRequest:
    layers = None if row["layers"] is None else "{}-{}".format(*map(int, row["layers"]))
    return RuleRequest([*map(_number, row["lambda"])], _optional(row["match"], str), layers)


def _optional(value: object, kind: type[Value]) -> Value | None:
    if value is not None and type(value) is not kind:
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> Fraction:
    text = _text(value)
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        raise ValueError
    return Fraction(text)


def places(recipe: Recipe, given: Given, base: Path | None) -> list[tuple[str, str]]:
    """(name, path) of every checkpoint of `recipe` in its order, the base last as `base`.

    `given` are paths in the recipe's order, texts NAME=PATH (or NAME=PATH,PATH for a group), a mapping of
    the same, or one recipe file, of which only the paths are used. What the recipe has by a commit of the Hub may be
    left out. Raises UsageError E0230 where a checkpoint is not given, or is not of this recipe.
    """
    if not isinstance(given, Mapping) and len(given) == 1 and _is_recipe(os.fspath(given[0])):
        from rsoup.recipe_yaml import load

        asked = load(os.fspath(given[0]))
        given = {ingredient.name: ingredient.checkpoints for ingredient in asked.ingredients}
        base = asked.base if base is None else base
    names = [name for name, _ in recipe.checkpoints()]
    named, plain = _sorted(recipe, names, given)
    far = {name: address for name, called in recorded(recipe) if (address := address_in(called)) is not None}
    base = named.pop("base", base) or far.pop("base", None)
    free = [name for name in names if name not in named]
    if len(plain) < len(free):
        named = far | named
        free = [name for name in names if name not in named]
    if len(plain) != len(free):
        if not given:
            raise _ungiven()
        what = f"{len(plain)} checkpoints for {listing(free, 20)}" if plain else f"nothing given for {listing(free, 20)}"  # fmt: skip
        raise _unfit(
            what if free else f"{listing(plain)} is one checkpoint too many", "name them in this order"
        )
    named |= dict(zip(free, plain, strict=True))
    found = [(name, named[name]) for name in names]
    if (recipe.base is None) != (base is None):
        if base is not None:
            raise _unfit("this soup was made without a base", "leave out --base")
        raise _unfit(f"nothing given for the base, '{show(recipe.base)}'", "--base BASE")
    return [*found, *([("base", os.fspath(base))] if base is not None else [])]


def recorded(recipe: Recipe) -> list[tuple[str, str]]:
    """(name, what a manifest calls it) of every checkpoint in order, the base last as `base`."""
    names = [name for name, _ in recipe.checkpoints()]
    rows = list(zip(names, chain(*recipe.public_checkpoints()), strict=True))
    return rows if recipe.public_base is None else [*rows, ("base", recipe.public_base)]


def _ungiven() -> UsageError:
    return UsageError(
        "E0230",
        "the soup can be mixed again only from its ingredients, and none are given",
        hint="rsoup verify OUT CHECKPOINT… --rederive, in the order of the recipe",
    )


def _is_recipe(path: str) -> bool:
    return path.lower().endswith((".yaml", ".yml"))


def _sorted(recipe: Recipe, names: Sequence[str], given: Given) -> tuple[dict[str, str], list[str]]:
    """(checkpoint's name → path, the paths without a name)."""
    groups = {
        ingredient.name: [
            ingredient.name if len(ingredient.checkpoints) == 1 else f"{ingredient.name}/{number}"
            for number, _ in enumerate(ingredient.checkpoints, 1)
        ]
        for ingredient in recipe.ingredients
    }
    known = {**groups, **{name: [name] for name in names}}
    if recipe.base is not None:
        known["base"] = ["base"]
    pairs: list[tuple[str, tuple[str, ...]]] = []
    plain: list[str] = []
    if isinstance(given, Mapping):
        pairs = [(name, _paths(value)) for name, value in given.items()]
    else:
        for text in (os.fspath(path) for path in given):
            name, equals, rest = text.partition("=")
            if not equals or name not in known or os.path.lexists(text):
                plain.append(text)
            else:
                pairs.append((name, (rest,) if os.path.lexists(rest) else tuple(rest.split(","))))
    named: dict[str, str] = {}
    for name, paths in pairs:
        if name not in known:
            raise _unfit(f"no ingredient is called '{show(name)}'", f"they are {listing(list(groups), 20)}")
        if len(paths) != len(known[name]) or not all(paths):
            raise _unfit(f"{len(paths)} checkpoints for '{show(name)}'", f"it has {len(known[name])}")
        named |= dict(zip(known[name], paths, strict=True))
    return named, plain


def _paths(value: Path | Sequence[Path]) -> tuple[str, ...]:
    return (
        (os.fspath(value),)
        if isinstance(value, str | os.PathLike)
        else tuple(os.fspath(path) for path in value)
    )


def _unfit(what: str, hint: str) -> UsageError:
    return UsageError("E0230", f"these are not the checkpoints of the soup's recipe: {what}", hint=hint)
