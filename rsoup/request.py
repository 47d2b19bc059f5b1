"""Request → Recipe: everything a user may have typed, checked; what cannot be meant is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rsoup import mix as mixes
from rsoup.errors import UsageError, listing, show
from rsoup.quantities import parse_max_error, parse_rank, parse_size
from rsoup.recipe import MAX_DISTANCE, Ingredient, Recipe, Rule, are_adapters, is_far

METHOD_NAMES: Final = ("linear", "task_arithmetic", "slerp", "factors")
LEVELS: Final = ("tensor", "global")
ALLOWANCES: Final = ("base", "config", "tokenizer", "distance", "unindexed", "symlinks")
MISSING: Final = ("base",)
VOCABS: Final = ("truncate", "pad")
FILE_FORMATS: Final = ("safetensors", "torch")
MAX_CHECKPOINTS: Final = 1000
MAX_DENOMINATOR_BITS: Final = 2048  # some 600 digits; Python refuses to write integers of more than 4300


@dataclass(frozen=True, slots=True)
class Request:
    """A recipe before it is checked: what was typed, from a command line, a file or a caller.

    `mix` and the mixes of `per_tensor` are texts or fractions; None with `uniform` means λ = 1/N. `adapters`
    says whether all checkpoints are adapters, which need no base; None looks at them.
    """

    ingredients: Sequence[Ingredient]
    mix: Sequence[str | Fraction] | None = None
    uniform: bool = False
    normalize: bool = False
    affine: bool = False
    base: str | None = None
    method: str = "linear"
    level: str = "tensor"
    scale: str | Fraction = "1"
    variant: str | None = None
    dtype: str | None = None
    max_shard_size: str | None = None
    files_from: str | None = None
    buffers_from: str | None = None
    optimizer_from: str | None = None
    key: str | None = None
    missing: str | None = None
    vocab: str | None = None
    file_format: str | None = None
    fold: bool = False
    rank: str | int | None = None
    max_error: str | float | None = None
    drop: Sequence[str] = ()
    per_tensor: Sequence[RuleRequest] = ()
    allow: Sequence[str] = ()
    max_distance: str | float = MAX_DISTANCE
    license: str | None = None
    adapters: bool | None = None


@dataclass(frozen=True, slots=True)
class RuleRequest:
    """A rule before it is checked: `layers` as typed (`0-15` or `3`), λ as texts or fractions."""

    mix: Sequence[str | Fraction]
    match: str | None = None
    layers: str | None = None


def make(request: Request) -> Recipe:
    """The recipe that was asked for, every part of it checked; nothing is guessed or rescaled.

    Raises UsageError (E02…) on the first part that cannot be meant.
    """
    from rsoup.tensors import output_dtype

    ingredients = _ingredients(request.ingredients)
    typed = _mix(request, len(ingredients))
    effective = mixes.checked(typed, normalize=request.normalize, affine=request.affine)
    method = _one_of("method", request.method, METHOD_NAMES)
    level = _one_of("level", request.level, LEVELS)
    allow = tuple(sorted({_one_of("allowance", name, ALLOWANCES) for name in request.allow}))
    scale = _number(request.scale)
    _check_base(request, method, scale, len(ingredients))
    names = [ingredient.name for ingredient in ingredients]
    for option in ("files_from", "buffers_from", "optimizer_from"):
        _known_ingredient(option, getattr(request, option), names, request.base)
    return Recipe(
        ingredients=ingredients,
        mix=effective,
        typed_mix=typed,
        base=request.base,
        method=method,
        level=level,
        scale=scale,
        affine=request.affine,
        variant=request.variant,
        dtype=None if request.dtype in (None, "keep") else output_dtype(request.dtype or "").name,
        max_shard_bytes=parse_size(request.max_shard_size),
        files_from=request.files_from,
        buffers_from=request.buffers_from,
        optimizer_from=request.optimizer_from,
        key=request.key,
        missing=_optional("missing", request.missing, MISSING),
        vocab=_optional("vocab", request.vocab, VOCABS),
        file_format=_optional("file format", request.file_format, FILE_FORMATS),
        fold=request.fold or None,
        rank=parse_rank(request.rank),
        max_error=parse_max_error(request.max_error),
        drop=tuple(request.drop),
        per_tensor=tuple(_rule(rule, request, len(ingredients)) for rule in request.per_tensor),
        allow=allow,
        max_distance=_distance(request.max_distance),
        license=request.license,
    )


def _ingredients(asked: Sequence[Ingredient]) -> tuple[Ingredient, ...]:
    if not asked:
        raise UsageError(
            "E0202",
            "no ingredients",
            hint="name at least one checkpoint: rsoup merge A B --lambda 0.5,0.5 -o OUT",
        )
    count = sum(len(ingredient.checkpoints) for ingredient in asked)
    if count > MAX_CHECKPOINTS:
        raise UsageError("E0202", f"{count} checkpoints; {MAX_CHECKPOINTS} is the limit")
    names = [ingredient.name for ingredient in asked]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            "E0202",
            f"two ingredients are called {listing(twice)}",
            hint="give each a name of its own: NAME=PATH",
        )
    for ingredient in asked:
        if not ingredient.checkpoints:
            raise UsageError("E0202", f"ingredient '{show(ingredient.name)}' names no checkpoint")
        if not ingredient.name or ingredient.name == "base":
            because = ": that is what --base names" if ingredient.name else ""
            raise UsageError(
                "E0202",
                f"an ingredient cannot be called '{show(ingredient.name)}'{because}",
                hint="give it another name: NAME=PATH",
            )
    return tuple(asked)


def _number(value: str | Fraction) -> Fraction:
    return value if isinstance(value, Fraction) else mixes.parse_number(str(value))


def _mix(request: Request, count: int) -> tuple[Fraction, ...]:
    if request.uniform:
        if request.mix is not None:
            raise UsageError(
                "E0206", "--uniform and --lambda contradict each other", hint="leave one of them out"
            )
        return mixes.uniform(count)
    if request.mix is None:
        if count == 1:
            return (Fraction(1),)
        shares = ",".join(["1/" + str(count)] * count)
        raise UsageError(
            "E0202",
            f"no λ for {count} ingredients",
            hint=f"--lambda {shares}, or --uniform, which is the same",
        )
    return _counted([_number(value) for value in request.mix], count)


def _counted(values: Sequence[Fraction], count: int) -> tuple[Fraction, ...]:
    if len(values) != count:
        hint = "one λ per ingredient, separated by commas"
        if len(values) == 2 * count:
            hint += "; a decimal comma is written as a point: 0.5"
        raise UsageError("E0202", f"{len(values)} λ for {count} ingredients", hint=hint)
    common = 1
    for value in values:
        common = math.lcm(common, value.denominator)
        if common.bit_length() > MAX_DENOMINATOR_BITS:
            raise UsageError(
                "E0201",
                "these λ have no common denominator of a sensible size",
                hint="write decimals such as 0.3",
            )
    return tuple(values)


def _rule(asked: RuleRequest, request: Request, count: int) -> Rule:
    if (asked.match is None) == (asked.layers is None):
        raise UsageError("E0209", "a rule of per_tensor needs either 'match' or 'layers'")
    values = _counted([_number(value) for value in asked.mix], count)
    checked = mixes.checked(values, normalize=request.normalize, affine=request.affine)
    return Rule(checked, asked.match, None if asked.layers is None else _layers(asked.layers))


def _layers(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text.strip())
    if found is None or int(found[1]) > int(found[2] or found[1]):
        raise UsageError(
            "E0209", f"'{show(text)}' is not a range of layers", hint="write 0-15, or 3 for one layer"
        )
    return int(found[1]), int(found[2] or found[1])


def _one_of(what: str, value: str, choices: Sequence[str]) -> str:
    if value in choices:
        return value
    raise UsageError("E0210", f"there is no {what} '{show(value)}'", hint=_nearest(value, choices))


def _optional(what: str, value: str | None, choices: Sequence[str]) -> str | None:
    return None if value is None else _one_of(what, value, choices)


def _nearest(value: str, choices: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(value, choices, 1)
    return f"did you mean '{near[0]}'?" if near else f"one of {', '.join(choices)}"


def _known_ingredient(option: str, name: str | None, names: Sequence[str], base: str | None) -> None:
    choices = [*names, *(["base"] if base is not None else [])]
    if name is not None and name not in choices:
        flag = "--" + option.replace("_", "-")
        raise UsageError(
            "E0210", f"{flag}: no ingredient is called '{show(name)}'", hint=_nearest(name, choices)
        )


def check_based(recipe: Recipe) -> None:
    """Raise UsageError E0207 where the recipe needs a base and has none; its addresses are by commit and at hand."""
    adapters = are_adapters(recipe.ingredients)
    _refuse_baseless(recipe.method, recipe.affine, recipe.scale, recipe.missing, recipe.base, adapters)


def _refuse_baseless(
    method: str, affine: bool, scale: Fraction, missing: str | None, base: str | None, adapters: bool
) -> None:
    if base is not None or (adapters and method in ("linear", "task_arithmetic", "factors")):
        return  # an adapter is a difference from its base already
    reason = None
    if method not in ("linear", "factors"):
        reason = f"the method {method} mixes differences from the base"
    elif affine:
        reason = "--affine gives the base what λ leaves: 1 − Σλ"
    elif scale != 1:
        reason = "--scale stretches the distance from the base"
    elif missing == "base":
        reason = "--missing base takes from it what a fine-tune lacks"
    if reason is not None:
        raise UsageError(
            "E0207",
            f"{reason}, and there is no base",
            hint="add --base BASE, the checkpoint all were fine-tuned from",
        )


def _check_base(request: Request, method: str, scale: Fraction, count: int) -> None:
    if request.fold and (request.rank is not None or request.max_error is not None):
        raise UsageError(
            "E0206", "--fold makes full weights, which have no rank", hint="leave out --rank and --max-error"
        )
    if request.rank is not None and request.max_error is not None:
        raise UsageError(
            "E0206", "--rank and --max-error contradict each other", hint="leave one of them out"
        )
    adapters = request.adapters
    if adapters is None:
        far = any(is_far(uri) for ingredient in request.ingredients for uri in ingredient.checkpoints)
        adapters = far or are_adapters(request.ingredients)  # `check_based` asks again when it is at hand
    _refuse_baseless(method, request.affine, scale, request.missing, request.base, adapters)
    if method == "slerp":
        if count != 2:
            raise UsageError(
                "E0211",
                f"slerp turns from one ingredient to another; here are {count}",
                hint="--method linear takes any number",
            )
        if request.affine or request.normalize:
            raise UsageError(
                "E0211", "slerp takes λ ≥ 0 with Σλ = 1 only", hint="leave out --affine and --normalize"
            )


def _distance(value: str | float) -> float:
    if value in ("inf", math.inf):
        return math.inf
    found = value if isinstance(value, float) else float(mixes.parse_number(str(value)))
    if not found > 0:
        raise UsageError(
            "E0210", f"--max-distance {show(value)} refuses everything", hint="something like 0.7"
        )
    return found
