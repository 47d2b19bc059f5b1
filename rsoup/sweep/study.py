"""Study: a sweep that is decided: the recipe of every point, and the key of every evaluation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rsoup.dialects import is_adapter_place
from rsoup.errors import UsageError, show
from rsoup.mix import format_number
from rsoup.plan import ARITHMETIC
from rsoup.recipe import Ingredient, Recipe
from rsoup.request import Request, make
from rsoup.storage.here import check_here
from rsoup.storage.target import is_single_file
from rsoup.stores.place import at_hand
from rsoup.sweep import folder as folders
from rsoup.sweep import series
from rsoup.sweep.evaluation import Evaluator
from rsoup.sweep.inputs import Inputs
from rsoup.sweep.point import Point
from rsoup.sweep.spec import SweepSpec

_BY_DIGEST = ("ingredients", "base", "affine", "buffers_from", "optimizer_from")


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation that is wanted: of a point, by an evaluator (its number), with a seed, for a split."""

    point: Point
    evaluator: int
    seed: int
    split: str


class Study:
    """A sweep in `folder`; its ingredients in order, the training steps they share, their soups' recipes."""

    def __init__(self, spec: SweepSpec, folder: str) -> None:
        """Raises UsageError and AccessError for series that cannot be paired."""
        check_here(folder)
        self.folder = os.path.abspath(folder)
        self.spec = replace(spec, request=_absolute(_expanded(spec)))
        self.names = tuple(ingredient.name for ingredient in self.spec.request.ingredients)
        self.paths = {
            ingredient.name: series.expand(ingredient.checkpoints[0])
            for ingredient in self.spec.request.ingredients
            if ingredient.name in spec.series
        }
        found = series.steps_of(self.paths) if self.paths else None
        self.steps: tuple[int | None, ...] = (None,) if found is None else found[0]
        self.notes: tuple[str, ...] = () if found is None else found[1]
        self.base = self.spec.request.base
        self._recipes: dict[Point, Recipe] = {}

    def recipe(self, point: Point) -> Recipe:
        """The recipe of a point's soup. Raises what a merge's recipe raises."""
        found = self._recipes.get(point)
        if found is None:
            request = self.spec.request
            if point.step is not None:
                request = series.request_at(request, self.paths, point.step)
            scale = point.scale if point.scale != 1 else request.scale
            found = make(replace(request, mix=point.mix, scale=scale))
            self._recipes[point] = found
        return found

    def recipes(self) -> list[Recipe]:
        """A recipe for every training step, with all checkpoints of it."""
        count = len(self.names)
        even = (Fraction(1, count),) * count
        return [self.recipe(Point(even, step=step)) for step in self.steps]

    def soup(self, point: Point) -> str:
        """Where the point's soup is made: a folder, or a file where the ingredients are files of one kind."""
        paths = [path for _, path in self.recipe(point).checkpoints()]
        endings = {os.path.splitext(path)[1].lower() if os.path.isfile(path) else "" for path in paths}
        ending = endings.pop() if len(endings) == 1 else ""
        name = point.name + (ending if ending and is_single_file(ending) else "")
        return os.path.join(self.folder, folders.SOUPS, name)

    def merge_command(self, point: Point) -> str:
        """The line that makes a point's soup in a POSIX shell."""
        import shlex

        from rsoup.recipe_yaml import dump

        recipe = self.recipe(point)
        plain = make(Request(recipe.ingredients, mix=recipe.mix, base=recipe.base, scale=recipe.scale, affine=recipe.affine))  # fmt: skip
        if (plain != recipe and dump(plain) != dump(recipe)) or any("=" in name for name in self.names):
            return f"rsoup merge {shlex.quote(os.path.join(self.folder, 'recipes', point.name))}.yaml -o soup"
        checkpoints = [f"{i.name}={','.join(i.checkpoints)}" for i in recipe.ingredients]
        words = ["rsoup", "merge", *checkpoints, "--lambda", ",".join(map(format_number, recipe.mix))]
        words += ["--base", recipe.base] if recipe.base is not None else []
        words += ["--scale", format_number(recipe.scale)] if recipe.scale != 1 else []
        return shlex.join([*words, *(["--affine"] if recipe.affine else []), "-o", "soup"])


def options_of(recipe: Recipe) -> dict[str, object]:
    """What decides a soup's bytes besides its checkpoints and λ, as JSON."""
    form = {name: value for name, value in recipe.canonical().items() if name not in _BY_DIGEST}
    return form | {name: getattr(recipe, name) for name in ("buffers_from", "optimizer_from", "files_from")}


def soup_key(recipe: Recipe, inputs: Inputs) -> dict[str, object]:
    """What a soup is made of, without any name or path: an ingredient without a share changes nothing of it."""
    shares = [
        [sorted(inputs.contents[path] for path in ingredient.checkpoints), format_number(share)]
        for ingredient, share in zip(recipe.ingredients, recipe.mix, strict=True)
        if share != 0
    ]
    donor = recipe.ingredients[0]
    if recipe.files_from is not None and recipe.files_from != "base":
        donor = recipe.ingredients[recipe.names.index(recipe.files_from)]
    beside = recipe.base if recipe.files_from == "base" else donor.checkpoints[0]
    return {
        "arithmetic": ARITHMETIC,
        "options": options_of(recipe),
        "shares": sorted(shares, key=json.dumps),
        "base": None if recipe.base is None else inputs.contents[recipe.base],
        "beside": None if beside is None else inputs.beside[beside],
    }


class Keys:
    """The key of every evaluation: SHA-256 of what is really evaluated, and by what."""

    def __init__(self, study: Study, inputs: Inputs, evaluators: Sequence[Evaluator]) -> None:
        self._study, self._inputs = study, inputs
        self._evaluators = [dict(evaluator.identity) for evaluator in evaluators]
        self._known: dict[Job, str] = {}

    def __getitem__(self, job: Job) -> str:
        found = self._known.get(job)
        if found is None:
            what = {
                "soup": soup_key(self._study.recipe(job.point), self._inputs),
                "evaluator": self._evaluators[job.evaluator],
                "seed": job.seed,
                "split": job.split,
            }
            text = json.dumps(what, sort_keys=True, separators=(",", ":"))
            found = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
            self._known[job] = found
        return found


def _expanded(spec: SweepSpec) -> Request:
    """The request with the checkpoints of one group as ingredients, where a strategy chooses among them."""
    request = spec.request
    groups = [ingredient for ingredient in request.ingredients if len(ingredient.checkpoints) > 1]
    if spec.strategy == "points" or not groups:
        return request
    if len(request.ingredients) > 1:
        raise UsageError(
            "E0206",
            f"--strategy {spec.strategy} chooses among checkpoints; here are groups beside each other",
            hint=f"give it one group, or the checkpoints by themselves (a group: '{show(groups[0].name)}')",
        )
    named = [Ingredient(f"{groups[0].name}/{i}", (path,)) for i, path in enumerate(groups[0].checkpoints, 1)]
    return replace(request, ingredients=named)


def _absolute(request: Request) -> Request:
    ingredients = [
        Ingredient(i.name, tuple(_path(path) for path in i.checkpoints)) for i in request.ingredients
    ]
    return replace(
        request, ingredients=ingredients, base=None if request.base is None else _path(request.base)
    )


def _path(text: str) -> str:
    text = at_hand(text)  # an address of the Hub by its commit, for the whole sweep
    if "://" in text or os.path.lexists(text):
        return text if "://" in text else os.path.abspath(text)
    return "+".join(os.path.abspath(part) for part in text.split("+"))  # CHECKPOINT+ADAPTER


def state_of(study: Study, inputs: Inputs, evaluators: Sequence[Evaluator]) -> dict[str, object]:
    """What a sweep's results are results of, as JSON: compared when it is run again."""
    recipes = study.recipes()
    contents: dict[str, list[str]] = {}
    for recipe in recipes:
        for ingredient in recipe.ingredients:
            found = [inputs.contents[path] for path in ingredient.checkpoints]
            contents[ingredient.name] = contents.get(ingredient.name, []) + found
    return {
        "schema": "rsoup-sweep/1",
        "options": options_of(recipes[0]) | {"per_tensor": [], "scale": "1"},
        "ingredients": contents,
        "base": None if study.base is None else inputs.contents[study.base],
        "evaluators": [dict(evaluator.identity) for evaluator in evaluators],
    }


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> list[tuple[str, str]]:
    """(what, how) of everything on which results of `before` depend and that is another thing now."""
    found = []
    for part, word in (("options", "option"), ("ingredients", "ingredient")):
        old, new = before.get(part), now.get(part)
        if isinstance(old, dict) and isinstance(new, dict):
            for name in sorted(old.keys() & new.keys() if part == "ingredients" else old.keys() | new.keys()):
                if old.get(name) != new.get(name):
                    how = "its weights are others" if part == "ingredients" else f"{old.get(name)} → {new.get(name)}"  # fmt: skip
                    found.append((f"{word} '{show(name)}'", how))
    if before.get("base") != now.get("base"):
        found.append(("base", "its weights are others, or it was added or left out"))
    old_ones, new_ones = before.get("evaluators"), now.get("evaluators")
    if isinstance(old_ones, list) and isinstance(new_ones, list):
        for i, (old, new) in enumerate(zip(old_ones, new_ones, strict=False), 1):
            if old != new and isinstance(old, dict) and isinstance(new, dict):
                parts = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
                found.append((f"evaluator {i}", f"changed: {', '.join(parts)}"))
        if len(old_ones) > len(new_ones):
            found.append(("evaluators", f"there were {len(old_ones)}, now {len(new_ones)}"))
    return found


def needs_adapter(study: Study) -> bool:
    """Whether the soups are adapters."""
    return not study.spec.request.fold and all(
        is_adapter_place(path) for _, path in study.recipes()[0].checkpoints()
    )
