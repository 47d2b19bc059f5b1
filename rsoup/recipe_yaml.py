"""A recipe file, read strictly: every problem at once, each with file:line:column."""

from __future__ import annotations

import bisect
import os
from dataclasses import fields, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from rsoup.errors import UsageError, show
from rsoup.mix import format_number
from rsoup.recipe import CANONICAL_OPTIONS, MAX_DISTANCE, Recipe
from rsoup.recipe_form import Form, spoken
from rsoup.recipe_nodes import MAX_BYTES, Problems, decode, parse
from rsoup.request import Request, make
from rsoup.tensors import DTYPES

if TYPE_CHECKING:
    import yaml

    from rsoup.recipe_nodes import Node


MIX_CODES = ("E0203", "E0204", "E0205")  # λ itself, whatever normalize and affine say


def load(path: str) -> Recipe:
    """The recipe in the file at `path`; its relative paths start in the file's folder.

    Raises UsageError E0220 with every problem of the file, or E02xx for a recipe that is written well but
    cannot be meant; AccessError E0701 or E0702 where there is nothing to read; RefusedFileError E0807 for
    a folder, a pipe or a device.
    """
    return loads(read_text(path), name=path, folder=os.path.dirname(path))


def read_text(path: str) -> str:
    """The text of a recipe's or a sweep's file. Raises what `load` raises before it is understood."""
    from rsoup.storage.files import open_regular

    opened = open_regular(path, show(path))
    try:
        data = bytearray(min(opened.size, MAX_BYTES + 1))
        opened.read(0, memoryview(data))
    finally:
        opened.close()
    return decode(bytes(data), Problems(path))


def loads(text: str, *, name: str = "recipe.yaml", folder: str = "") -> Recipe:
    """The recipe written in `text`; relative paths start in `folder`, problems are shown with `name`.

    Without a folder, paths stay as they are typed. Raises UsageError E0220 with every problem of the text,
    or E02xx, with its place, for a recipe that is written well but cannot be meant.
    """
    problems = Problems(name)
    form = Form(parse(text, problems), problems, folder)
    problems.check()
    try:
        return make(form.request)
    except UsageError as error:
        node = _culprit(form, error)
        message, hint = spoken(error)
        where = problems.where(node.line, node.column)
        raise UsageError(error.code, message, where=where, hint=hint) from error


def _culprit(form: Form, error: UsageError) -> Node:
    """The node that `make` refused the request for: the rule, ingredient or key without which it would not."""
    request, complaint = form.request, (error.code, error.message)
    if _complaint(replace(request, per_tensor=())) != complaint:
        counts = range(1, len(form.rules) + 1)
        good = bisect.bisect_left(
            counts,
            1,
            key=lambda n: _complaint(replace(request, per_tensor=request.per_tensor[:n])) is not None,
        )
        return form.rules[good]
    names = [ingredient.name for ingredient in request.ingredients]
    for i, node in enumerate(form.ingredients):
        if error.code == "E0202" and (names[i] in names[:i] or names[i] == "base"):
            return node
    defaults = {field.name: field.default for field in fields(Request)}
    for key, node in form.places.items():
        if key in defaults and key not in ("ingredients", "base") and error.code not in MIX_CODES:
            without: dict[str, Any] = {key: defaults[key]}
            if _complaint(replace(request, **without)) != complaint:
                return node
    return form.mix_node or form.places["ingredients"]


def _complaint(request: Request) -> tuple[str, str] | None:
    try:
        make(request)
    except UsageError as error:
        return error.code, error.message
    return None


def json_schema() -> dict[str, object]:
    """The format of recipe files as a JSON Schema (draft 7), with a description on every key."""
    from rsoup import recipe_schema

    return recipe_schema.json_schema()


def dump(recipe: Recipe) -> str:
    """A YAML text that `loads` reads back to an equal recipe; defaults are left out."""
    return dump_form({key: value for key, value in _form(recipe).items() if value is not None})


def request_form(request: Request) -> dict[str, object]:
    """What a recipe's file says of everything but λ, key by key. Raises UsageError E02xx as a recipe."""
    count = len(request.ingredients)
    form = _form(make(replace(request, mix=(Fraction(1, count),) * count)))
    rows = form["ingredients"]
    assert isinstance(rows, list)
    form["ingredients"] = [{key: value for key, value in row.items() if key != "lambda"} for row in rows]
    return {key: value for key, value in form.items() if value is not None}


def dump_form(form: dict[str, object]) -> str:
    """Keys and values as a YAML text: numbers as they are, texts in quotes where they would pass for one."""
    import yaml

    return yaml.serialize(_node(form), Dumper=yaml.SafeDumper, allow_unicode=True, width=10**9)


def _form(recipe: Recipe) -> dict[str, object]:
    rows = zip(recipe.ingredients, recipe.typed_mix, strict=True)
    return {
        "base": recipe.base,
        "method": recipe.method,
        "level": recipe.level if recipe.level != "tensor" else None,
        "ingredients": [
            {
                "name": ingredient.name,
                **_checkpoints(ingredient.checkpoints),
                "lambda": share,
            }
            for ingredient, share in rows
        ],
        "normalize": True if recipe.mix != recipe.typed_mix else None,
        "affine": recipe.affine or None,
        "scale": recipe.scale if recipe.scale != 1 else None,
        "variant": recipe.variant,
        "dtype": DTYPES[recipe.dtype].torch_name if recipe.dtype else None,
        "max_shard_size": _size(recipe.max_shard_bytes) if recipe.max_shard_bytes else None,
        "files_from": recipe.files_from,
        "buffers_from": recipe.buffers_from,
        **{name: getattr(recipe, name) for name in CANONICAL_OPTIONS},
        "drop": list(recipe.drop) or None,
        "per_tensor": [
            {"match": rule.match, "lambda": list(rule.mix)}
            if rule.layers is None
            else {"layers": f"{rule.layers[0]}-{rule.layers[1]}", "lambda": list(rule.mix)}
            for rule in recipe.per_tensor
        ]
        or None,
        "allow": list(recipe.allow) or None,
        "max_distance": recipe.max_distance if recipe.max_distance != MAX_DISTANCE else None,
        "license": recipe.license,
    }


def _checkpoints(paths: tuple[str, ...]) -> dict[str, object]:
    return {"checkpoint": paths[0]} if len(paths) == 1 else {"checkpoints": list(paths)}


def _size(count: int) -> str:
    units = {"TB": 10**12, "TiB": 2**40, "GB": 10**9, "GiB": 2**30, "MB": 10**6, "MiB": 2**20}
    return next((f"{count // unit}{name}" for name, unit in units.items() if count % unit == 0), f"{count}B")


def _node(value: object) -> yaml.Node:
    """A node for PyYAML: numbers and booleans plain, texts in quotes where they would pass for one."""
    import yaml

    if isinstance(value, dict):
        pairs = [(_node(key), _node(inner)) for key, inner in value.items()]
        return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=False)
    if isinstance(value, list):
        row = not any(isinstance(item, dict) for item in value)
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [_node(item) for item in value], flow_style=row)
    if isinstance(value, str):
        style = None if value.isprintable() else '"'
        return yaml.ScalarNode("tag:yaml.org,2002:str", value, style=style)
    text = format_number(value) if isinstance(value, Fraction) else str(value).lower()
    tag = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return yaml.ScalarNode(tag, text)
