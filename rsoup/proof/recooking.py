"""A soup made again by the recipe that its own manifest holds, and held against the digests recorded there."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rsoup.errors import IncompatibleError, MismatchError, Problem, UsageError, listing, show
from rsoup.merging import MergeResult, merge
from rsoup.progress import OnProgress
from rsoup.proof import canonical
from rsoup.proof.adapters import EXTRACTED, is_of_adapters
from rsoup.proof.claims import Claims
from rsoup.proof.located import Located, located
from rsoup.proof.rederive import check_strangers
from rsoup.recipe import MAX_DISTANCE, Recipe, address_in
from rsoup.remote.transfer import Way
from rsoup.report import card
from rsoup.report.heritage import licence_of
from rsoup.request import ALLOWANCES
from rsoup.storage.target import is_single_file

SHOWN: Final = 5
NOT_COMPARED: Final = (card.NAME, *card.PICTURES)
"""What a push writes or brings along, and no recipe decides."""
READING: Final = ("symlinks", "unindexed")
"""What may be allowed without changing the soup."""


@dataclass(frozen=True, slots=True)
class Again:
    """A soup that is to be made again: where it is, what its manifest says, its recipe with places to read from.

    `unknown` are (name, last part of the path it had) of checkpoints of which nobody said where they are here.
    """

    found: Located
    claims: Claims
    recipe: Recipe
    unknown: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """What to call the soup."""
        return self.found.shown

    def check(self, made: Mapping[str, Any]) -> None:
        """Raise unless a soup of this manifest, `made` from the same recipe, has the bytes of the published one.

        IncompatibleError E0331 for ingredients of other contents, MismatchError E0735 for other files or tensors.
        """
        try:
            check_strangers(self.claims, _contents(made))
        except IncompatibleError as error:
            error.hint = "--from NAME=PATH with the very checkpoints; nothing was written"
            raise
        found = differences(self.claims.value, made, files=self._files(made))
        if not found:
            return
        more = () if len(found) <= SHOWN else (Problem("", f"and {len(found) - SHOWN} more"),)
        raise MismatchError(
            "E0735",
            f"made again by its recipe it is not {self.shown}; nothing was written",
            details=(*found[:SHOWN], *more),
            hint=f"what the recipe gives here: rsoup recipe {self.found.typed} > soup.yaml, then rsoup merge soup.yaml"
            + self._why(),
        )

    def _files(self, made: Mapping[str, Any]) -> Mapping[str, str] | None:
        """What made files are called in the published soup; None where one of them is a folder and the other a file."""
        is_file = not os.path.isdir(self.found.path)
        names = [row["name"] for row in made["subject"]]
        if is_file != (card.NAME not in names):
            return None
        return {names[0]: os.path.basename(self.found.path)} if is_file else {}

    def _why(self) -> str:
        recipe = self.recipe
        if recipe.rank is None and recipe.max_error is None and recipe.method != "slerp":
            return ""
        return "; angles and truncated factors may have other last digits on another kind of processor"

    def same(self, out: str) -> list[str]:
        """The names of the published files that the check compares with those of a soup at `out`."""
        if os.path.isdir(self.found.path) == is_single_file(out):
            return []
        return [subject.name for subject in self.claims.subjects if subject.name not in NOT_COMPARED]


def _contents(made: Mapping[str, Any]) -> dict[str, str | None]:
    """Name → content digest of the checkpoints a manifest was made from."""
    rows = {row["name"]: row["content"] for row in made["ingredients"]}
    return rows if made["base"] is None else {**rows, "base": made["base"]["content"]}


def differences(
    published: Mapping[str, Any], made: Mapping[str, Any], *, files: Mapping[str, str] | None
) -> list[Problem]:
    """What differs between two manifests of one recipe: files but the card and pictures, tensors, the recipe's hash.

    `files` maps names of made files to published ones, where they differ; None compares no files.
    """
    ours, theirs = {}, {}
    if files is not None:
        for row in made["subject"]:
            name = files.get(row["name"], row["name"])
            ours[name] = {**row, "name": name}
        theirs = {row["name"]: row for row in published["subject"]}
    found = []
    if published["recipe"]["sha256"] != made["recipe"]["sha256"]:
        found.append(Problem("recipe", "it is another one than the manifest's"))
    tensors = [name for name, digest in made["tensors"].items() if published["tensors"].get(name) != digest]
    lacking = [name for name in published["tensors"] if name not in made["tensors"]]
    if tensors or lacking:
        count = len(tensors) + len(lacking)
        found.append(
            Problem(
                "tensors", f"{count} of {len(published['tensors'])} are others: {listing(tensors + lacking)}"
            )
        )
    elif published["content"] != made["content"]:
        found.append(Problem("content", "dtypes or shapes of the tensors are others"))
    for name in sorted({*ours, *theirs} - {*NOT_COMPARED}):
        if ours.get(name) != theirs.get(name):
            found.append(Problem(show(name), _how(ours.get(name), theirs.get(name), made["files_from"])))
    return found


def _how(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None, donor: str) -> str:
    if theirs is None:
        return "the published soup has no such file"
    if ours is None:
        return "the recipe gives no such file"
    if "digest" in theirs or "digest" in ours:
        return "its bytes are others: of its tensors, or of its header"
    return f"its bytes are others; it is copied from '{show(donor)}'"


def again(
    found: Located,
    given: Sequence[str] = (),
    *,
    allow: Sequence[str] = (),
    license_: str | None = None,
    incomplete: bool = False,
) -> Again:
    """The soup's own recipe, its checkpoints by their commits on the Hub, or where `given` (NAME=PATH) says they are.

    `incomplete` leaves the others as the manifest calls them.

    Raises UsageError E0732 for checkpoints that are known to their maker alone, E0734 for an adapter that was
    extracted, E0230 for names the recipe does not have; what `claims.read` raises, and RefusedFileError E0830.
    """
    claims = found.read()
    if claims.value["arithmetic"] == EXTRACTED:
        raise UsageError(
            "E0734",
            "an adapter that was extracted from full weights is not made again: its factors are not the same on every machine",
            where=found.shown,
            hint="rsoup extract FINETUNE --base BASE with the options in checks.extract of its rsoup.json",
        )
    adapters = is_of_adapters(claims)
    recipe = canonical.recipe_of(claims.canonical, claims.shown, adapters=adapters)
    names = {text.partition("=")[0] for text in given}
    unknown = [
        (name, called)
        for name, called in canonical.recorded(recipe)
        if address_in(called) is None and not names & {name, _group(name, recipe)}
    ]
    if unknown and not incomplete:
        raise _refusal(unknown, found.shown)
    rest = [f"{name}={called}" for name, called in unknown]
    places = iter(path for _, path in canonical.places(recipe, [*given, *rest], None))
    ingredients = tuple(
        replace(ingredient, checkpoints=tuple(next(places) for _ in ingredient.checkpoints))
        for ingredient in recipe.ingredients
    )
    made = replace(
        recipe,
        ingredients=ingredients,
        base=next(places, None),
        recorded=tuple(canonical.recorded(recipe)),
        files_from=_donor(recipe, claims.value["files_from"]),
        allow=tuple(sorted({*_allowed(claims), *allow})),
        max_distance=recipe.max_distance if adapters else _distance(claims),
        license=license_ or _licence(found),
    )
    return Again(found, claims, made, tuple(unknown))


def recook(
    soup: str | os.PathLike[str],
    out: str | os.PathLike[str],
    places: Mapping[str, str | os.PathLike[str]] | None = None,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fetch: Way | None = None,
) -> MergeResult:
    """Make a soup (a folder, or an address of the Hub) again by its own recipe; written only if it has the bytes it had.

    `places` says where ingredients are here that lay on somebody's disk: name → path or address, `base` the base's.
    Raises what `merge` raises; UsageError E0732 to E0734, IncompatibleError E0331, MismatchError E0735; AccessError E0730
    where there is no soup.
    """
    given = [f"{name}={os.fspath(place)}" for name, place in (places or {}).items()]
    found = again(located(os.fspath(soup)), given)
    return merge(
        found.recipe,
        out,
        overwrite=overwrite,
        threads=threads,
        progress=progress,
        accept=found.check,
        fetch=fetch,
    )


def _group(name: str, recipe: Recipe) -> str:
    """The ingredient to which a checkpoint of this name belongs."""
    owner, _, number = name.rpartition("/")
    return owner if number.isdigit() and owner in recipe.names else name


def _refusal(unknown: Sequence[tuple[str, str]], shown: str) -> UsageError:
    return UsageError(
        "E0732",
        f"{len(unknown)} of its checkpoints lay on the machine of whoever made it: {listing([n for n, _ in unknown])}",
        where=shown,
        details=tuple(Problem(f"'{show(name)}'", f"a path that ended in '{show(one)}'") for name, one in unknown[:SHOWN]),
        hint="say where they are here: " + " ".join(f"--from {show(name)}=PATH" for name, _ in unknown[:SHOWN]),
    )  # fmt: skip


def _donor(recipe: Recipe, name: str) -> str | None:
    """The ingredient whose files were copied; None for the first, which is the default."""
    owners = [
        ingredient.name
        for ingredient, group in zip(recipe.ingredients, recipe.groups(), strict=True)
        if recipe.checkpoints()[group[0]][0] == name
    ]
    owner = owners[0] if owners else "base"
    return None if owner == recipe.names[0] else owner


def _allowed(claims: Claims) -> list[str]:
    """The checks that were switched off when it was made."""
    named = [text.removeprefix("--allow ") for text in claims.value["overrides"]]
    return [name for name in named if name in ALLOWANCES]


def _distance(claims: Claims) -> float:
    """The distance its maker let pass: none is refused again that was not refused then."""
    found = claims.value["checks"].get("distances", {}).get("relative") or []
    known = [value for value in found if isinstance(value, float | int)]
    return math.inf if len(known) < len(found) or any(v > MAX_DISTANCE for v in known) else MAX_DISTANCE


def _licence(found: Located) -> str | None:
    """The licence in the soup's card, which whoever made or published it decided."""
    path = os.path.join(found.path, card.NAME)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            known = licence_of(card.split(file.read(card.MAX_CARD_BYTES))[0])
    except OSError:
        return None
    return known.ids[0] if known is not None and len(known.ids) == 1 and known.name is None else None
